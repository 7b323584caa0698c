"""The container driver, against a program that takes docker's words and keeps its containers in files."""

import json
import stat
import sys

import pytest

from api.wire_workloads import PayloadView
from fallow.agent.containers import ContainerDriver
from fallow.agent.payloads import UNKNOWN_EXIT, DriverFailed, ExecDriver, Job, PayloadRefused

DOCKER = """#!{python}
import json, pathlib, sys
here = pathlib.Path(sys.argv[0]).parent
with open(here / "calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
def of(name):
    path = here / name
    if not path.exists():
        sys.exit(f"Error response from daemon: No such container: {{name}}")
    return path
if (here / "down").exists():
    sys.exit("Cannot connect to the Docker daemon")
match sys.argv[1:]:
    case ["version"]:
        pass
    case ["run", *rest]:
        if "refused:1" in rest:
            print("Unable to find image 'refused:1' locally")
            sys.exit(125)
        (here / rest[rest.index("--name") + 1]).write_text("true 0")
    case ["container", "inspect", "--format", _, name]:
        print(of(name).read_text())
    case ["stop", "--time", _, name]:
        of(name).write_text("true 0" if (here / "stuck").exists() else "false 143")
    case ["port", name, "22/tcp"]:
        if not (here / "unpublished").exists():
            print("0.0.0.0:49153\\n[::]:49153")
    case ["rm", "--force", "--volumes", name]:
        of(name).unlink()
    case _:
        sys.exit("no such command")
"""


class Docker:
    def __init__(self, directory):
        self.directory = directory
        self.program = directory / "docker"
        self.program.write_text(DOCKER.format(python=sys.executable))
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)

    def calls(self, word):
        lines = (self.directory / "calls").read_text().splitlines()
        return [call for call in map(json.loads, lines) if call[0] == word]

    def driver(self, **options):
        return ContainerDriver(str(self.program), host="gpu.example.org", **options)


@pytest.fixture
def docker(tmp_path):
    return Docker(tmp_path)


def job(payload, ssh_public_key=None):
    return Job("lease_a", ["GPU-1", "GPU-2"], ssh_public_key, payload)


async def test_a_container_gets_its_gpus_its_words_and_the_owners_options(docker):
    driver = docker.driver(options=["--shm-size=1g"])
    payload = PayloadView(["train", "--fast"], "ghcr.io/lab/train:2", {"WORD": "a b"})
    assert await driver.start(job(payload)) == {}
    assert await driver.start(job(payload)) == {}
    (call,) = docker.calls("run")
    assert call[-3:] == ["ghcr.io/lab/train:2", "train", "--fast"]
    assert call[call.index("--gpus") + 1] == '"device=GPU-1,GPU-2"'
    assert {"WORD=a b", "FALLOW_LEASE=lease_a"} < set(call)
    assert "--shm-size=1g" in call and "--publish" not in call
    assert await driver.exit_code("lease_a") is None


async def test_podman_takes_gpus_by_their_names(docker, monkeypatch):
    docker.program.rename(docker.program.with_name("podman"))
    monkeypatch.setenv("PATH", str(docker.directory))
    await ContainerDriver("podman", host="x").start(job(PayloadView([], "image:1")))
    (call,) = docker.calls("run")
    devices = [option for option in call if option.startswith("--device")]
    assert devices == ["--device=nvidia.com/gpu=GPU-1", "--device=nvidia.com/gpu=GPU-2"]


async def test_ssh_alone_gets_the_default_image_and_tells_where_to_go(docker):
    driver = docker.driver(default_image="base:1", has_gpus=False)
    asked = job(None, "ssh-ed25519 AAAA me")
    assert driver.runs(asked) and not docker.driver().runs(asked)
    connect = await driver.start(asked)
    assert connect == {"host": "gpu.example.org", "port": "49153", "user": "root"}
    (call,) = docker.calls("run")
    assert call[-1] == "base:1" and "PUBLIC_KEY=ssh-ed25519 AAAA me" in call and "--gpus" not in call


async def test_a_port_that_is_not_published_is_refused_not_tried_for_ever(docker):
    """podman says nothing and ends with 0."""
    (docker.directory / "unpublished").touch()
    with pytest.raises(PayloadRefused, match="not published") as refused:
        await docker.driver(default_image="base:1").start(job(None, "ssh-ed25519 AAAA me"))
    assert refused.value.exit_code == 125


async def test_its_end_is_sigterm_then_its_grace_and_it_can_be_asked_twice(docker):
    driver = docker.driver()
    await driver.start(job(PayloadView([], "image:1")))
    await driver.end("lease_a", 7.9)
    assert docker.calls("stop")[0][2] == "7"
    assert await driver.exit_code("lease_a") == 143
    await driver.forget("lease_a")
    assert await driver.exit_code("lease_a") == UNKNOWN_EXIT
    await driver.end("lease_a", 1)
    await driver.forget("lease_a")


async def test_whose_fault_it_is(docker):
    driver = docker.driver()
    with pytest.raises(PayloadRefused) as refused:
        await driver.start(job(PayloadView([], "refused:1")))
    assert refused.value.exit_code == 125
    with pytest.raises(PayloadRefused):
        await driver.start(job(PayloadView(["train"])))
    await driver.start(job(PayloadView([], "image:1")))
    (docker.directory / "stuck").touch()
    with pytest.raises(DriverFailed):
        await driver.end("lease_a", 0)
    (docker.directory / "down").touch()
    with pytest.raises(DriverFailed, match="Cannot connect"):
        await driver.exit_code("lease_a")
    with pytest.raises(DriverFailed):
        await driver.start(job(PayloadView([], "refused:1")))
    with pytest.raises(DriverFailed, match="No such file"):
        await ContainerDriver("/no/such/docker", host="x").exit_code("lease_a")


def test_exec_never_runs_payloads_as_root(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for user in (None, "root"):
        with pytest.raises(ValueError, match="must not run as root"):
            ExecDriver(tmp_path, user)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ValueError, match="only root"):
        ExecDriver(tmp_path, "nobody")

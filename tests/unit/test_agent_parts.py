"""The agent's parts alone: what it decides, which GPUs it finds, how it runs hooks."""

import asyncio
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.agent.hooks import HookFailed, Order, run_hook
from fallow.agent.inventory import NoGpus, SmiInventory, find_inventory
from fallow.agent.journal import Held, Journal, Phase, Report
from fallow.agent.market_clock import MarketClock
from fallow.agent.reconcile import Act, Wanted, steps


def held(phase, reclaim_at_us=None, *, has_payload=False):
    return {"l": Held("l", [0], phase, reclaim_at_us, has_payload=has_payload)}


def wanted(state, reclaim_at_us=None):
    return [Wanted("l", state, [0], reclaim_at_us)]


@pytest.mark.parametrize(
    ("own", "asked", "expected"),
    [
        ({}, wanted("starting"), Act.START),
        ({}, wanted("running"), Act.ADOPT),
        ({}, wanted("noticed", 200), Act.ADOPT),
        (held(Phase.STARTING), wanted("starting"), Act.START),
        (held(Phase.STARTING), [], Act.STOP),
        (held(Phase.RUNNING), wanted("running"), None),
        (held(Phase.RUNNING), wanted("starting"), None),
        (held(Phase.RUNNING), wanted("noticed", 200), Act.DRAIN),
        (held(Phase.RUNNING), wanted("noticed", 100), Act.STOP),
        (held(Phase.RUNNING), [], Act.STOP),
        (held(Phase.RUNNING, 200), wanted("running"), None),  # the notice was withdrawn
        (held(Phase.DRAINED, 200), wanted("noticed", 200), Act.STOP),
        (held(Phase.DRAINED, 200), wanted("running"), None),
        (held(Phase.DRAINED, 200, has_payload=True), wanted("running"), Act.START),
        (held(Phase.DRAINED, 200, has_payload=True), wanted("noticed", 200), Act.STOP),
        (held(Phase.STOPPING), wanted("running"), Act.STOP),
        # Out of reach: payloads run on, known notices keep their time.
        (held(Phase.RUNNING), None, None),
        (held(Phase.RUNNING, 200), None, Act.DRAIN),
        (held(Phase.RUNNING, 100), None, Act.STOP),
        (held(Phase.STOPPING), None, Act.STOP),
    ],
)
def test_what_to_do_next(own, asked, expected):
    found = steps(own, asked, now_us=100)
    assert [step.act for step in found] == ([] if expected is None else [expected])


@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(Phase)),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["starting", "running"])),
)
def test_every_lease_gets_at_most_one_step_and_nothing_unwanted_runs_on(own, asked):
    mine = {lease: Held(lease, [0], phase) for lease, phase in own.items()}
    found = {
        step.lease: step.act
        for step in steps(mine, [Wanted(lease, state, [0]) for lease, state in asked.items()], 0)
    }
    for lease in own.keys() - asked.keys():
        assert found[lease] is Act.STOP
    for lease in asked.keys() - own.keys():
        assert found[lease] in (Act.START, Act.ADOPT)


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(0o755)
    return path


SMI = """
import sys
if "query-gpu" in sys.argv[1]:
    print("1, GPU-b, NVIDIA H100, 81559\\n0, GPU-a, NVIDIA H100, 81559")
else:
    print("GPU-b, 4711")
"""


def test_nvidia_smi_is_asked_where_nvml_is_not_there(tmp_path, monkeypatch):
    script(tmp_path / "nvidia-smi", SMI)
    monkeypatch.setenv("PATH", str(tmp_path))
    inventory = SmiInventory()
    assert [(gpu.index, gpu.uuid, gpu.memory_mib) for gpu in inventory.gpus()] == [
        (0, "GPU-a", 81_559),
        (1, "GPU-b", 81_559),
    ]
    assert inventory.busy() == {1}
    script(tmp_path / "nvidia-smi", "raise SystemExit(9)")
    with pytest.raises(NoGpus, match="nvidia-smi"):
        inventory.gpus()


def test_without_gpus_it_says_what_was_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoGpus, match=r"NVML.*nvidia-smi is not installed"):
        find_inventory()
    inventory, gpus = find_inventory(fake_gpus=3)
    assert [gpu.index for gpu in gpus] == [0, 1, 2] and inventory.busy() == set()


ORDER = Order("lease_1", [0, 1], ["GPU-a", "GPU-b"])


async def test_a_hook_is_told_and_tells_how_to_connect(tmp_path):
    assert await run_hook(None, "on_start", ORDER, 5) == {}
    assert await run_hook(tmp_path, "on_start", ORDER, 5) == {}, "none there"
    body = """
import json, os, sys
sys.stdin.read()
print(json.dumps({'connect': {'gpus': os.environ['CUDA_VISIBLE_DEVICES']}}))
"""
    script(tmp_path / "on_start", body)
    assert await run_hook(tmp_path, "on_start", ORDER, 5) == {"gpus": "GPU-a,GPU-b"}
    script(tmp_path / "on_start", "print('x' * 10_000_000)")
    with pytest.raises(HookFailed, match="no such object"):
        await run_hook(tmp_path, "on_start", ORDER, 5)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise SystemExit(3)", "status 3"),
        ("import time; time.sleep(60)", "took over"),
        ("import os, time\nos.fork()\ntime.sleep(60)", "took over"),
    ],
)
async def test_a_hook_that_fails_or_hangs_says_why(tmp_path, body, why):
    script(tmp_path / "on_stop", body)
    with pytest.raises(HookFailed, match=why):
        await run_hook(tmp_path, "on_stop", ORDER, 0.5)


async def test_a_file_that_is_no_program_is_a_failed_hook(tmp_path):
    (tmp_path / "on_stop").write_text("no program")
    with pytest.raises(HookFailed):
        await run_hook(tmp_path, "on_stop", ORDER, 5)


def test_the_journal_remembers_everything(tmp_path):
    journal = Journal(tmp_path / "node.json", "node")
    journal.memory.held["l"] = Held("l", [1, 2], Phase.DRAINED, 7, {"host": "x"})
    journal.memory.reports.append(Report("l", "started", {"host": "x"}))
    journal.memory.fenced = [3]
    journal.save()
    assert Journal(tmp_path / "node.json", "node").memory == journal.memory
    assert [path.name for path in tmp_path.iterdir()] == ["node.json"]


async def test_what_a_hook_leaves_running_is_neither_waited_for_nor_killed(tmp_path):
    """A payload that was started in the background inherits the hook's output."""
    body = """
import json, os, time
if os.fork() == 0:
    time.sleep(3)
    open(os.path.dirname(__file__) + '/survived', 'w').close()
    os._exit(0)
print(json.dumps({'connect': {'host': 'x'}}))
"""
    script(tmp_path / "on_start", body)
    began_s = asyncio.get_running_loop().time()
    assert await run_hook(tmp_path, "on_start", ORDER, 10) == {"host": "x"}
    assert asyncio.get_running_loop().time() - began_s < 2.5
    async with asyncio.timeout(10):
        while not (tmp_path / "survived").exists():
            await asyncio.sleep(0.1)


SECOND = 1_000_000
NOON = "Sun, 29 Nov 2026 12:00:00 GMT"
NOON_US = 1_795_953_600 * SECOND


@pytest.mark.parametrize(
    ("asked", "answered", "corrected"),  # seconds by the node's clock, from noon
    [
        (0.2, 0.3, 0),  # within the second that the date names
        (-5, 5, 0),  # a long poll says little
        (-3.5, -3, 3),  # at least three seconds behind
        (9.5, 10, -8.5),  # at least so much ahead
        (600, 600.1, -599),
    ],
)
def test_a_date_corrects_a_clock_as_far_as_it_must(asked, answered, corrected):
    clock = MarketClock()
    clock.hear(NOON, NOON_US + int(asked * SECOND), NOON_US + int(answered * SECOND))
    assert clock._ahead_us == corrected * SECOND
    clock.hear("no date", 0, 0)
    clock.hear(NOON, NOON_US + int((asked - 30) * SECOND), NOON_US + int((answered + 30) * SECOND))
    assert clock._ahead_us == corrected * SECOND, "what says less changes nothing"
    before_us = clock.own_us()
    assert before_us <= clock.now_us() - corrected * SECOND <= clock.own_us()

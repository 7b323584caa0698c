"""The tools that only the long suite needs, in an environment of their own.

Their dependencies are not ours and some would fight them, so they never enter the environment that the
tests run in. The pins are the extra `proof` of pyproject.toml; the environment lies in `build/proof-tools`,
is made once for each set of pins, and is absent where there is no package index: then `environment` says
why.
"""

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALL_SECONDS_MAX = 580


class NoTools(Exception):
    """The environment could not be made; the message is for the table."""


def environment() -> Path:
    """Return the directory of an environment with the extra `proof`; raise NoTools."""
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["proof"]
    name = hashlib.sha256("\n".join([sys.version, *pins]).encode()).hexdigest()[:12]
    where = ROOT / "build" / "proof-tools" / name
    done = where / "complete"
    if done.exists():
        return where
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(where)],
        [str(where / "bin" / "pip"), "install", "-q", "--only-binary", ":all:", *pins],
    ):
        ran = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX)
        if ran.returncode != 0:
            last = (ran.stderr.strip() or "no message").splitlines()[-1]
            raise NoTools(f"the extra `proof` could not be installed: {last[:200]}")
    done.touch()
    return where


def site_packages(where: Path) -> Path:
    """Return where its packages lie."""
    (found,) = (where / "lib").glob("python*/site-packages")
    return found

"""The kernel under AddressSanitizer and UBSan with atheris choosing the bytes.

Clang builds it without -fwrapv, which Python's own flags would hide signed overflow with, and with the
coverage that libFuzzer reads. Atheris brings the sanitizer's runtime with libFuzzer inside; it must be
loaded first and no second one linked.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kernel_builds import ROOT, build
from tests.proof.tools import NoTools, environment, site_packages

FLAGS = (
    "-fsanitize=address,fuzzer-no-link,undefined -fno-sanitize=function -fno-sanitize-recover=all "
    "-fno-wrapv -fno-omit-frame-pointer -g -O1"
)


def plant(where: Path, file: str, right: str, wrong: str) -> None:
    """Put a bug into a copy of the kernel, before it is built; the test's switch."""
    path = where / "matching" / file
    text = path.read_text()
    assert text.count(right) == 1, f"{file} has {right!r} {text.count(right)} times"
    path.write_text(text.replace(right, wrong))


def build_for_atheris(where: Path) -> Path:
    """Return a build that atheris can watch; raise NoTools where clang is missing."""
    if shutil.which("clang") is None:
        raise NoTools("no clang here")
    return build(where, compiler="clang", flags=FLAGS, verify=True)


def fuzz(where: Path, corpus: Path, *, runs: int, seed: int, seconds: int) -> tuple[int, int, int, str]:
    """Let atheris run; return (lives, clearings, lives a second, what went wrong or "")."""
    tools = site_packages(environment())
    preload = tools / "asan_with_fuzzer.so"
    if not preload.exists():
        raise NoTools("this atheris has no runtime with AddressSanitizer")
    shutil.copytree(ROOT / "tests", where / "tests", dirs_exist_ok=True)
    corpus.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.kernel_driver", "--runs", str(runs), "--seed", str(seed),
         "--atheris", str(corpus), "--seconds", str(seconds)],
        cwd=where, capture_output=True, text=True,
        env=os.environ | {
            "PYTHONPATH": f"{where}{os.pathsep}{tools}",
            "LD_PRELOAD": str(preload),
            "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.count(" ") == 2 and line[0].isdigit()]
    lives, clearings, rate = map(int, lines[-1].split()) if lines else (0, 0, 0)
    return lives, clearings, rate, "" if done.returncode == 0 else done.stderr[-3000:]

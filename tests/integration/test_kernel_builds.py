"""Determinism over builds: release, verify, a second compiler and the plain reference decide the same."""

import shutil

import pytest

from tests.kernel_builds import compare, sanitize


@pytest.mark.timeout(900)
def test_every_build_gives_the_same_digests(tmp_path):
    found = compare(tmp_path)
    assert {"release", "verify", "reference"} <= set(found)
    assert len(found) >= 4, f"a C compiler to compare with: {sorted(found)}"
    assert len(set(found.values())) == 1, found


@pytest.mark.timeout(900)
def test_the_property_suite_is_clean_under_asan_and_ubsan(tmp_path):
    assert shutil.which("gcc"), "gcc builds the sanitized kernel"
    done = sanitize(tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

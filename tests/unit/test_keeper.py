"""The keeper of a payload, as the agent runs it: a process that signals arrive at when they like."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from fallow.agent import keeper

RUNS = 120
DEFIES = 'trap "" TERM; touch up; while :; do sleep 1; done'


def start(home, script):
    (home / "work").mkdir(parents=True)
    command = [sys.executable, "-I", keeper.__file__, str(home), "", "/bin/sh", "-c", script]
    kept = subprocess.Popen(command)
    deadline = time.monotonic() + 10
    while not (home / "work/up").exists():
        assert time.monotonic() < deadline, "the payload does not start"
        time.sleep(0.002)
    return kept


def test_the_kill_is_heard_however_soon_it_follows_the_notice(tmp_path):
    for run in range(RUNS):
        kept = start(tmp_path / str(run), DEFIES)
        try:
            kept.send_signal(signal.SIGTERM)
            until = time.perf_counter() + run % 40 * 5e-6
            while time.perf_counter() < until:
                pass
            kept.send_signal(signal.SIGUSR1)
            assert kept.wait(2) == 0, f"run {run}"
            assert (tmp_path / str(run) / "exit").read_text() == "137"
        finally:
            while kept.poll() is None:
                kept.send_signal(signal.SIGUSR1)
                time.sleep(0.1)


ORPHANS = 20
LEAVES_ORPHANS = f'for n in $(seq {ORPHANS}); do sh -c "sleep 0.05 &"; done; touch up; sleep 60'


def state_and_parent(pid):
    """Return a process's state letter and its parent's pid; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None, None


def test_what_a_payload_orphans_is_gone_when_it_ends_not_when_the_payload_does(tmp_path):
    """A payload of days that starts helpers in the background must not fill the table of processes."""
    kept = start(tmp_path, LEAVES_ORPHANS)
    try:
        deadline = time.monotonic() + 8
        while True:
            children = Path(f"/proc/{kept.pid}/task/{kept.pid}/children").read_text().split()
            if len(children) == 1:
                break
            assert time.monotonic() < deadline, [state_and_parent(child) for child in children]
            time.sleep(0.05)
        assert kept.poll() is None and state_and_parent(children[0])[0] == "S", "the payload runs on"
    finally:
        kept.send_signal(signal.SIGUSR1)
        kept.wait(10)
    assert (tmp_path / "exit").read_text() == "137"

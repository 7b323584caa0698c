"""The keeper of a payload, as the agent runs it: a process that signals arrive at when they like."""

import signal
import subprocess
import sys
import time

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

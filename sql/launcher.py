"""Become the server's user, ask for a death signal, and turn into the given program.

Run as a script, in a fresh single-threaded interpreter: `launcher.py PARENT SIGNAL USER PROGRAM
ARGUMENT...`, where USER is `keep`, `drop:UID:GID` or `namespace:UID:GID`. It is a program of its
own because code between fork and exec of a threaded process may deadlock, and because a user
namespace needs a process with one thread. Invariants: the death signal is asked for last, since
the kernel clears it whenever credentials change; a parent that died before that is noticed.
"""

import ctypes
import os
import sys
from typing import NoReturn

EXIT_LAUNCH_FAILED = 126

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> NoReturn:
    """Run the program named in `arguments`; it keeps this process's id."""
    parent, signal_number, user, program = arguments[:4]
    try:
        become(user)
        if sys.platform == "linux":
            prctl = ctypes.CDLL(None, use_errno=True).prctl
            _check(prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0), "prctl")
        if os.getppid() != int(parent):
            sys.exit(EXIT_LAUNCH_FAILED)  # died before the signal was asked for: nobody waits for us
        os.execv(program, arguments[3:])
    except OSError as error:
        print(f"cannot start {program} as {user}: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_LAUNCH_FAILED)


def become(user: str) -> None:
    """Change to `user` in the notation of the command line; raises OSError where that is forbidden."""
    kind, *numbers = user.split(":")
    if kind == "keep":
        return
    uid, gid = map(int, numbers)
    if kind == "drop":
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)  # as root: the real, the effective and the saved one, so there is no way back
        return
    assert kind == "namespace", user
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    _check(ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER), "unshare")
    # The kernel lets a process map only its own ids, and its group only once setgroups is given up.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])

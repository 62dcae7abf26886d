"""Run a command in a namespace of its own: `python -m tests.testbed.namespace COMMAND...`.

A killer under test can then see, and so kill, only what the tests themselves made. The command's
parent is pid 1 of the namespace (pid and mount): it reaps orphans, passes SIGTERM, SIGINT and
SIGHUP on, and gives the command's exit code (128 + signal number if a signal ended it). When it
exits the kernel ends everything left inside. As root nothing else changes, so a Docker engine runs
in it; other users get a user namespace as well.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000
_PR_SET_PDEATHSIG = 1
_SI_KERNEL = 0x80  # a Ctrl-C of the terminal: the whole foreground group has it already
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WAITED = {*_FORWARDED, signal.SIGCHLD}

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceError(RuntimeError):
    """This machine does not let us make a namespace."""


def run(command: list[str]) -> int:
    """Run `command` in its namespace and give its exit code once nothing of it is left."""

    def execute() -> int:
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"namespace: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
            return 127

    return inside(execute)


def inside(work: Callable[[], int]) -> int:
    """The same for a function of this program. The caller's later children are born in the namespace too."""
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWPID | _CLONE_NEWNS | (0 if uid == 0 else _CLONE_NEWUSER)
    before: set[int | signal.Signals] = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    _check(_libc.unshare(flags), "unshare", "run as root, or allow user namespaces")
    if uid != 0:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    init = _fork(lambda: _init(work, before))
    return _supervise(init)


def _init(work: Callable[[], int], mask: set[int | signal.Signals]) -> int:
    """Pid 1: own /proc, then the work, then reaping until it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount / private", "")
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _check(_libc.mount(b"proc", b"/proc", b"proc", flags, None), "mount /proc", "")
    os.environ["DAGSTOP_TEST_NAMESPACE"] = "1"

    def unblocked() -> int:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return work()

    return _supervise(_fork(unblocked))


def _supervise(main: int) -> int:
    """Reap every child and forward signals until `main` has ended; give its exit code."""
    while True:
        info = signal.sigwaitinfo(_WAITED)
        if info.si_signo != signal.SIGCHLD:
            if info.si_code != _SI_KERNEL:
                os.kill(main, info.si_signo)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == main:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def _fork(work: Callable[[], int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70  # never return into the caller's stack, whatever happens
    try:
        code = work()
    except NamespaceError as error:
        print(f"namespace: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def _check(result: int, what: str, hint: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        raise NamespaceError(f"{what}: {reason}" + (f"; {hint}" if hint else ""))


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise NamespaceError(f"{path}: {error.strerror}; run as root") from error


def main() -> int:
    """Entry point of `python -m tests.testbed.namespace`."""
    if len(sys.argv) < 2:
        print("usage: python -m tests.testbed.namespace COMMAND [ARGUMENT...]", file=sys.stderr)
        return 64
    try:
        return run(sys.argv[1:])
    except NamespaceError as error:
        print(f"namespace: {error}", file=sys.stderr)
        return 71


if __name__ == "__main__":
    sys.exit(main())

"""Descriptors of other processes: of the process itself, which files it has open, and a duplicate of one.

pidfd_getfd(2), Linux 5.6, needs the right to trace the process (root, its own user, CAP_SYS_PTRACE) and none
on the file. The duplicate is the same open file: what a writer opened to append to is appended to.
"""

from __future__ import annotations

import fcntl
import os
import stat as modes

from dagstop.host import syscall
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity


def numbers(pid: int) -> list[int]:
    """The descriptors of a process; none where it is gone or not ours to look at."""
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return []


def path(pid: int, number: int) -> str:
    """What the kernel calls the file behind a descriptor; empty if gone."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{number}")
    except OSError:
        return ""


def of_process(pid: int) -> int | None:
    """A pidfd, or None: no such process, no such call (Linux before 5.3), no descriptor left."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def take(owner: Identity, number: int) -> int | None:
    """A duplicate of that descriptor (close-on-exec), or None: gone, another process by now, not allowed."""
    if (pidfd := of_process(owner.pid)) is None:
        return None
    try:
        stat = ProcFS().stat(owner.pid)
        if stat is None or stat.start != owner.start:
            return None
        return syscall.call(syscall.PIDFD_GETFD, pidfd, number, 0)
    except OSError:
        return None
    finally:
        os.close(pidfd)


def appended_to(descriptor: int) -> tuple[int, int] | None:
    """Device and inode of a regular file that is open for appending; None for all else."""
    found = os.fstat(descriptor)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    writable = flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)
    if modes.S_ISREG(found.st_mode) and writable and flags & os.O_APPEND:
        return found.st_dev, found.st_ino
    return None

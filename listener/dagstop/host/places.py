"""What is read from outside of a pid namespace below ours: a container's, as a rule.

Nothing here enters a namespace. Files inside are opened so that no link leads out (openat2(2) with
RESOLVE_IN_ROOT, Linux 5.6): an absolute link in a container would else name a file of this host.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat as modes

from dagstop.host import syscall
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity

_NO_MAGICLINKS, _IN_ROOT = 0x02, 0x10  # RESOLVE_* of linux/openat2.h
_NAME_ONLY = os.O_PATH | os.O_CLOEXEC
_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
_MOST = 1 << 20  # bytes of a file inside


class _How(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def is_init(inner: tuple[int, ...]) -> bool:
    """True for pid 1 of a namespace right below ours, by its `ProcFS.inner_pids`; not of one further down."""
    return len(inner) == 2 and inner[1] == 1


def init_of(proc: ProcFS, pid: int) -> Identity | None:
    """The init of the pid namespace right below ours that a process lives in; None if it lives elsewhere.

    The namespace's number alone proves nothing: the kernel gives it out again at once.
    """
    namespace, _ = proc.pid_namespace(pid)
    if namespace is None or len(proc.inner_pids(pid)) != 2:
        return None
    above: list[int] = []
    number = pid
    while number > 0 and number not in above:
        above.append(number)
        stat = proc.stat(number)
        number = stat.ppid if stat is not None else 0
    # what `docker exec` started does not descend from the init
    for number in (*above, *proc.pids()):
        if is_init(proc.inner_pids(number)) and proc.pid_namespace(number)[0] == namespace:
            stat = proc.stat(number)
            return Identity(number, stat.start) if stat is not None else None
    return None


def container_in(cgroups: str) -> str | None:
    """The full id of the container that /proc/PID/cgroup names; None if it names none, or several."""
    found = {ids[-1] for path in cgroup_paths(cgroups) if (ids := _CONTAINER_ID.findall(path))}
    return found.pop() if len(found) == 1 else None


def cgroup_paths(cgroups: str) -> tuple[str, ...]:
    """The different paths in /proc/PID/cgroup."""
    paths = (line.split(":", 2)[2] for line in cgroups.splitlines() if line.count(":") >= 2)
    return tuple(dict.fromkeys(paths))


def way_into(proc: ProcFS, init: Identity) -> str:
    """What an OSError names if the kernel refuses all of the container's files."""
    return f"{proc.root}/{init.pid}/root"


def read_inside(proc: ProcFS, init: Identity, path: str) -> bytes:
    """A regular file of at most 1 MiB, by its path inside. Raises OSError."""
    descriptor = _open_inside(proc, init, path)
    try:
        if not modes.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        try:
            opened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, path) from exc
        try:
            return os.read(opened, _MOST)
        finally:
            os.close(opened)
    finally:
        os.close(descriptor)


def owner_inside(proc: ProcFS, init: Identity, path: str) -> int:
    """The uid, as this host counts them, that owns a path inside. Raises OSError."""
    descriptor = _open_inside(proc, init, path)
    try:
        return os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)


def _open_inside(proc: ProcFS, init: Identity, path: str) -> int:
    root = os.open(way_into(proc, init), _NAME_ONLY | os.O_DIRECTORY)
    try:
        stat = proc.stat(init.pid)
        if stat is None or stat.start != init.start:  # the pid was given out again
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), path)
        how = _How(_NAME_ONLY, 0, _IN_ROOT | _NO_MAGICLINKS)
        name = os.fsencode(path.lstrip("/") or ".")
        try:
            return syscall.call(syscall.OPENAT2, root, name, ctypes.byref(how), ctypes.sizeof(how))
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, path) from exc
    finally:
        os.close(root)

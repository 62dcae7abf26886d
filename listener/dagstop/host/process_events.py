"""What the kernel tells of each fork, exec, new name and exit: the process connector (linux/cn_proc.h).

A netlink socket that the kernel writes to at the moment of the event: a fork is told before the child runs,
an exit before the pid is free, so the order is that of cause and effect. Needs CAP_NET_ADMIN, and the
initial pid, user and network namespaces: the pids told are those of the initial pid namespace. The kernel
numbers its messages for each CPU, but those that the filter drops are numbered too, so a gap says nothing;
what did not fit into the queue is told as ENOBUFS and counted by the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
import time
from typing import NamedTuple

FORK, EXEC, RENAMED, EXIT = 0x1, 0x2, 0x200, 0x80000000
"""Kinds of events (enum what of linux/cn_proc.h). RENAMED: by prctl(2), as setproctitle
does it with each title."""

_NONE = 0x0  # the kernel's answer to a subscription
_NETLINK_CONNECTOR, _CN_IDX_PROC, _CN_VAL_PROC = 11, 1, 1
_LISTEN = 1  # PROC_CN_MCAST_LISTEN
_NLMSG_DONE = 3
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_MEMINFO = 26, 33, 55
_DROPS = 8  # SK_MEMINFO_DROPS
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of linux/proc_ns.h: the same on every kernel

_CAP_NET_ADMIN, _CAP_SYS_PTRACE = 12, 19
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3

QUEUE = 16 << 20
"""Bytes of the kernel's memory, at most: some 15,000 events, which a host that forks 5,000 times a second
takes a second for."""
PATIENCE = 1.0
"""Seconds that the fork that proves it may take to be told."""
MOST = 50_000
"""Events of one reading: a storm must not keep the listener from everything else."""

# nlmsghdr (16 bytes), cn_msg (20), then proc_event: what, cpu, timestamp_ns, and four pids for those we want
_EVENT = struct.Struct("=36xIIQIIII")
_WHAT, _FIRST = 36, 52  # where `what` and the pids begin


class Event(NamedTuple):
    """One event, of a process as a whole: what its threads do is not told."""

    kind: int
    pid: int  # of a fork: the child
    parent: int  # of a fork: who forked it, or, with CLONE_PARENT, the parent of that one; else 0
    at: int  # CLOCK_MONOTONIC in ns
    status: int = 0  # of an exit, as wait(2) has it


class Batch(NamedTuple):
    """What was told since the last reading, in its order."""

    events: list[Event]
    lost: bool  # some were lost after these: everything has to be looked at


def parse(data: bytes | bytearray | memoryview, length: int) -> Event | None:
    """One message of the kernel; None for what threads do, and for other kinds of events."""
    if length < _EVENT.size:
        return None
    what, _, at, first, second, third, fourth = _EVENT.unpack_from(data)
    if what == FORK:
        return Event(FORK, fourth, second, at) if third == fourth else None
    if (what == EXEC or what == RENAMED) and first == second:
        return Event(what, first, 0, at)
    if what == EXIT and first == second:
        return Event(EXIT, first, 0, at, third)
    return None


def subscribe() -> tuple[ProcessEvents | None, str]:
    """A subscription, or None and why there is none.

    Call it before any thread is started: CAP_NET_ADMIN, which nothing else needs, is given up for this thread
    and those that it starts (see `_give_up`).
    """
    try:
        return ProcessEvents(), ""
    except Untold as exc:
        return None, str(exc)
    finally:
        _give_up(_CAP_NET_ADMIN)


class Untold(Exception):
    """The kernel tells this process nothing; the message is one phrase that says why."""


class ProcessEvents:
    """A subscription. Raises Untold if there can be none."""

    def __init__(self) -> None:
        self.lost = 0  # events that did not fit into the queue
        self.gaps = 0  # how often some did not
        if _pid_namespace() != _INITIAL_PID_NAMESPACE:
            raise Untold("it runs in a pid namespace of its own")
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_CONNECTOR)
        except OSError as exc:
            raise Untold(f"no socket for process events: {exc.strerror}") from exc
        self._buffer = bytearray(4096)
        try:
            self._subscribe()
            self._prove()
        except OSError as exc:
            self._socket.close()
            raise Untold(_why(exc)) from exc
        except Untold:
            self._socket.close()
            raise

    def _subscribe(self) -> None:
        # the filter first: nothing that it drops shall come before it
        attach_filter(self._socket)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, QUEUE)
        except PermissionError as exc:
            raise Untold("CAP_NET_ADMIN is missing") from exc
        self._socket.bind((0, _CN_IDX_PROC))
        self._socket.setblocking(False)
        body = struct.pack("=IIIIHHI", _CN_IDX_PROC, _CN_VAL_PROC, 0, 0, 4, 0, _LISTEN)
        self._socket.send(struct.pack("=IHHII", 16 + len(body), _NLMSG_DONE, 0, 0, 0) + body)

    def _prove(self) -> None:
        """By a fork of our own, which has to be told with our own pid, and with our clock."""
        until = time.monotonic() + PATIENCE
        try:
            os.posix_spawn("/dev/null/none", ["none"], {})  # it forks, and has nothing to execute
        except OSError:
            pass
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        while (left := until - time.monotonic()) > 0:
            poller.poll(left * 1000)
            for event in self.read().events:
                if event.kind == FORK and event.parent == os.getpid():
                    if not 0 <= time.monotonic_ns() - event.at < 60 * 10**9:
                        raise Untold("it runs in a time namespace of its own")
                    return
        raise Untold(
            "a fork of its own was not told: not the initial namespaces, or CAP_NET_ADMIN is missing"
        )

    def fileno(self) -> int:
        """Readable once something was told, or lost."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> Batch:
        """All that was told so far. After a loss nothing of the same queue counts: its order is broken."""
        events: list[Event] = []
        receive, buffer, lost = self._socket.recvfrom_into, self._buffer, False
        while len(events) < MOST or lost:
            try:
                length, sender = receive(buffer)
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            if lost or sender[0] != 0:  # 0 is the kernel
                continue
            event = parse(buffer, length)
            if event is not None:
                events.append(event)
        if lost:
            self.gaps += 1
            self.lost = self._drops()
        return Batch(events, lost)

    def _drops(self) -> int:
        numbers = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
        return struct.unpack("=9I", numbers)[_DROPS] if len(numbers) == 36 else self.gaps


def attach_filter(receiver: socket.socket) -> None:
    """Let the kernel drop what `parse` has no use for. Raises OSError."""
    program = _filter()
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    held = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(program), ctypes.addressof(held))
    receiver.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)


def _filter() -> list[tuple[int, int, int, int]]:
    """A classic BPF program (linux/filter.h) that the kernel runs for each event.

    Only execs, forks, names and exits of whole processes, and the kernel's own answers pass. It loads words
    in network order, so what they are compared with is turned.
    """
    load, load_length, equals, equals_x, to_x, done = 0x20, 0x80, 0x15, 0x1D, 0x07, 0x06
    at_least = 0x35
    return [
        (load_length, 0, 0, 0),
        (at_least, 0, 16, _EVENT.size),
        (load, 0, 0, _WHAT),
        (equals, 5, 0, _turned(FORK)),
        (equals, 8, 0, _turned(EXIT)),
        (equals, 7, 0, _turned(RENAMED)),
        (equals, 10, 0, _turned(EXEC)),
        (equals, 9, 0, _turned(_NONE)),
        (done, 0, 0, 0),
        (load, 0, 0, _FIRST + 8),  # a fork: child_pid and child_tgid
        (to_x, 0, 0, 0),
        (load, 0, 0, _FIRST + 12),
        (equals_x, 4, 5, 0),
        (load, 0, 0, _FIRST),  # an exit or a name: process_pid and process_tgid
        (to_x, 0, 0, 0),
        (load, 0, 0, _FIRST + 4),
        (equals_x, 0, 1, 0),
        (done, 0, 0, 0xFFFFFFFF),
        (done, 0, 0, 0),
    ]


def _give_up(capability: int) -> None:
    """Take it from this thread's permitted, effective, inheritable and ambient set; capset(2).

    Not as root without CAP_SYS_PTRACE: the kernel then lets a process be read only by one that has all of
    its capabilities (ptrace(2), access mode checking), and root's tasks may have this one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; for the lower 32, then the upper
    if libc.capget(header, sets) == 0 and (os.geteuid() != 0 or sets[0] & (1 << _CAP_SYS_PTRACE)):
        for index in range(3):
            sets[index] &= ~(1 << capability)
        libc.capset(header, sets)


def _turned(value: int) -> int:
    return int.from_bytes(struct.pack("=I", value), "big")


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _why(exc: OSError) -> str:
    if isinstance(exc, PermissionError):
        return "CAP_NET_ADMIN is missing"
    if isinstance(exc, ConnectionRefusedError):
        return "it runs in a network namespace of its own, or the kernel has no process connector"
    return f"the kernel's process events cannot be had: {exc.strerror}"

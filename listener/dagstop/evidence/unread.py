"""Whose words nobody has read: what such a process was, and what it did, is not known.

Where the kernel tells, this is complete: what ended before it was read was told of all the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dagstop.host.process_events import EXEC, EXIT, FORK, Event
from dagstop.model import Process

LEAST = 0.02
"""Seconds that a compose needs at the very least until it creates something: it loads, and asks its engine
what is there. What ended unread in less was none."""
CREATES = 0.005
"""Seconds that a docker client needs at the very least until it has asked its engine for something: it loads,
and connects."""
MOST = 5000
STEP = 0.01
"""Seconds by which the two clocks may drift apart between two looks; more, and one of them was set."""
_KERNELS = 2  # pid of kthreadd


class Span(NamedTuple):
    """From when to when a process may have been anything; seconds since 1970."""

    since: float
    until: float


class UnreadEnd(NamedTuple):
    """A process that ended before what it had executed was read; CLOCK_BOOTTIME in ns."""

    pid: int
    since: int  # when it executed that
    until: int


class Heard(NamedTuple):
    """From when to when the kernel told of every process of this host, and whose words were not read."""

    since: float  # seconds since 1970
    until: float
    unread: tuple[Span, ...]

    def whole(self, since: float, until: float) -> bool:
        """True if every process that lived between the two was told of, and all that could be was read."""
        return self.since <= since and until <= self.until

    def unknown_at(self, moment: float, slack: float) -> bool:
        """True if one may have been a client that created something then."""
        return any(one.since <= moment + slack - LEAST and moment - slack <= one.until for one in self.unread)


class Unread:
    """By what the kernel tells, and what was read. Times in it are CLOCK_BOOTTIME, ns."""

    def __init__(self) -> None:
        self.executed: dict[int, int] = {}  # by pid, when it executed its program
        self._forked: dict[int, int] = {}
        self._read: dict[int, int] = {}
        self._ended: dict[tuple[int, int], None] = {}
        self._since = float("-inf")  # what ended unread before is not kept; seconds since 1970
        self._offset: float | None = None

    def take(self, events: Iterable[Event], ahead: int) -> list[UnreadEnd]:
        """Note them in their order; who ended unread, and may have been a docker client.

        ahead: CLOCK_BOOTTIME minus CLOCK_MONOTONIC, ns.
        """
        ends = []
        for kind, pid, _, at, _ in events:
            if kind == FORK:
                self.forget(pid)
                self._forked[pid] = at + ahead
            elif kind == EXEC:
                self.executed[pid] = at + ahead
            elif kind == EXIT:
                since = self._unread_since(pid)
                if since is not None and at + ahead - since >= LEAST * 1e9:
                    self._ended[(since, at + ahead)] = None
                executed = self.executed.get(pid, 0)
                if executed > self._read.get(pid, 0) and at + ahead - executed >= CREATES * 1e9:
                    ends.append(UnreadEnd(pid, executed, at + ahead))
                self.forget(pid)
        return ends

    def read(self, pid: int, at: int) -> None:
        """Its words were read; `at` is a moment before that."""
        self._read[pid] = at

    def reset(self) -> None:
        """Something was not told."""
        for found in (self.executed, self._forked, self._ended):
            found.clear()

    def heard(self, since: float, until: float, processes: Mapping[int, Process]) -> Heard:
        """What is known between the two, seconds since 1970; processes: all that live."""
        offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        if self._offset is not None and abs(offset - self._offset) > STEP:
            self._since = time.time()
        self._offset = offset
        while len(self._ended) > MOST:
            _, ended = next(iter(self._ended))
            del self._ended[next(iter(self._ended))]
            self._since = max(self._since, ended / 1e9 + offset)
        unread = [Span(begun / 1e9 + offset, ended / 1e9 + offset) for begun, ended in self._ended]
        for process in processes.values():
            begun = self._living(process)
            if begun is not None:
                unread.append(Span(begun / 1e9 + offset, float("inf")))
        return Heard(max(since, self._since), until, tuple(unread))

    def _living(self, process: Process) -> int | None:
        if process.state in "ZXx" or _KERNELS in (process.pid, process.ppid):
            return None
        return self._unread_since(process.pid) if process.argv else self._forked.get(process.pid, 0)

    def _unread_since(self, pid: int) -> int | None:
        """Since when its words may be any; None if they are known."""
        read, executed = self._read.get(pid), self.executed.get(pid, 0)
        if read is None:
            return self._forked.get(pid, 0)
        return executed if executed > read else None

    def forget(self, pid: int) -> None:
        """It is gone."""
        for found in (self.executed, self._forked, self._read):
            found.pop(pid, None)

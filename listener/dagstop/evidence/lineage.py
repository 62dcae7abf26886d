"""Who forked whom, as the kernel tells it (`ProcessEvents`): whatever a process gives up, this stays.

A process that nobody saw, since it ended between two looks, still links its children to what forked it.
A fork is told before the child runs and an exit before the pid is free, so a pid is one process between the
two; a process that was read is the one that was told of if it started before that was told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dagstop.airflow_names import is_init
from dagstop.evidence.docker_words import may_create
from dagstop.evidence.unread import UnreadEnd
from dagstop.host.process_events import EXEC, EXIT, FORK, Event
from dagstop.host.procfs import TICKS_PER_SECOND
from dagstop.model import Identity, Process, Role

_TICK = 10**9 // TICKS_PER_SECOND
_LATE = 2_000_000_000
"""Nanoseconds after its end in which something may still turn out to have been a task's: by the title of
what forked it, which a runner sets once it runs."""
MOST = 10_000
"""Processes that ended unread and are nobody's so far, of which it is asked once more whose they are."""
_DEEP = 500
"""Ancestors after which those are left out that have ended and are nothing to anybody."""


class _Node:
    """One process from its fork on; `process` once it was read."""

    __slots__ = ("at", "depth", "ended", "parent", "process")

    def __init__(self, parent: _Node | None, at: int) -> None:
        self.parent = parent
        self.at = at  # when its fork was told: CLOCK_BOOTTIME in ns
        self.ended = 0  # the same of its exit; 0 while it lives
        self.process: Process | None = None
        self.depth: int = parent.depth + 1 if parent is not None else 0  # of what was not left out since


class ClientEnd(NamedTuple):
    """How a docker client ended."""

    process: Process  # as it was last read
    status: int  # as wait(2) has it: 0 says that all that it was asked for was done
    at: int  # CLOCK_BOOTTIME in ns


class UnreadKin(NamedTuple):
    """A task's process that ended before what it had executed was read: it may have been a docker client."""

    identity: Identity
    whose: Process  # itself as it was read before, or what it descends from: labelled
    since: int  # when it executed that, CLOCK_BOOTTIME in ns
    until: int  # when it ended


class Lineage:
    """The living processes that were forked since the listening began, with what they descend from."""

    def __init__(self, processes: Mapping[int, Process]) -> None:
        self._processes = processes  # as they were last read
        self._nodes: dict[int, _Node] = {}
        self.heard: set[int] = set()  # pids whose forks were told since the last proof
        self.born: set[int] = set()  # told of since they were last asked for, and not ended
        self.changed: set[int] = set()  # likewise: executed something, or changed its title
        self.ended: set[int] = set()  # likewise
        self.ends: list[ClientEnd] = []  # of docker clients, since they were last asked for
        self._exits: dict[tuple[int, int], _Node] = {}  # of the last events, by pid and time
        self._unread: list[tuple[UnreadEnd, _Node]] = []  # not asked for yet
        self._unclear: deque[tuple[UnreadEnd, _Node]] = deque()  # nobody's when they were asked for

    def take(self, events: Iterable[Event], ahead: int) -> None:
        """Note them in their order. ahead: CLOCK_BOOTTIME minus CLOCK_MONOTONIC, ns."""
        self._exits.clear()
        for kind, pid, parent, at, status in events:
            if kind == FORK:
                self._fork(pid, parent, at + ahead)
            elif kind != EXIT:
                self.changed.add(pid)
                if kind == EXEC and pid not in self._nodes:
                    self._older(pid, at + ahead)
            else:
                node = self._nodes.pop(pid, None)
                process = node.process if node is not None else self._processes.get(pid)
                if node is not None:
                    node.ended = at + ahead
                    self._exits[pid, node.ended] = node
                if process is not None and may_create(process.argv):
                    self.ends.append(ClientEnd(process, status, at + ahead))
                self.born.discard(pid)
                self.changed.discard(pid)
                self.ended.add(pid)

    def ended_unread(self, ends: Iterable[UnreadEnd]) -> None:
        """Of the last events: who ended unread."""
        for end in ends:
            if (node := self._exits.get((end.pid, end.until))) is not None:
                self._unread.append((end, node))

    def unread_kin(self, now: int) -> list[UnreadKin]:
        """Those of tasks that ended unread; each is told once, as soon as it is known that a task's it was.

        now: CLOCK_BOOTTIME in ns.
        """
        new, self._unread = self._unread, []
        found = [(end, node, self._whose(node)) for end, node in new]
        self._unclear.extend((end, node) for end, node, whose in found if whose is None)
        while self._unclear and (len(self._unclear) > MOST or now - self._unclear[0][0].until >= _LATE):
            end, node = self._unclear.popleft()
            found.append((end, node, self._whose(node)))
        return [
            UnreadKin(_identity(end.pid, node), whose, end.since, end.until)
            for end, node, whose in found
            if whose is not None
        ]

    def _whose(self, node: _Node) -> Process | None:
        """It, or what it descends from, whichever bears the label of a task."""
        process = node.process
        if process is not None and process.label is not None:
            return process if process.role in (Role.RUNNER, Role.OTHER) else None
        return self._labelled_above(node)[0]

    def attended(self) -> None:
        """All that was told of has been read."""
        self.born.clear()
        self.changed.clear()
        self.ended.clear()

    def reset(self) -> None:
        """Forget it all: something was not told. What was read meanwhile is known by itself."""
        self._nodes.clear()
        self.attended()

    def read(self, process: Process) -> None:
        """A process was read after its fork was told."""
        node = self._nodes.get(process.pid)
        if node is not None and _began_by(process, node.at):
            node.process = process

    def source_of(self, process: Process) -> tuple[Process | None, bool]:
        """The nearest labelled process that it descends from by fork, and whether that forked it itself.

        Not beyond a service, a supervisor or a test by hand: what these start does not belong to the task.
        """
        node = self._nodes.get(process.pid)
        if node is None or node.process is not process:
            return None, False
        return self._labelled_above(node)

    def kin(self) -> list[int]:
        """The pids of those born or changed, as `born` and `changed` have them, that are some task's."""
        changed = (self._processes.get(pid) for pid in self.changed)
        found = [process.pid for process in changed if process is not None and process.label is not None]
        for pid in self.born:
            node = self._nodes[pid]
            if node.process is None and self._labelled_above(node)[0] is not None:
                found.append(pid)
        return found

    def born_in_order(self) -> list[int]:
        """The pids of `born` as they were forked, but those that descend from an Airflow's process first."""
        nodes = self._nodes
        return sorted(self.born, key=lambda pid: (not _of_an_airflow(nodes[pid]), nodes[pid].at))

    def _labelled_above(self, node: _Node) -> tuple[Process | None, bool]:
        above = node.parent
        while above is not None:
            known = above.process
            if known is not None and known.role is not Role.RUNNER and known.role is not Role.OTHER:
                return None, False
            if known is not None and known.label is not None:
                return known, above is node.parent
            above = above.parent
        return None, False

    def _fork(self, pid: int, parent: int, at: int) -> None:
        above = self._nodes.get(parent)
        if above is None:
            above = self._older(parent, at)
        if above is not None and above.depth > _DEEP:
            _shorten(above, at)
        self._nodes[pid] = _Node(above, at)
        self.born.add(pid)
        self.heard.add(pid)
        self.ended.discard(pid)

    def _older(self, pid: int, at: int) -> _Node | None:
        """What was there before the listening began, if it was read."""
        process = self._processes.get(pid)
        if process is None or pid in self.ended or not _began_by(process, at):
            return None
        node = self._nodes[pid] = _Node(None, at)
        node.process = process
        return node


def _identity(pid: int, node: _Node) -> Identity:
    """Of what was not read, by when it was forked: to a tick."""
    return node.process.identity if node.process is not None else Identity(pid, node.at // _TICK)


def _shorten(node: _Node, at: int) -> None:
    """Leave out the ancestors that have ended and cannot turn out to have been a task's any more.

    What was never read cannot: nobody will know anything of it. What ends a search ends the chain, too.
    """
    node.depth = 0
    while (above := node.parent) is not None:
        known = above.process
        if above.ended and (known is None or (_is_plain(known) and at - above.ended >= _LATE)):
            node.parent = above.parent
            continue
        if known is not None and not _is_plain(known):
            above.parent = None
        node = above


def _is_plain(process: Process) -> bool:
    """True if it is nothing of an Airflow and of no task, as far as that is known."""
    return process.label is None and process.role is Role.OTHER


def _began_by(process: Process, at: int) -> bool:
    """True if it had started by that moment (CLOCK_BOOTTIME, ns): one of that pid since then had not."""
    return process.identity.start * _TICK <= at + _TICK


def _of_an_airflow(node: _Node) -> bool:
    """True if it descends from a process of a task or of an Airflow, as far as names tell."""
    above: _Node | None = node
    while above is not None:
        known = above.process
        if known is not None and not _is_plain(known):
            return not is_init(known.argv)
        above = above.parent
    return False

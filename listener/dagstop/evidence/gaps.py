"""When nobody was told what tasks fork: no listener ran, or the kernel's events were lost.

What a task forked in such a gap and let go is known by other signs only. So the report of a run that was
running then names the gap, and each process that may be one of those. They are never signalled. Nor is a
container of podman whose `conmon`, which leaves its parents at once, may be one, nor one that an engine
created for a client that is gone, nor what such a client runs in a container (`docker exec`).
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from dagstop.airflow_names import parse_date
from dagstop.evidence.containers import says_whose_it_is
from dagstop.evidence.match import SPARE
from dagstop.host.containers import Container
from dagstop.host.procfs import ProcFS
from dagstop.model import Decision, Identity, Process, Role, Verdict

MOST = 20
"""Gaps that are kept; the earliest of more are told as one."""
_OF_A_SERVICE = re.compile(r"([^/]+\.service|(docker[-/])?[0-9a-f]{64}(\.scope)?)$", re.MULTILINE)
"""The end of a control group's path that holds a service or a container, and nothing else of the host."""

_PODMAN = "it may be the run's: podman started it after a task of the run began, and nobody was told for whom"


class Gap(NamedTuple):
    """From when to when nobody was told, on this host's clock."""

    since: datetime | None  # None: nothing is known of a listener before
    until: datetime  # everything had been looked at by then
    why: str

    def facts(self) -> list[str | None]:
        """As the memory has it."""
        return [self.since.isoformat() if self.since is not None else None, self.until.isoformat(), self.why]

    def told(self, clock: Callable[[datetime], datetime] = lambda moment: moment) -> dict[str, str | None]:
        """As a report or a heartbeat has it; clock: from this host's to theirs."""
        since = clock(self.since).isoformat() if self.since is not None else None
        return {"from": since, "to": clock(self.until).isoformat(), "why": self.why}


def gap_of(since: str | None, until: str, why: str) -> Gap:
    """What `Gap.facts` gave. Raises ValueError or TypeError for anything else."""
    began, ended = parse_date(since), parse_date(until)
    if ended is None or not isinstance(why, str) or (since is not None and began is None):
        raise ValueError("a gap of another shape")
    return Gap(began, ended, why)


class _Task(NamedTuple):
    """Where a task's process is that ran before the end of a gap."""

    cgroups: str
    uid: int


class Gaps:
    """All gaps since the host's boot that are known, the earliest first."""

    def __init__(self, proc: ProcFS, own_pid: int) -> None:
        self._proc = proc
        self._own_pid = own_pid
        self.all: list[Gap] = []
        # the kernel tells nothing: what leaves its parents between two looks is not known
        self.always = False
        self._tasks: dict[Identity, _Task] = {}

    def restore(self, gaps: Iterable[Gap]) -> None:
        """Take up those that an earlier listener on this boot knew."""
        self.all = sorted([*gaps, *self.all], key=lambda gap: gap.until)

    def add(self, gap: Gap) -> None:
        """It has ended."""
        self.all.append(gap)
        if len(self.all) > MOST:
            first, second, *rest = self.all
            self.all = [Gap(first.since, second.until, second.why), *rest]

    def note_tasks(self, labelled: Iterable[Process]) -> None:
        """The tasks' processes that there are after a gap, while they can say where they are."""
        living = {process.identity: process for process in labelled}
        self._tasks = {
            identity: self._tasks.get(identity) or _Task(self._proc.cgroups(identity.pid), process.uid)
            for identity, process in living.items()
        }

    def since(self, begun: datetime) -> list[Gap]:
        """Those that had not ended when something began."""
        return [gap for gap in self.all if gap.until >= begun]

    def doubtful(
        self, own: Collection[Identity], processes: Mapping[int, Process]
    ) -> list[tuple[Process, Verdict]]:
        """What a task of which `own` are processes may have let go in a gap.

        It began in a gap, after one of `own`, and neither it nor what it descends from is known as anybody's.
        It shares the control group of one of `own`, and that holds one service or container only, or both
        run as one user, not root.
        """
        tasks = [(identity.start, self._tasks[identity]) for identity in own if identity in self._tasks]
        found: dict[int, tuple[Process, Verdict]] = {}
        for process in sorted(processes.values(), key=lambda one: one.identity.start) if tasks else ():
            if process.label is not None or process.role is not Role.OTHER or process.state in "ZXx":
                continue
            if process.pid == self._own_pid:
                continue
            after = [task for start, task in tasks if start <= process.identity.start]
            gap = self._gap_of(process) if after else None
            if gap is None or not self._let_go(process, processes, found):
                continue
            cgroups, uid = self._proc.cgroups(process.pid), self._proc.uid(process.pid)
            where = _OF_A_SERVICE.search(cgroups)
            if any(t.cgroups == cgroups and cgroups and (where or t.uid == uid > 0) for t in after):
                found[process.pid] = process, _verdict(gap, where.group(1) if where else "")
        return list(found.values())

    def containers(
        self, begun: datetime, containers: Iterable[Container], known: Collection[str]
    ) -> list[tuple[Container, Verdict]]:
        """Those that a task which began then may have started: created since, when nobody was told.

        known: ids of those whose client is known, or that are judged already.
        """
        found: dict[str, tuple[Container, Verdict]] = {}
        for one in containers:
            if one.id in known or one.created_at < begun or says_whose_it_is(one):
                continue
            if (gap := self._untold(one.created_at)) is not None:
                why = f"it may be the run's: it was created after a task of the run began, while {gap.why}"
                found[one.id] = one, Verdict(Decision.SPARE, why)
        return list(found.values())

    def execs(
        self,
        begun: datetime,
        containers: Iterable[Container],
        known: Collection[str],
        processes: Mapping[int, Process],
    ) -> list[tuple[Container, Process, Verdict]]:
        """What a `docker exec` of a task which began then may run: begun since, when nobody was told.

        What an exec runs is, as the container's first process, a child of the container's shim. known: ids of
        containers that have a word of their own, which is that of all that lives in them.
        """
        if not self.since(begun):
            return []
        inits = {one.pid: one for one in containers if one.id not in known and one.tags.get(SPARE) != "1"}
        by_shim = {
            processes[pid].ppid: one
            for pid, one in inits.items()
            if pid in processes and one.id in self._proc.cgroups(pid)
        }
        found: list[tuple[Container, Process, Verdict]] = []
        for process in processes.values():
            container = by_shim.get(process.ppid)
            if container is None or process.pid in inits or process.pid == self._own_pid:
                continue
            if process.label is not None or process.role is not Role.OTHER or process.state in "ZXx":
                continue
            if process.environ.get(SPARE) == "1":
                continue
            at = self._began(process)
            gap = self._untold(at) if at >= begun else None
            if gap is not None and container.id in self._proc.cgroups(process.pid):
                why = f"it may be the run's: it began after a task of the run did, while {gap.why}"
                found.append((container, process, Verdict(Decision.SPARE, why)))
        return found

    def podmans(
        self, begun: datetime, users: Collection[int], processes: Mapping[int, Process]
    ) -> list[tuple[str, Process, Verdict]]:
        """Containers of podman that a task which began then may have started: name, its conmon, and why.

        users: as whom tasks run. Each conmon since then that is known as nobody's, and that began when nobody
        was told.
        """
        found = []
        for name, process in strangers_of_podman(processes):
            at = self._began(process)
            untold = self._untold(at) is not None or self.always
            if at >= begun and untold and self._proc.uid(process.pid) in users:
                found.append((name, process, Verdict(Decision.SPARE, _PODMAN)))
        return found

    def _began(self, process: Process) -> datetime:
        return datetime.now(timezone.utc) - timedelta(seconds=self._proc.age(process.identity.start))

    def _untold(self, at: datetime) -> Gap | None:
        """The last gap that holds a moment; one from nobody knows when, too."""
        gaps = (gap for gap in reversed(self.since(at)) if gap.since is None or gap.since <= at)
        return next(gaps, None)

    def _gap_of(self, process: Process) -> Gap | None:
        at = self._began(process)
        # before a first listener anything may have begun: that names nothing
        began_in = (gap for gap in self.all if gap.since is not None and gap.since <= at <= gap.until)
        return next(began_in, None)

    def _let_go(self, process: Process, processes: Mapping[int, Process], found: Collection[int]) -> bool:
        """True if its parent is nobody's either, or has only taken it over: an init, or `systemd --user`."""
        if process.ppid == 1 or process.ppid in found or process.ppid not in processes:
            return True
        if process.place is not None and process.place.pid == process.ppid:
            return True
        return self._proc.cgroups(process.ppid) != self._proc.cgroups(process.pid)


def strangers_of_podman(processes: Mapping[int, Process]) -> Iterator[tuple[str, Process]]:
    """Podman's containers that are known as no task's: the name and the conmon of each."""
    for process in processes.values():
        name = _watched_by(process.argv)
        if name and process.label is None and process.state not in "ZXx":
            yield name, process


def _watched_by(argv: Sequence[str]) -> str:
    """The name, or the id, of the container that a conmon watches; empty for other programs."""
    if not argv or os.path.basename(argv[0]) != "conmon":
        return ""
    said = dict(itertools.pairwise(argv[1:]))
    return said.get("-n") or said.get("--name") or (said.get("-c") or said.get("--cid") or "")[:12]


def _verdict(gap: Gap, where: str) -> Verdict:
    tie = f"in {where}" if where else "as the same user in the same cgroup"
    why = f"it may be the run's: it began {tie} as a task of the run, while {gap.why}"
    return Verdict(Decision.SPARE, why)

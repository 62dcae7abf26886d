"""The host's processes, each with what ties it to a task, remembered while it lives.

A process loses its ancestry once its parents are SIGKILLed, and bash children of Airflow 1.10.0
carry no AIRFLOW_CTX_*. So labels are given while the ancestors run and stay with (pid, start time);
sessions and process groups led by a labelled process are remembered with it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any, NamedTuple

from dagstop.airflow_names import read_command
from dagstop.evidence.departed import Departed
from dagstop.evidence.gaps import Gap, Gaps
from dagstop.evidence.index import Index
from dagstop.evidence.labelling import WORDS, Labelling
from dagstop.evidence.lineage import ClientEnd, Lineage, UnreadKin
from dagstop.evidence.memory import Known
from dagstop.evidence.runners import doubt
from dagstop.evidence.unread import Heard, Unread
from dagstop.host.process_events import ProcessEvents
from dagstop.host.procfs import ProcFS, Stat, parse_stat, parse_wordless
from dagstop.logs import event, log
from dagstop.model import Identity, Process, Role

_SETTLED_READS = 2  # a new process may not have exec'd yet: its words are read again once


PROVE = 10.0
"""Seconds between two listings that hold what the kernel tells against what is there, at least."""
SHARE = 0.0003
"""The most of a core's time that these listings may take: on a host of many they come less often."""
_FEW = 2
"""Processes that are read at once while an order may come: it waits for no more than these."""
_ROUNDS = 20
"""How often a look goes after what was forked during it: what forks faster is found by the next one."""


def _unsettled(process: Process) -> bool:
    """True if its words may not be its own yet, as before its exec, or could not be read."""
    return process.reads < _SETTLED_READS or bool(process.unread and process.label is not None)


def _changes(process: Process) -> bool:
    """True for Airflow's own processes, which fork and set their title later.

    The executor workers of 3.x do so again for each task.
    """
    return _of_some_airflow(process) if process.role is not Role.RUNNER else _may_be_sudo_soon(process)


def _of_some_airflow(process: Process) -> bool:
    words = process.argv[:2]
    # 3.x under run_as_user: python -c 'from airflow.sdk...', and the sudo before it, which becomes that
    if words[1:] == ("-c",) and "python" in words[0]:
        words = process.argv[:3]
    elif words and words[0].endswith("sudo") and os.path.basename(words[0]) == "sudo":
        words = process.argv
    return any("airflow" in word or "celery" in word for word in words)


def _unread_of_airflow(process: Process) -> bool:
    return "environ" in process.unread and _of_some_airflow(process)


def _may_be_sudo_soon(runner: Process) -> bool:
    """3.x's becomes one under run_as_user, once it has read the DAG."""
    return runner.title is not None and runner.title.ti_id is not None and len(runner.argv) == 1


class _Views(NamedTuple):
    """What orders ask for, ready before one comes."""

    labelled: list[Process]
    by_name: Index[Process]
    at_homes: list[Process]


class Watch:
    """All processes of this pid namespace.

    `look` reads all of /proc, `tick` only what is new, `attend` what the kernel has told of tasks' processes
    since; without `events` it tells nothing.
    """

    def __init__(
        self,
        proc: ProcFS,
        *,
        trusted_uids: Callable[[], frozenset[int]],
        own_pid: int,
        events: ProcessEvents | None = None,
        init_of: Callable[[int], Identity | None] | None = None,
        hostname_of: Callable[[Identity], str | None] = lambda _: None,
    ) -> None:
        """init_of: as `Labelling` has it. hostname_of: of a container of ours, by its init."""
        self._hostname_of = hostname_of
        self._proc = proc
        self._events = events
        self._restored: dict[Identity, Known] = {}
        self.processes: dict[int, Process] = {}
        self.departed = Departed()
        self.gaps = Gaps(proc, own_pid)
        self.gaps.always = events is None
        self._heard_at = datetime.now(timezone.utc)  # all that was told by then is known
        self._restless: set[int] = set()  # pids whose words are to be read again soon
        self._changing: set[int] = set()  # Airflow's own: the kernel tells of each change, if it tells
        self._notable: dict[int, Process] = {}  # what orders may ask for: few on a host of many
        self._unread: dict[int, Process] = {}  # whose environment may not be read
        self._stats: dict[int, bytes] = {}  # /proc/PID/stat as it was last read
        self._lineage = Lineage(self.processes)
        self._unread_words = Unread()
        self._read_through = self._heard_at  # all that was told by then and lived was read
        self._gap = False  # the kernel could not tell of everything: all is to be looked at
        self.deaf = False  # it has ceased to tell: a program with CAP_NET_ADMIN may switch it off for all
        self._prove_at = 0.0  # when that is looked at again, monotonic seconds
        self._proved_at = self._heard_at  # when it was looked at last
        self._ending: set[int] = set()  # told to have ended, and still there: zombies
        namespace = proc.pid_namespace(own_pid)[0]
        self._labelling = Labelling(proc, self.processes, trusted_uids, namespace, self._lineage, init_of)
        self._listed: list[int] = []  # what the last tick found in /proc
        self._derived: _Views | None = None  # made when asked for; None once a process came, went or changed
        self.changed = False  # labels differ from those last saved

    def tick(self, concerned: Iterable[int] = ()) -> None:
        """Learn of processes that started since the last look; see how the concerned ones stand.

        Costs one listing of /proc, or what the kernel told and now and then a listing that proves it.
        """
        self._hear()
        if self._gap:
            self.look()
            return
        new = set() if self.told and time.monotonic() < self._prove_at else self._list()
        self._take_in(new.union(concerned))

    def catch_up(self, enough: Callable[[], bool]) -> None:
        """Where the kernel tells: read what it told of since the last tick, until it is `enough`.

        What Airflows forked comes first, and parents come before their children. What is left the next tick
        reads. /proc is not listed.
        """
        if not self.told or self._gap:
            return
        self._stir(self._lineage.changed)
        later = self._restless - self._notable.keys()
        pids = [*(self._restless - later), *self._lineage.born_in_order(), *later]
        while pids and not enough():
            self._read_each(pids[:_FEW])
            self._lineage.born.difference_update(pids[:_FEW])
            del pids[:_FEW]

    def _take_in(self, pids: set[int]) -> None:
        """Read these, what the kernel told of, and what may have changed."""
        self._stir(self._lineage.changed)
        ended = self._ending | (self._lineage.ended & self.processes.keys())
        first = pids | self._lineage.born | ended
        self._read([*first, *(self._restless - first)])
        # a zombie is told of once, and gone later
        self._ending = {pid for pid in ended if pid in self.processes}
        self._lineage.attended()
        self._read_through = self._heard_at

    def _stir(self, pids: Iterable[int]) -> None:
        """What executed something or changed its title is read again, twice: it may be at it still."""
        for pid in pids:
            if (process := self.processes.get(pid)) is not None:
                process.reads = 0
                self._restless.add(pid)

    @property
    def restless(self) -> bool:
        """True if the next tick is to come soon, whatever the kernel tells."""
        return bool(self._restless)

    def _list(self) -> set[int]:
        """The pids in /proc that are not known, or that the kernel told of."""
        began = time.thread_time()
        pids = self._proc.pids()
        new: set[int] = set()
        if pids != self._listed:
            new = set(pids) - self.processes.keys()
            for gone in self.processes.keys() - set(pids):
                self._forget(gone)
            self._listed = pids
        self._restless |= self._changing
        self._prove_at = time.monotonic() + max(PROVE, (time.thread_time() - began) / SHARE)
        proved_at, self._proved_at = self._proved_at, datetime.now(timezone.utc)
        heard, self._lineage.heard = self._lineage.heard, set()
        self._hear()
        unheard = new - heard - self._lineage.heard
        if self.told and not self._gap and unheard:
            self.deaf = self.gaps.always = True
            self._note_gap(proved_at, "the kernel told nothing")
            do = "looks four times a second from now on; start the listener again"
            log.warning(event("process events ceased", untold=min(unheard), do=do))
        return new

    @property
    def told(self) -> bool:
        """True while the kernel tells of each fork."""
        return self._events is not None and not self.deaf

    def attend(self) -> list[Process]:
        """Read what tasks' processes have forked or executed since, while it is what it is; those."""
        self._hear()
        kin = [] if self._gap else self._read_kin()
        return [process for pid in kin if (process := self.processes.get(pid)) is not None]

    def attend_closely(self) -> list[Process]:
        """As `attend`, and read everybody else that was told of: until then nobody knows what that is."""
        kin = self.attend()
        if not self._gap:
            self._take_in(set())
        return kin

    def prove_soon(self) -> None:
        """With the next tick, hold what the kernel told against what is there."""
        self._prove_at = 0.0

    def heard(self) -> Heard | None:
        """Since when, and until when, all is known that the kernel told; None if it does not tell."""
        if not self.told or self._gap or not self.gaps.all:
            return None
        since = max(gap.until for gap in self.gaps.all).timestamp()
        until = min(self._read_through, self._proved_at).timestamp()
        return self._unread_words.heard(since, until, self.processes)

    def executed_at(self, pid: int) -> float | None:
        """When it executed its program, seconds since 1970; None if the kernel did not tell."""
        at = self._unread_words.executed.get(pid) if self.told else None
        ahead = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return None if at is None else at / 1e9 + ahead

    def claim(self, identity: Identity, client: Process) -> None:
        """A process in a container is what a `docker exec` runs: it is of the same task as that."""
        self._labelling.claimed[identity] = client
        if identity.pid in self.processes:
            self._label([self.processes[identity.pid]])
        else:
            self._read([identity.pid])
        self._label_late()

    def client_ends(self) -> list[ClientEnd]:
        """How docker clients have ended, as far as the kernel told; each is told once."""
        ends, self._lineage.ends = self._lineage.ends, []
        return ends

    def unread_kin(self) -> list[UnreadKin]:
        """Tasks' processes that ended before what they had executed was read; each is told once."""
        return self._lineage.unread_kin(time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def look(self) -> dict[int, Process]:
        """Read every process's stat again and label what is new: the view that a kill goes by."""
        self._hear()
        heard_at = self._heard_at
        pids = self._proc.pids()
        for gone in self.processes.keys() - set(pids):
            self._forget(gone)
        self._stir(self._lineage.changed)
        self._restless |= self._changing
        self._read(pids)
        self._label_late()
        self._lineage.attended()
        self._read_through = heard_at
        if self._gap:
            self._lineage.reset()
            self._unread_words.reset()
            self._gap = False
            self._note_gap(self._heard_at, "events of the kernel were lost")
        for _ in range(_ROUNDS):
            self._hear()
            if self._gap or not self._read_kin():
                break
        return self.processes

    def _hear(self) -> None:
        """Take what the kernel has told; after a gap not before everything was looked at."""
        if self._events is None or self._gap:
            return
        began = datetime.now(timezone.utc)
        told = self._events.read()
        ahead = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        self._lineage.take(told.events, ahead)
        self._lineage.ended_unread(self._unread_words.take(told.events, ahead))
        if told.lost:
            self._gap = True
            lost, do = self._events.lost, "everything is looked at"
            log.warning(event("process events lost", since_start=lost, do=do))
        else:
            self._heard_at = began

    def _note_gap(self, since: datetime | None, why: str) -> None:
        """It ends now."""
        self.gaps.add(Gap(since, datetime.now(timezone.utc), why))
        self.gaps.note_tasks(self.labelled())
        self.changed = True

    def begin(self, since: datetime | None) -> None:
        """The first look of a listener; since: when the one before it was there last, if that is known."""
        self.look()
        self._note_gap(since, "no listener ran")

    def _read_kin(self) -> list[int]:
        """The tasks' processes that were forked or have executed something."""
        kin = self._lineage.kin()
        if kin:
            self._stir(self._lineage.changed.intersection(kin))
            self._lineage.changed.difference_update(kin)
            self._read(kin)
        return kin

    def labelled(self) -> list[Process]:
        return self._views().labelled

    def index(self) -> Index[Process]:
        """The labelled ones by what they name."""
        return self._views().by_name

    def at_homes(self) -> list[Process]:
        """Those that show an AIRFLOW_HOME, or may have one that cannot be read."""
        return self._views().at_homes

    def unread(self) -> list[Process]:
        """Those whose environment may not be read."""
        return list(self._unread.values())

    def _views(self) -> _Views:
        if self._derived is None:
            notable = self._notable.values()
            labelled = [p for p in notable if p.label is not None]
            at_homes = [p for p in notable if "AIRFLOW_HOME" in p.environ or _unread_of_airflow(p)]
            self._derived = _Views(labelled, Index(labelled, lambda process: process.label), at_homes)
        return self._derived

    def _note(self, process: Process) -> None:
        """Keep those apart that are or were asked for: a look at all costs more, the more there are."""
        pid = process.pid
        if "environ" in process.unread:
            self._unread[pid] = process
        else:
            self._unread.pop(pid, None)
        if process.label is not None or process.environ or _unread_of_airflow(process):
            if self._notable.get(pid) is not process:
                self._notable[pid], self._derived = process, None

    def users(self) -> frozenset[int]:
        """As whom tasks run: the owner of AIRFLOW_HOME, or another by run_as_user."""
        runners = (p for p in self.labelled() if p.role is Role.RUNNER and p.trusted and p.contrary is None)
        return frozenset(runner.uid for runner in runners if runner.uid > 0)

    def restore(self, remembered: dict[Identity, Known], folders: dict[str, Process] | None = None) -> None:
        """Take up what an earlier listener on this boot remembered."""
        self._restored.update(remembered)
        self._labelling.folders.restore(folders or {}, self._proc.now_ticks())

    def folders(self) -> list[list[Any]]:
        """Whose the tasks' private folders are, for `memory`."""
        return self._labelling.folders.facts()

    def died(self, identity: Identity) -> None:
        """Told at the moment of a death: whoever it forked was forked by now."""
        process = self.processes.get(identity.pid)
        if process is not None and process.identity == identity:
            self._labelling.died(process)

    def _forget(self, pid: int) -> None:
        gone = self.processes.pop(pid, None)
        self._restless.discard(pid)
        self._changing.discard(pid)
        self._unread.pop(pid, None)
        self._stats.pop(pid, None)
        self._unread_words.forget(pid)
        if gone is not None:
            self._labelling.claimed.pop(gone.identity, None)
            hostname = self._hostname_of(gone.place) if gone.place is not None else None
            self.departed.add(gone, hostname)
            self.changed = self.changed or gone.label is not None
        if self._notable.pop(pid, None) is not None:
            self._derived = None

    def _read(self, pids: Iterable[int]) -> None:
        self._read_each(pids)
        self._labelling.remember_groups(self.labelled())

    def _read_each(self, pids: Iterable[int]) -> None:
        fresh: list[Process] = []
        for pid in pids:
            data = self._proc.read(pid, "stat")
            told = pid in self._lineage.born
            if not told and data is not None and data == self._stats.get(pid) and pid not in self._restless:
                continue  # it did nothing since: most of a host sleeps
            stat = parse_stat(data) if data else None
            known = self.processes.get(pid)
            if stat is None or (known is not None and known.identity.start != stat.start):
                self._forget(pid)
                known = None
            if data is None or stat is None:
                self._listed = []  # if the pid is given out again it is new
                continue
            self._stats[pid] = data
            if self._gap:
                self._stir([pid])  # what it executed meanwhile was not told
            if known is None:
                known = self.processes[pid] = self._new(pid, stat)
            else:
                known.ppid, known.pgid, known.sid = stat.ppid, stat.pgid, stat.sid
                known.state = stat.state
                if pid in self._restless:
                    self._reread(known)
                elif not told:
                    continue
            if told:
                self._lineage.read(known)
            fresh.append(known)
            (self._changing.add if _changes(known) else self._changing.discard)(pid)
            soon = _unsettled(known) or (pid in self._changing and not self.told)
            soon = soon and not (known.argv == () and parse_wordless(data))
            (self._restless.add if soon else self._restless.discard)(pid)
        self._label(fresh)
        if self._labelling.new_folder:
            self.changed, self._labelling.new_folder = True, False

    def _new(self, pid: int, stat: Stat) -> Process:
        argv, environ = self._words(pid), self._proc.environ(pid)
        unread = self._refused(pid, argv, environ)
        argv, environ = argv or (), environ or {}
        named = read_command(argv)
        identity = Identity(pid, stat.start)
        process = Process(
            identity=identity,
            ppid=stat.ppid,
            pgid=stat.pgid,
            sid=stat.sid,
            state=stat.state,
            uid=-1,
            argv=argv,
            environ=environ,
            role=named.role,
            title=named.label,
            unread=unread,
        )
        known = self._restored.pop(identity, None)
        if known is not None and process.role in (Role.RUNNER, Role.OTHER):
            process.label, process.evidence, process.trusted = known.label, ("remembered",), True
            process.runner = known.runner
            process.by_folder = True  # as it may have been: that is not remembered
            if known.doubts is not None:
                doubt(process, known.doubts)
        return process

    def _words(self, pid: int) -> tuple[str, ...] | None:
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        argv = self._proc.argv(pid)
        if argv:
            self._unread_words.read(pid, before)
        return argv

    def _refused(self, pid: int, argv: object, environ: object) -> dict[str, str]:
        """Which of a process's words could not be read, and why."""
        return {
            name: why
            for name, found in (("cmdline", argv), ("environ", environ))
            if found is None and (why := self._proc.refusal(pid, name)) is not None
        }

    def _reread(self, process: Process) -> None:
        """Look again at a process that may have exec'd; what it was known as stays known."""
        argv = self._words(process.pid)
        settled = process.reads > _SETTLED_READS and not process.unread
        if argv == () or (argv == process.argv and settled):
            return  # ending, or in an exec; or Airflow's own process, unchanged
        process.reads += 1
        found = self._proc.environ(process.pid)
        refused = self._refused(process.pid, argv, found)
        if process.unread or refused:
            kept = {name: why for name, why in process.unread.items() if name not in WORDS}
            process.unread, self._derived = kept | refused, None
        # the exec may begin between the two reads: then none is there for a moment
        argv, environ = argv or process.argv, found or process.environ
        if argv != process.argv or environ != process.environ:
            named = read_command(argv)
            process.argv, process.environ, self._derived = argv, environ, None
            if process.role is Role.TEST:
                return  # 3.x gives the test the title of a runner
            if process.role is Role.RUNNER and named.role is Role.OTHER and self._is_fork(process):
                process.role, process.title = named.role, None
            elif named.role is not Role.OTHER or process.role in (Role.SERVICE, Role.SUPERVISOR):
                process.role, process.title = named.role, named.label
                process.label, process.evidence, process.contrary = None, (), None
                process.runner = None

    def _is_fork(self, process: Process) -> bool:
        """True for a child of a runner, which bears the runner's title until it execs."""
        parent = self._labelling.parent(process)
        above = (parent, self._lineage.source_of(process)[0])
        return any(p is not None and p.role is Role.RUNNER and p.title == process.title for p in above)

    def _label(self, fresh: list[Process]) -> None:
        """Parents before children, so that a label travels down a whole new tree at once."""
        for process in sorted(fresh, key=lambda p: (p.identity.start, p.pid)):
            before = process.label, process.contrary
            if process.pid > 2:
                self._labelling.label(process)
            if (process.label, process.contrary) != before:
                self.changed, self._derived = True, None
            self._note(process)

    def _label_late(self) -> None:
        """Those whose parent, session or group was labelled after them, until none is left."""
        tried: set[int] = set()
        while late := [
            p for p in self.processes.values() if p.pid not in tried and self._labelling.may_inherit(p)
        ]:
            self._label(late)
            tried.update(process.pid for process in late)

"""The host's processes, each with what ties it to a task, remembered while it lives.

A process loses its ancestry once its parents are SIGKILLed, and bash children of Airflow 1.10.0
carry no AIRFLOW_CTX_*. So labels are given while the ancestors run and stay with (pid, start time);
sessions and process groups led by a labelled process are remembered with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dagstop.evidence.airflow_names import differs, is_init, read_command, read_tags, surroundings_of
from dagstop.evidence.circles import Circles
from dagstop.model import Identity, Label, Process, Role
from dagstop.outside.procfs import ProcFS, Stat, parse_stat

_NEVER = frozenset({Role.SERVICE, Role.TEST})
_SETTLED_READS = 2  # a new process may not have exec'd yet: its words are read again once


def _unsettled(process: Process) -> bool:
    """True if its words may still change without a new pid: before exec, and for Airflow's own

    processes, which fork and set their title later, 3.x's executor workers again for each task.
    """
    if process.reads < _SETTLED_READS:
        return True
    words = process.argv[:2]
    return process.role is not Role.RUNNER and any("airflow" in w or "celery" in w for w in words)


class Watch:
    """All processes of this pid namespace. `look` reads all of /proc, `tick` only what is new."""

    def __init__(
        self,
        proc: ProcFS,
        *,
        trusted_uids: Callable[[], frozenset[int]],
        own_pid: int,
    ) -> None:
        self._proc = proc
        self._trusted_uids = trusted_uids
        self._namespace = proc.pid_namespace(own_pid)
        self._restored: dict[Identity, Label] = {}
        self.processes: dict[int, Process] = {}
        self._restless: set[int] = set()  # pids whose words may still change
        self._stats: dict[int, bytes] = {}  # /proc/PID/stat as it was last read
        self._sessions = Circles("session", self.processes)
        self._groups = Circles("process group", self.processes)
        self.changed = False  # labels differ from those last saved

    def tick(self) -> None:
        """Learn of processes that started since the last look; costs one listing in a quiet host."""
        pids = set(self._proc.pids())
        for gone in self.processes.keys() - pids:
            self._forget(gone)
        self._read([*(pids - self.processes.keys()), *self._restless])

    def look(self) -> dict[int, Process]:
        """Read every process's stat again and label what is new: the view that a kill goes by."""
        pids = self._proc.pids()
        for gone in self.processes.keys() - set(pids):
            self._forget(gone)
        self._read(pids)
        self._label_late()
        return self.processes

    def labelled(self) -> Iterable[Process]:
        return (p for p in self.processes.values() if p.label is not None)

    def restore(self, labels: dict[Identity, Label]) -> None:
        """Take up what an earlier listener on this boot remembered."""
        self._restored.update(labels)

    def died(self, identity: Identity) -> None:
        """Told at the moment of a death: whoever it forked was forked by now."""
        process = self.processes.get(identity.pid)
        if process is not None and process.identity == identity and process.label is not None:
            for circles, number in self._circles_of(process):
                circles.died(process, number, self._proc.now_ticks())

    def _forget(self, pid: int) -> None:
        gone = self.processes.pop(pid, None)
        self._restless.discard(pid)
        self._stats.pop(pid, None)
        self.changed = self.changed or (gone is not None and gone.label is not None)

    def _read(self, pids: list[int]) -> None:
        fresh: list[Process] = []
        for pid in pids:
            data = self._proc.read(pid, "stat")
            if data is not None and data == self._stats.get(pid) and pid not in self._restless:
                continue  # it did nothing since: most of a host sleeps
            stat = parse_stat(data) if data else None
            if data is None or stat is None:
                self._forget(pid)
                continue
            self._stats[pid] = data
            known = self.processes.get(pid)
            if known is None or known.identity.start != stat.start:
                known = self.processes[pid] = self._new(pid, stat)
            else:
                known.ppid, known.pgid, known.sid = stat.ppid, stat.pgid, stat.sid
                known.state = stat.state
                if pid not in self._restless:
                    continue
                self._reread(known)
            fresh.append(known)
            (self._restless.add if _unsettled(known) else self._restless.discard)(pid)
        self._label(fresh)
        self._remember_circles()

    def _new(self, pid: int, stat: Stat) -> Process:
        argv = self._proc.argv(pid)
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
            environ=self._proc.environ(pid),
            role=named.role,
            title=named.label,
        )
        label = self._restored.pop(identity, None)
        if label is not None and process.role in {Role.RUNNER, Role.OTHER}:
            process.label, process.evidence, process.trusted = label, ("remembered",), True
        return process

    def _reread(self, process: Process) -> None:
        """Look again at a process that may have exec'd; what it was known as stays known."""
        argv = self._proc.argv(process.pid)
        if not argv or (argv == process.argv and process.reads > _SETTLED_READS):
            return  # ending, or amid an exec; or one of Airflow's own, unchanged
        process.reads += 1
        environ = self._proc.environ(process.pid)
        if argv != process.argv or environ != process.environ:
            named = read_command(argv)
            process.argv, process.environ = argv, environ
            if process.role is Role.TEST:
                return  # 3.x gives the test the title of a runner
            if process.role is Role.RUNNER and named.role is Role.OTHER and self._is_fork(process):
                process.role, process.title = named.role, None
            elif named.role is not Role.OTHER or process.role in {Role.SERVICE, Role.SUPERVISOR}:
                process.role, process.title = named.role, named.label
                process.label, process.evidence, process.contrary = None, (), None

    def _is_fork(self, process: Process) -> bool:
        """True for a child of a runner, which bears the runner's title until it execs."""
        parent = self._parent(process)
        return parent is not None and parent.title == process.title

    def _label(self, fresh: list[Process]) -> None:
        """Parents before children, so that a label travels down a whole new tree at once."""
        for process in sorted(fresh, key=lambda p: (p.identity.start, p.pid)):
            if process.pid <= 2:
                continue
            before = process.label
            self._label_one(process)
            if process.label != before:
                self.changed = True

    def _label_late(self) -> None:
        """Those whose parent, session or group was labelled after them, until none is left."""
        tried: set[int] = set()
        while late := [p for p in self.processes.values() if p.pid not in tried and self._may_inherit(p)]:
            self._label(late)
            tried.update(process.pid for process in late)

    def _may_inherit(self, process: Process) -> bool:
        if process.label is not None or process.role is not Role.OTHER:
            return False
        parent = self.processes.get(process.ppid)
        labelled = parent is not None and parent.label is not None
        return labelled or process.sid in self._sessions or process.pgid in self._groups

    def _label_one(self, process: Process) -> None:
        parent = self._parent(process)
        source, how = self._inherited(process, parent)
        tags = read_tags(process.environ) if process.environ else None
        own = process.title or tags
        if process.title is not None and tags is not None:
            # what a runner was started with may name another task: only the surroundings count
            own = process.title.filled_from(surroundings_of(process.environ))
        evidence: list[str] = []
        label = process.label
        if own is not None and own.names_a_run():
            evidence.append("title" if process.title is not None else "environment")
            label = own
        elif own is not None and source is None:
            return
        if source is not None and source.label is not None:
            if label is not None and (field := differs(label, source.label)):
                if process.title is None:
                    process.contrary = f"its {field} differs from that of {how}"
            else:
                evidence.append(how)
                label = (label or Label()).filled_from(source.label)
        if label is None or not label.names_a_run():
            return
        process.evidence = tuple(dict.fromkeys((*process.evidence, *evidence)))
        process.label = self._with_surroundings(label, parent)
        by_itself = source is None or (own is not None and own.names_a_run())
        self._stand(process, source, by_itself=by_itself)
        self._find_contrary(process, parent, descends=source is not None)

    def _stand(self, process: Process, source: Process | None, *, by_itself: bool) -> None:
        """Where a labelled process stands: near a runner or not, trusted or not."""
        process.with_runner = process.role is Role.RUNNER or (
            source is not None and source.with_runner and source.sid == process.sid
        )
        if process.role is Role.RUNNER:
            process.line = frozenset({process.pid, process.ppid})
        elif source is not None:
            process.line = source.line
        if process.uid == -1:
            process.uid = self._proc.uid(process.pid)
        if source is not None:
            process.trusted = process.trusted or source.trusted
            process.contrary = process.contrary or source.contrary
        if by_itself:  # what a stranger runs as root (sudo) is no more to be believed than he is
            process.trusted = process.trusted or process.uid in self._trusted_uids()

    def _parent(self, process: Process) -> Process | None:
        parent = self.processes.get(process.ppid)
        # a parent that started later is a reused pid
        if parent is None or parent.identity.start > process.identity.start or parent.pid <= 2:
            return None
        return parent

    def _inherited(self, process: Process, parent: Process | None) -> tuple[Process | None, str]:
        """The labelled process that this one descends from, by parent, session or group."""
        if process.role in {Role.SERVICE, Role.TEST, Role.SUPERVISOR}:
            return None, ""
        if parent is not None and parent.label is not None and parent.role not in _NEVER:
            if process.title is None or parent.title is not None:
                return parent, f"child of {parent.pid}"
        if process.title is not None:
            return None, ""  # a runner that a task started is of its own task, not of that one
        for circles, number in self._circles_of(process):
            if (leader := circles.leader_of(process, number)) is not None:
                return leader, f"{circles.word} {number}"
        return None, ""

    def _circles_of(self, process: Process) -> tuple[tuple[Circles, int], tuple[Circles, int]]:
        return (self._sessions, process.sid), (self._groups, process.pgid)

    def _with_surroundings(self, label: Label, parent: Process | None) -> Label:
        """Add AIRFLOW_HOME and the metadata database from the nearest ancestor that shows them."""
        for _ in range(64):
            if parent is None or (label.airflow_home and label.database):
                break
            label = label.filled_from(surroundings_of(parent.environ))
            parent = self._parent(parent)
        return label

    def _find_contrary(self, process: Process, parent: Process | None, *, descends: bool) -> None:
        """What spares a process although it carries a label."""
        if process.role in _NEVER:
            process.contrary = f"it is a {process.role.value} and never killed"
            return
        namespace = self._proc.pid_namespace(process.pid)
        if namespace is not None and namespace != self._namespace and not descends:
            process.contrary = "it lives in another pid namespace"
            return
        if process.role in {Role.RUNNER, Role.SUPERVISOR}:
            if parent is not None and parent.role is Role.TEST:
                process.contrary = f"it is part of the test run by hand, pid {parent.pid}"
            return
        for _ in range(64):
            if parent is None or parent.role in {Role.RUNNER, Role.SUPERVISOR}:
                return
            if parent.role is Role.TEST:
                process.contrary = f"it is part of the test run by hand, pid {parent.pid}"
                return
            if parent.role is Role.SERVICE:
                if not is_init(parent.argv) and "remembered" not in process.evidence:
                    process.contrary = f"it runs under {parent.argv[0][:40]!r}, pid {parent.pid}"
                return
            parent = self._parent(parent)

    def _remember_circles(self) -> None:
        """Keep the sessions and groups that labelled processes lead, as long as a member lives."""
        now = self._proc.now_ticks()
        for process in self.labelled():
            if process.role in {Role.SUPERVISOR, *_NEVER} or process.state in "ZX":
                continue
            for circles, number in self._circles_of(process):
                circles.seen(process, number, now)
        self._sessions.forget_the_old(now)
        self._groups.forget_the_old(now)

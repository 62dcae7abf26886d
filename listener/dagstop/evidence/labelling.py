"""Which task a process belongs to: by its own words, by what forked it, its session or its process group."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dagstop.airflow_names import airflow_of, conflict, differs, is_init, read_tags
from dagstop.evidence.folders import Folders
from dagstop.evidence.forks import Forks
from dagstop.evidence.groups import Groups
from dagstop.evidence.lineage import Lineage
from dagstop.evidence.match import ELSEWHERE, asks_to_be_spared
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity, Label, Process, Role

WORDS = ("cmdline", "environ")
"""The files of a process that say what it is; where one could not be read, the watch notes it."""
_NEVER = (Role.SERVICE, Role.TEST)  # a tuple: compared by identity, where a set would hash enums


class Labelling:
    """Gives the processes of a watch their labels, and remembers the groups that labelled ones lead."""

    def __init__(
        self,
        proc: ProcFS,
        processes: Mapping[int, Process],
        trusted_uids: Callable[[], frozenset[int]],
        namespace: str | None,
        lineage: Lineage,
        init_of: Callable[[int], Identity | None] | None = None,
    ) -> None:
        """init_of: the init of the container that a pid lives in; None where no container is looked into."""
        self._proc = proc
        self._lineage = lineage
        self._processes = processes
        self._trusted_uids = trusted_uids
        self._namespace = namespace
        self._init_of = init_of
        self._sessions = Groups("session", processes)
        self._groups = Groups("process group", processes)
        self._forks = Forks(proc)
        self.folders = Folders(proc, processes)
        self.claimed: dict[Identity, Process] = {}  # what a `docker exec` runs, and that
        self.new_folder = False  # one became known since this was last set to False

    def died(self, process: Process) -> None:
        """A process died now."""
        for groups, number in self._groups_of(process):
            groups.died(process, number, self._proc.now_ticks())

    def may_inherit(self, process: Process) -> bool:
        """True if it has no label but is kin of something that has."""
        if process.label is not None:
            return False
        parent = self._processes.get(process.ppid)
        if process.identity in self.claimed or (parent is not None and parent.label is not None):
            return True
        if process.sid in self._sessions or process.pgid in self._groups:
            return True
        source, _ = self._lineage.source_of(process)
        return source is not None

    def label(self, process: Process) -> None:
        """Label it by its own words and by what it descends from; its ancestors must have had their turn."""
        parent = self.parent(process)
        if process.contrary == ELSEWHERE:  # as an earlier listener left it: its container may be known now
            self._find_place(process, None)
        source, how = self._inherited(process, parent)
        own = read_tags(process.environ) if process.environ else None
        if process.title is not None:
            # what a runner was started with may name another task: only which Airflow it is of counts
            own = process.title.filled_from(airflow_of(process.environ))
        descends = source is not None
        if source is None and (own is None or not own.names_a_run()):
            source, how = self._in_folder_of(process, own)
        evidence: list[str] = []
        label = process.label
        if own is not None and own.names_a_run():
            evidence.append("title" if process.title is not None else "environment")
            # what it shows no more, and its ancestors did, stays known
            label = own if label is None or differs(own, label) else own.filled_from(label)
        elif own is not None and source is None:
            return
        if source is not None and source.label is not None:
            if label is not None and (field := differs(label, source.label)):
                if process.title is None:
                    process.contrary = f"its {field} differs from that of {how}"
            else:
                evidence.append(how)
                label = (label or Label()).filled_from(source.label)
        if label is None:
            return
        process.evidence = tuple(dict.fromkeys((*process.evidence, *evidence)))
        self._find_place(process, source if descends else None)
        process.label = self._with_surroundings(label, parent, process.place)
        named = own is not None and own.names_a_run()
        self._stand(process, source, by_itself=named or not descends, descends=descends)
        if named:
            process.by_folder = False
        elif source is not None:
            process.by_folder = source.by_folder or not descends
        self._find_contrary(process, parent, source if descends else None)
        self._remember(process)

    def _remember(self, process: Process) -> None:
        """A leader by its session and group, a runner by what its forks share with it, and a session leader
        by its task's folder: whoever was seen in the same moment is to be judged with it.
        """
        now = self._proc.now_ticks()
        self._stand_in_groups(process, now)
        if process.role is Role.RUNNER:
            self._forks.note(process)
        sure = process.trusted and process.contrary is None and process.unread.keys() <= {"environ"}
        sure = sure and process.place is None  # in each container a folder is another one
        if sure and not process.by_folder and process.role is Role.OTHER and process.sid == process.pid:
            self.new_folder |= self.folders.note(process, now)

    def _stand(self, process: Process, source: Process | None, *, by_itself: bool, descends: bool) -> None:
        """Where a labelled process stands: near a runner or not, trusted or not."""
        process.with_runner = process.role is Role.RUNNER or (
            source is not None and source.with_runner and source.sid == process.sid
        )
        if process.role is Role.RUNNER:
            process.line = frozenset({process.pid, process.ppid})
            process.inner = self._inside(process, process.pid, process.ppid)
            if source is not None and source.title == process.title:
                process.line |= source.line  # Airflow recorded the one that it was forked from
                process.inner |= source.inner
        elif source is not None:
            process.line = source.line
            process.inner = source.inner | self._inside(process, process.pid)
        else:
            process.inner = self._inside(process, process.pid, process.ppid)
        if process.uid == -1 or not process.trusted:  # until its exec it may be of another user
            process.uid = self._proc.uid(process.pid)
        if source is not None:
            process.runner = (source if source.role is Role.RUNNER else source.runner) or process.runner
            # others may go to a task's folder, too
            alike = descends or source.uid == process.uid
            process.trusted = process.trusted or (source.trusted and alike)
            process.vouchers |= source.vouchers if alike else frozenset()
            process.contrary = process.contrary or source.contrary
            process.kin_spared = process.kin_spared or asks_to_be_spared(source)
        if by_itself:  # what a stranger runs as root (sudo) is no more to be believed than he is
            process.trusted = process.trusted or process.uid in self._trusted_uids()
            process.vouchers |= {process.uid}

    def _inside(self, process: Process, *pids: int) -> frozenset[int]:
        """Pids as they count in its container."""
        if process.place is None:
            return frozenset()
        found = (self._proc.inner_pids(pid) for pid in pids)
        return frozenset(numbers[1] for numbers in found if len(numbers) == 2)

    def _find_place(self, process: Process, source: Process | None) -> None:
        """The container that it lives in, or that what it descends from does: that stays."""
        if self._init_of is None or process.place is not None or process.here:
            return
        if source is not None:
            process.place = source.place
        elif "remembered" in process.evidence and process.contrary != ELSEWHERE:
            return  # it was forked by what lives here
        elif self._proc.pid_namespace(process.pid)[0] not in (None, self._namespace):
            process.place = self._init_of(process.pid)
        if process.place is not None and process.contrary == ELSEWHERE:
            process.contrary = None
        runner = process.runner if process.place is not None else None
        while runner is not None and runner.place is None and runner.contrary == ELSEWHERE:
            runner.place, runner.contrary = process.place, None
            runner = runner.runner

    def parent(self, process: Process) -> Process | None:
        if process.ppid > 2 and process.ppid not in self._processes:
            # it died since, and somebody adopted the process; or /proc does not show it to us
            stat = self._proc.stat(process.pid)
            process.ppid = stat.ppid if stat is not None else process.ppid
        parent = self._processes.get(process.ppid)
        # a parent that started later is a reused pid
        if parent is None or parent.identity.start > process.identity.start or parent.pid <= 2:
            return None
        return parent

    def _inherited(self, process: Process, parent: Process | None) -> tuple[Process | None, str]:
        """The labelled process that this one descends from, by parent, session or group."""
        if process.role in (Role.SUPERVISOR, *_NEVER):
            return None, ""
        client = self.claimed.get(process.identity)
        if client is not None and _passes_on(client, process):
            return client, f"docker exec by {client.pid}"
        if parent is not None and parent.role not in _NEVER and _passes_on(parent, process):
            return parent, f"child of {parent.pid}"
        ancestor, direct = self._lineage.source_of(process)
        if ancestor is not None and _passes_on(ancestor, process):
            return ancestor, f"forked by {'' if direct else 'a child of '}{ancestor.pid}, which has ended"
        if process.title is not None:  # a runner that a task started is of its own task, not of that one
            runner = self._forks.runner_of(process)
            return runner, f"fork of runner {runner.pid}" if runner is not None else ""
        for groups, number in self._groups_of(process):
            leader = groups.leader_of(process, number)
            if leader is not None and leader is not process:
                return leader, f"{groups.word} {number}"
        return None, ""

    def _in_folder_of(self, process: Process, own: Label | None) -> tuple[Process | None, str]:
        """The labelled process in whose task's folder this one works."""
        if process.role is not Role.OTHER or process.place is not None:
            return None, ""
        leader, folder = self.folders.leader_of(process, self._proc.now_ticks())
        if leader is None or leader.label is None or (own is not None and differs(own, leader.label)):
            return None, ""
        return leader, f"working directory {folder}"

    def _groups_of(self, process: Process) -> tuple[tuple[Groups, int], tuple[Groups, int]]:
        return (self._sessions, process.sid), (self._groups, process.pgid)

    def _with_surroundings(self, label: Label, parent: Process | None, init: Identity | None) -> Label:
        """Add AIRFLOW_HOME and the metadata database from the nearest ancestor that shows them."""
        for _ in range(len(self._processes)):
            if parent is None or (label.airflow_home and label.database):
                break
            if parent.environ:
                label = label.filled_from(airflow_of(parent.environ))
            if parent.identity == init:
                break  # what started a container is outside of it
            parent = self.parent(parent)
        return label

    def _find_contrary(self, process: Process, parent: Process | None, source: Process | None) -> None:
        """What spares a process although it carries a label."""
        if process.role in _NEVER:
            process.contrary = f"it is a {process.role.value}, which is never killed"
            return
        process.unread = {name: why for name, why in process.unread.items() if name in WORDS}
        if source is not None:
            # what the source runs under is asked of this one itself: whether it ends, until it has
            passed = ("environ", "parent") if source.above_ends else ("environ",)
            process.unread |= {name: why for name, why in source.unread.items() if name not in passed}
            process.here = process.here or source.here
        elif not process.here:  # a process at its end shows it no more
            namespace, why = self._proc.pid_namespace(process.pid)
            process.here = namespace is not None and namespace == self._namespace
            if namespace is None:
                process.unread["ns/pid"] = why
            elif not process.here and process.place is None and "remembered" not in process.evidence:
                process.contrary = ELSEWHERE
        if process.contrary is None:
            self._look_above(process, parent, descends=source is not None)

    def _look_above(self, process: Process, parent: Process | None, *, descends: bool) -> None:
        """Whether it runs under something that is not the task: a test by hand, a shell of somebody's."""
        runs = process.role in (Role.RUNNER, Role.SUPERVISOR)
        remembered = "remembered" in process.evidence
        child, process.above_ends = process, False
        for _ in range(len(self._processes)):
            if child.identity in self.claimed:
                return  # the engine's shim is above it, and says nothing
            if parent is None:
                if not runs and not descends and child.ppid > 2 and child.ppid not in self._processes:
                    process.unread["parent"] = (
                        f"what it runs under is not known: {self._proc.hidden(child.ppid)}"
                    )
                return
            if parent.role is Role.TEST:
                process.contrary = f"it is part of the test run by hand, pid {parent.pid}"
            elif parent.identity == process.place:
                return  # it adopts orphans, as pid 1 does
            elif "cmdline" in parent.unread:
                process.unread["parent"] = f"what it runs under is not known: {parent.unread['cmdline']}"
            elif not parent.argv and not (runs or remembered) and self._proc.ending(parent.pid):
                # it may have been the runner, which shows no title any more while it frees its memory
                process.above_ends = True
                process.unread["parent"] = f"what it runs under is ending: pid {parent.pid}"
                return
            elif parent.role is Role.SERVICE and not runs:
                if not is_init(parent.argv) and not remembered:
                    process.contrary = f"it runs under {parent.argv[0][:40]!r}, pid {parent.pid}"
            if runs or parent.role is not Role.OTHER or "cmdline" in parent.unread:
                return
            child, parent = parent, self.parent(parent)

    def remember_groups(self, labelled: list[Process]) -> None:
        """Keep the sessions and groups that labelled processes lead, as long as a member lives."""
        now = self._proc.now_ticks()
        for process in labelled:
            self._stand_in_groups(process, now)
        self._sessions.forget_the_old(now)
        self._groups.forget_the_old(now)
        self.folders.forget_the_old(now)

    def _stand_in_groups(self, process: Process, now: int) -> None:
        if (process.role is Role.OTHER or process.role is Role.RUNNER) and process.state not in "ZX":
            self._sessions.seen(process, process.sid, now)
            self._groups.seen(process, process.pgid, now)


def _passes_on(source: Process, process: Process) -> bool:
    """True if what descends from a labelled process is of the same task: a runner of another one is not."""
    if source.label is None or process.title is None or source.title is not None:
        return source.label is not None
    return _one_try(process.title, source.label)


def _one_try(title: Label, label: Label) -> bool:
    """True if a title names the very try of a label: sudo's child is a runner as its parent was before."""
    if title.ti_id is not None:
        return title.ti_id == label.ti_id
    same = title.job_id is not None and (title.job_id, title.task_id) == (label.job_id, label.task_id)
    return same and conflict(title, label) is None

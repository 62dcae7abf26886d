"""Stage 5: what was seen -> one row of dagstop.report and one log line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dagstop.host.containers import Container
from dagstop.kill.containers import ContainerEnd
from dagstop.kill.endings import NOT_SIGNALLED, Ending, Endings
from dagstop.logs import event, shown
from dagstop.model import Identity, Label, Outcome, Process, Role, StopOrder, Target, Verdict, Whose
from dagstop.report.words import not_told

ToDbClock = Callable[[datetime], datetime]


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """What is known of one order under way, as far as a report is made of it."""

    order: StopOrder
    processes: Sequence[tuple[Ending, Verdict]]
    containers: Sequence[ContainerEnd] = ()
    spared: Sequence[tuple[Process, Verdict]] = ()
    spared_containers: Sequence[tuple[Container, Verdict]] = ()
    seen: Collection[Label] = ()  # of the run's processes, dead ones and supervisors too
    problem: str | None = None


@dataclass(slots=True)
class Findings:
    """What was done about one order on this host: the detail of its report."""

    processes: list[dict[str, Any]] = field(default_factory=list)
    containers: list[dict[str, Any]] = field(default_factory=list)
    spared: list[dict[str, Any]] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)  # ran here, says Airflow; nothing of it seen
    ended_by_itself: list[str] = field(default_factory=list)  # the same, but it was seen, and is gone
    could_not_look: list[str] = field(default_factory=list)  # what the host could not see, and why
    containers_untied: list[str] = field(default_factory=list)  # spared: a client may have created them
    execs_untied: list[str] = field(default_factory=list)  # the same of what a `docker exec` runs
    not_told: list[dict[str, Any]] = field(default_factory=list)  # when nobody told what its tasks forked
    containers_untold: list[str] = field(default_factory=list)  # created then, and of nobody who is known
    execs_untold: list[str] = field(default_factory=list)  # the same of what a `docker exec` runs
    problem: str | None = None
    first_signal_at: datetime | None = None  # on the database's clock, as all times here
    last_death_at: datetime | None = None

    def outcome(self, superseded: bool) -> Outcome:
        """The worst that is true of it; `superseded`: everything that the order stopped was cleared since."""
        ended = [*self.processes, *self.containers]
        later = any(item.get("whose") == Whose.LATER_TRY.value for item in self.spared)
        true = {
            Outcome.UNKILLABLE: any(item["died_at"] is None for item in ended),
            Outcome.SPARED: any("whose" not in item for item in self.spared),
            Outcome.COULD_NOT_LOOK: bool(self.could_not_look or self.problem),
            Outcome.NOT_FOUND: bool(self.not_found),
            Outcome.STOPPED: bool(ended),
            Outcome.SUPERSEDED: superseded or later,
            Outcome.NOTHING_FOUND: True,
        }
        return next(outcome for outcome in Outcome if true[outcome])

    def detail(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "processes": self.processes,
            "containers": self.containers,
            "spared": self.spared,
        }
        more = {
            "not_found": self.not_found,
            "ended_by_itself": self.ended_by_itself,
            "could_not_look": self.could_not_look,
            "containers_untied": self.containers_untied,
            "execs_untied": self.execs_untied,
            "not_told": self.not_told,
            "containers_untold": self.containers_untold,
            "execs_untold": self.execs_untold,
            "problem": None if self.problem is None else shown(self.problem),
        }
        return facts | {name: value for name, value in more.items() if value}

    def merged(self, earlier: Findings) -> Findings:
        """These findings after those of an earlier case of the same order."""
        # what lives and is spared now is said by its sparing
        spared = {item.get("pid") for item in self.spared}
        processes = {
            (item["pid"], item["start"]): item
            for item in earlier.processes
            if item["died_at"] is not None or item["pid"] not in spared
        }
        processes |= {(item["pid"], item["start"]): item for item in self.processes}
        named = {item.get("container") for item in self.spared}
        containers = {
            item["id"]: item
            for item in earlier.containers
            if item["died_at"] is not None or item["name"] not in named
        }
        for item in self.containers:
            before = containers.get(item["id"], {"signals": []})
            containers[item["id"]] = {**item, "signals": [*before["signals"], *item["signals"]]}
        return Findings(
            processes=list(processes.values()),
            containers=list(containers.values()),
            spared=self.spared,
            not_found=[task for task in self.not_found if task in earlier.not_found],
            ended_by_itself=[task for task in self.ended_by_itself if task in earlier.not_found],
            could_not_look=self.could_not_look,
            containers_untied=self.containers_untied,
            execs_untied=self.execs_untied,
            not_told=self.not_told,
            containers_untold=self.containers_untold,
            execs_untold=self.execs_untold,
            problem=self.problem,
            first_signal_at=earlier.first_signal_at or self.first_signal_at,
            last_death_at=self.last_death_at or earlier.last_death_at,
        )

    def see(self, lives: Callable[[Identity], bool], seen_at: datetime) -> None:
        """Hold the processes that were not seen dead against the host; seen_at on the database's clock."""
        for item in self.processes:
            if item["died_at"] is None and not lives(_identity(item)):
                item.pop("alive", None)
                item |= {"died_at": seen_at.isoformat(), "noticed": "gone when the listener came back"}
                self.last_death_at = seen_at

    def see_container_gone(self, ident: str, seen_at: datetime) -> None:
        """A container, by the id of a report, was seen not to run any more; on the database's clock."""
        for item in self.containers:
            if item["id"] == ident and item["died_at"] is None:
                item |= {"died_at": seen_at.isoformat(), "noticed": "gone when the listener came back"}
                self.last_death_at = seen_at

    def begun(self) -> list[datetime]:
        """When its processes began, on the database's clock."""
        return [datetime.fromisoformat(item["started_at"]) for item in self.processes if "started_at" in item]

    def of_processes(self) -> list[Identity]:
        """Its processes."""
        return [_identity(item) for item in self.processes]

    def sent(self) -> dict[Identity, list[tuple[str, datetime]]]:
        """The signals that each process got, on the database's clock."""
        return {
            _identity(item): [(name, datetime.fromisoformat(at)) for name, at in item["signals"]]
            for item in self.processes
        }


def resumed(
    order: StopOrder, noted: Iterable[dict[str, Any]], host_names: Collection[str]
) -> Findings | None:
    """What a listener had done about the order here, by its report and by what it `noted`; None if nothing.

    noted: the processes and containers that it wrote down before their first signals (the journal).
    """
    begun = order.begun or {}
    known = [*noted, *begun.get("processes", ()), *begun.get("containers", ())]
    processes = {(item["pid"], item["start"]): dict(item) for item in known if "pid" in item}
    containers = {item["id"]: dict(item) for item in known if "pid" not in item}
    if not known:
        return None
    found = Findings(list(processes.values()), list(containers.values()))
    tasks = [item["task"] for item in (*found.processes, *found.containers) if "task" in item]
    labels = [Label(task_id=task.get("task_id"), ti_id=task.get("ti_id")) for task in tasks]
    said = "not_found" in begun
    found.not_found = begun["not_found"] if said else missing(order, labels, list, host_names)[0]
    ended = [*found.processes, *found.containers]
    moments = [moment for item in ended for _, moment in item["signals"]]
    deaths = [item["died_at"] for item in ended if item["died_at"] is not None]
    found.first_signal_at = min(map(datetime.fromisoformat, moments), default=None)
    found.last_death_at = max(map(datetime.fromisoformat, deaths), default=None)
    return found


def findings(
    facts: CaseFacts,
    pool: Endings,
    at: ToDbClock,
    start_of: Callable[[Process], datetime],
    host_names: Collection[str],
    departed: Callable[[], Iterable[Label]] = tuple,
) -> Findings:
    """Put together what a case has come to; departed: of what ended before it looked."""
    result = Findings(problem=facts.problem)
    signalled: list[datetime] = []
    deaths: list[datetime] = []
    for ending, verdict in facts.processes:
        result.processes.append(_process(ending, verdict, pool, at, start_of(ending.process)))
        signalled += [moment for _, moment in ending.signals]
        deaths += [ending.died_at] if ending.died_at is not None else []
    for end in facts.containers:
        result.containers.append(_container(end, at))
        signalled += [moment for _, moment in end.signals]
        deaths += [end.died_at] if end.died_at is not None else []
    told = [ending.process.label for ending, _ in facts.processes]
    told += [end.verdict.label for end in facts.containers]
    for process, verdict in facts.spared:
        if process.role is not Role.SUPERVISOR:  # Airflow's own, which nobody expects to die
            result.spared.append(spared_process(process, verdict))
            told += [process.label] if verdict.whose is Whose.RUN else []
    for container, verdict in facts.spared_containers:
        runs = {} if container.runs is None else {"exec": shown(container.runs)}
        result.spared.append({"container": shown(container.name), **runs, **_why(verdict)})
        if verdict.untied and container.runs is not None:
            result.execs_untied.append(shown(f"{container.name}: {container.runs}"))
        elif verdict.untied:
            result.containers_untied.append(shown(container.name))
        told += [verdict.label] if verdict.whose is Whose.RUN else []
    known = [label for label in told if label is not None]
    result.not_found, result.ended_by_itself = missing(
        facts.order, known, lambda: [*facts.seen, *departed()], host_names
    )
    result.first_signal_at = at(min(signalled)) if signalled else None
    result.last_death_at = at(max(deaths)) if deaths else None
    return result


def _identity(item: Mapping[str, Any]) -> Identity:
    return Identity(int(item["pid"]), int(item["start"]))


def missing(
    order: StopOrder,
    told: Sequence[Label],
    seen: Callable[[], Sequence[Label]],
    host_names: Collection[str],
) -> tuple[list[str], list[str]]:
    """The tasks that ran on this host according to Airflow, and of which a report names nothing else.

    told: what it does name. The first list: nothing of them was seen here, and perhaps nothing ties their
    processes to them any more. The second: they were seen (`seen`), and ended without dagstop.
    """
    here = (row for row in order.targets if row.state == "running" and row.hostname in host_names)
    rows = [row for row in here if not _any_of(row, told)]
    if not rows:
        return [], []
    labels = seen()
    names = [(_any_of(row, labels), _name(row)) for row in rows]
    return [name for ended, name in names if not ended], [name for ended, name in names if ended]


def _name(row: Target) -> str:
    return shown(row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]")


def _any_of(row: Target, labels: Iterable[Label]) -> bool:
    """True if one of the labels is of this task instance, and not of another try of it."""
    mine = Label(map_index=row.map_index, job_id=row.job_id, ti_id=row.ti_id)
    for label in labels:
        if label.ti_id is not None and label.ti_id == row.ti_id:
            return True
        if label.task_id == row.task_id and mine.contradicts(label) is None:
            return True
    return False


def command(process: Process) -> str:
    """A command line as people may read it: one line, escaped, cut."""
    return shown(" ".join(process.argv) or "?")


def _why(verdict: Verdict) -> dict[str, Any]:
    """`whose` is there only for what is spared and is not the run's: it is not left alive."""
    facts = {"why": shown(verdict.reason), "evidence": [shown(word) for word in verdict.evidence]}
    return facts if verdict.whose is Whose.RUN else {**facts, "whose": verdict.whose.value}


def signals_at(signals: list[tuple[str, datetime]], at: ToDbClock) -> list[list[str]]:
    """Signals as a report holds them: names and moments on the database's clock."""
    return [[name, at(moment).isoformat()] for name, moment in signals]


def _process(
    ending: Ending, verdict: Verdict, pool: Endings, at: ToDbClock, started_at: datetime
) -> dict[str, Any]:
    facts = {
        **process_facts(ending.process, verdict, started_at),
        "signals": signals_at(ending.signals, at),
        "died_at": at(ending.died_at).isoformat() if ending.died_at is not None else None,
    }
    if not ending.alive and not ending.signals:
        facts["noticed"] = NOT_SIGNALLED
    if ending.alive:
        state = pool.state(ending)
        words = {"D": "in uninterruptible sleep (state D)", "t": "held by a debugger (state t)"}
        facts["alive"] = ending.refused or words.get(state, f"still there in state {state}")
    return facts


def process_facts(process: Process, verdict: Verdict, started_at: datetime) -> dict[str, Any]:
    """Who a process is and why it is to die; started_at on the database's clock."""
    facts: dict[str, Any] = {
        "pid": process.pid,
        "start": process.identity.start,
        "started_at": started_at.isoformat(),
        "command": command(process),
        "session": process.sid,
        "role": process.role.value,
        **_why(verdict),
    }
    return facts | _task(process.label)


def _task(label: Label | None) -> dict[str, Any]:
    if label is None:
        return {}
    return {"task": {name: shown(value) for name, value in label.facts().items() if name != "database"}}


def _container(end: ContainerEnd, at: ToDbClock) -> dict[str, Any]:
    facts = {
        **container_facts(end.container, end.verdict),
        "signals": signals_at(end.signals, at),
        "died_at": at(end.died_at).isoformat() if end.died_at is not None else None,
    }
    if end.died_at is None:
        facts["alive"] = end.refused or end.problem or "still running after SIGKILL"
    if end.noticed is not None:
        facts["noticed"] = end.noticed
    return facts


def container_facts(container: Container, verdict: Verdict) -> dict[str, Any]:
    """Which container it is and why it is to end."""
    return {
        "id": container.id[:12],
        "name": shown(container.name),
        "image": shown(container.image),
        **_why(verdict),
        **_task(verdict.label),
    }


def begun_here(order: StopOrder, result: Findings, host_names: Collection[str]) -> datetime | None:
    """When the earliest of the order's tasks began on this host, as far as anyone knows; database's clock."""
    tasks = (row.started_at for row in order.targets if row.hostname in host_names)
    return min([*result.begun(), *(moment for moment in tasks if moment is not None)], default=None)


def spared_process(process: Process, verdict: Verdict) -> dict[str, Any]:
    """A process that is left alive, and why."""
    return {"pid": process.pid, "command": command(process), **_why(verdict)}


def is_superseded(order: StopOrder) -> bool:
    """True if all that the order stopped was cleared (or marked otherwise) since."""
    targets = order.targets
    # a deleted one is released from the beginning
    released = (target.released_at is not None for target in targets)
    return bool(targets) and not order.deleted and all(released)


def summary(order: StopOrder, result: Findings, outcome: str) -> str:
    """The log line of an order that is done."""
    took = result.last_death_at - order.created_at if result.last_death_at else None
    return event(
        outcome,
        order=order.id,
        run=order.name,
        processes=len(result.processes),
        containers=len(result.containers),
        spared=len(result.spared),
        not_found=",".join(result.not_found) or "-",
        could_not_look="; ".join(result.could_not_look) or "-",
        not_told=not_told(result.detail()) or "-",
        milliseconds=round(took / timedelta(milliseconds=1)) if took else "-",
        by=order.asked_by.get("session_user_name"),
    )

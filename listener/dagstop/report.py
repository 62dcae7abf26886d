"""Stage 5: what was seen -> one row of dagstop.report and one log line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dagstop.evidence.containers import Container
from dagstop.kill.containers import ContainerEnd
from dagstop.kill.hunt import Hunt
from dagstop.kill.quarry import NOT_SIGNALLED, Quarries, Quarry
from dagstop.logs import event, shown
from dagstop.model import Identity, Label, Outcome, Process, Role, StopOrder, Verdict

ToDbClock = Callable[[datetime], datetime]


@dataclass(slots=True)
class Findings:
    """What was done about one order on this host: the detail of its report."""

    processes: list[dict[str, Any]] = field(default_factory=list)
    containers: list[dict[str, Any]] = field(default_factory=list)
    spared: list[dict[str, Any]] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)  # ran here, says Airflow; nothing of it seen
    problem: str | None = None
    first_signal_at: datetime | None = None  # on the database's clock, as all times here
    last_death_at: datetime | None = None

    def outcome(self, superseded: bool) -> Outcome:
        """One word for it; `superseded`: everything that the order stopped was cleared since."""
        ended = [*self.processes, *self.containers]
        if any(item["died_at"] is None for item in ended):
            return Outcome.UNKILLABLE
        if ended:
            return Outcome.STOPPED
        if superseded or any(item["why"].startswith("a later try") for item in self.spared):
            return Outcome.SUPERSEDED
        return Outcome.SPARED if self.spared else Outcome.NOTHING_FOUND

    def detail(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "processes": self.processes,
            "containers": self.containers,
            "spared": self.spared,
        }
        if self.not_found:
            facts["not_found"] = self.not_found
        return facts if self.problem is None else {**facts, "problem": shown(self.problem)}

    def merged(self, earlier: Findings) -> Findings:
        """These findings after those of an earlier hunt for the same order."""
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

    noted: the processes and containers that it wrote down before their first signals (begun.py).
    """
    begun = order.begun or {}
    known = [*noted, *begun.get("processes", ()), *begun.get("containers", ())]
    processes = {(item["pid"], item["start"]): dict(item) for item in known if "pid" in item}
    containers = {item["id"]: dict(item) for item in known if "pid" not in item}
    if not known:
        return None
    found = Findings(list(processes.values()), list(containers.values()))
    tasks = [item.get("task", {}) for item in found.processes]
    labels = [Label(task_id=task.get("task_id"), ti_id=task.get("ti_id")) for task in tasks]
    found.not_found = begun["not_found"] if "not_found" in begun else not_found(order, labels, host_names)
    ended = [*found.processes, *found.containers]
    moments = [moment for item in ended for _, moment in item["signals"]]
    deaths = [item["died_at"] for item in ended if item["died_at"] is not None]
    found.first_signal_at = min(map(datetime.fromisoformat, moments), default=None)
    found.last_death_at = max(map(datetime.fromisoformat, deaths), default=None)
    return found


def findings(
    hunt: Hunt,
    ends: Iterable[ContainerEnd],
    spared_containers: Iterable[tuple[Container, Verdict]],
    problem: str | None,
    pool: Quarries,
    at: ToDbClock,
    start_of: Callable[[Process], datetime],
    host_names: Collection[str],
) -> Findings:
    """Put together what a hunt and its container passes saw."""
    result = Findings(problem=problem)
    signalled: list[datetime] = []
    deaths: list[datetime] = []
    for identity, quarry in hunt.quarries.items():
        verdict = hunt.verdicts[identity]
        result.processes.append(_process(quarry, verdict, pool, at, start_of(quarry.process)))
        signalled += [moment for _, moment in quarry.signals]
        deaths += [quarry.died_at] if quarry.died_at is not None else []
    result_ends = list(ends)
    for end in result_ends:
        result.containers.append(_container(end, at))
        signalled += [moment for _, moment in end.signals]
        deaths += [end.died_at] if end.died_at is not None else []
    for process, verdict in hunt.spared.values():
        if process.role is not Role.SUPERVISOR:  # Airflow's own, which nobody expects to die
            result.spared.append({"pid": process.pid, "command": command(process), **_why(verdict)})
    for container, verdict in spared_containers:
        result.spared.append({"container": shown(container.name), **_why(verdict)})
    seen = [q.process.label for q in hunt.quarries.values()]
    seen += [end.container.label for end in result_ends]
    result.not_found = not_found(hunt.order, [label for label in seen if label], host_names)
    result.first_signal_at = at(min(signalled)) if signalled else None
    result.last_death_at = at(max(deaths)) if deaths else None
    return result


def _identity(item: Mapping[str, Any]) -> Identity:
    return Identity(int(item["pid"]), int(item["start"]))


def not_found(order: StopOrder, seen: Sequence[Label], host_names: Collection[str]) -> list[str]:
    """The tasks that ran on this host by Airflow's word, and of which nothing was found.

    They may have ended by themselves; or nothing ties their processes to them any more.
    """
    tasks = {label.task_id for label in seen} | {label.ti_id for label in seen}
    return [
        shown(row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]")
        for row in order.targets
        if row.state == "running"
        and row.hostname in host_names
        and row.task_id not in tasks
        and (row.ti_id is None or row.ti_id not in tasks)
    ]


def command(process: Process) -> str:
    """A command line as people may read it: one line, escaped, cut."""
    return shown(" ".join(process.argv) or "?")


def _why(verdict: Verdict) -> dict[str, Any]:
    return {"why": shown(verdict.reason), "evidence": [shown(word) for word in verdict.evidence]}


def signals_at(signals: list[tuple[str, datetime]], at: ToDbClock) -> list[list[str]]:
    """Signals as a report holds them: names and moments on the database's clock."""
    return [[name, at(moment).isoformat()] for name, moment in signals]


def _process(
    quarry: Quarry, verdict: Verdict, pool: Quarries, at: ToDbClock, started_at: datetime
) -> dict[str, Any]:
    facts = {
        **process_facts(quarry.process, verdict, started_at),
        "signals": signals_at(quarry.signals, at),
        "died_at": at(quarry.died_at).isoformat() if quarry.died_at is not None else None,
    }
    if not quarry.alive and not quarry.signals:
        facts["noticed"] = NOT_SIGNALLED
    if quarry.alive:
        state = pool.state(quarry)
        words = {"D": "in uninterruptible sleep (state D)", "t": "held by a debugger (state t)"}
        facts["alive"] = quarry.refused or words.get(state, f"still there in state {state}")
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
    if process.label is not None:
        named = process.label.facts().items()
        facts["task"] = {name: shown(value) for name, value in named if name != "database"}
    return facts


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
    }


def is_superseded(hunt: Hunt) -> bool:
    """True if all that the order stopped was cleared (or marked otherwise) since."""
    targets = hunt.order.targets
    # a deleted one is released from the beginning
    released = (target.released_at is not None for target in targets)
    return bool(targets) and not hunt.order.deleted and all(released)


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
        milliseconds=round(took / timedelta(milliseconds=1)) if took else "-",
        by=order.asked_by.get("session_user_name"),
    )

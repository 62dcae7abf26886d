"""One order under way on this host: all that the stages found out about it so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from dagstop.evidence.clock import Clock
from dagstop.evidence.site import Site
from dagstop.host.containers import Container
from dagstop.kill.container_hunt import Found, Quest
from dagstop.kill.containers import ContainerEnd
from dagstop.kill.endings import Sent, now, spared_reason
from dagstop.kill.hunt import Hunt
from dagstop.kill.journal import SignalJournal
from dagstop.model import Process, Role, StopOrder, Verdict
from dagstop.report.findings import Findings, ToDbClock, container_facts, process_facts, signals_at
from dagstop.report.task_logs import TaskLogs


class Notes:
    """Writes down who is about to be signalled, as a report would put it; takes hold of the log it writes."""

    def __init__(self, begun: SignalJournal, clock: Clock, task_logs: TaskLogs) -> None:
        self._begun = begun
        self._clock = clock
        self._task_logs = task_logs

    def process(self, order: StopOrder, process: Process, verdict: Verdict, sent: list[Sent]) -> None:
        facts = process_facts(process, verdict, self._clock.started_at(process))
        signals = signals_at(sent, self._clock.to_db)
        self._begun.note(order.id or 0, {**facts, "signals": signals, "died_at": None})
        if process.role is Role.RUNNER:
            self._task_logs.keep(order, process)

    def container(self, order_id: int, container: Container, verdict: Verdict, name: str) -> None:
        signals = signals_at([(name, now())], self._clock.to_db)
        facts = container_facts(container, verdict)
        self._begun.note(order_id, {**facts, "signals": signals, "died_at": None})


@dataclass(slots=True)
class Work:
    """One order under way: its processes' hunt, and how far its containers are."""

    hunt: Hunt
    asked_engine: bool = False  # a pass over the engines is under way
    containers_clean: bool = False  # the last pass, begun after the last process died, found none
    ends: dict[str, ContainerEnd] = field(default_factory=dict)
    spared: dict[str, tuple[Container, Verdict]] = field(default_factory=dict)
    let_live: dict[str, list[Sent]] = field(default_factory=dict)  # what those got that were let live then
    site: Site | None = None  # as they were at the last look
    problem: str | None = None
    trouble: str | None = None  # an unexpected error since the last look: that look cannot be the last
    said: str | None = None  # the one that is in the log already
    refreshed: float = field(default_factory=time.monotonic)
    next_look: float = 0.0
    next_glance: float = float("inf")  # its last process died: did it leave something behind?
    told: bool = False  # its first signals are on the way to the database
    quiet: bool = False  # others closed it before this listener was there: only what lives here is news
    earlier: Findings | None = None  # what an earlier listener did, or this one before a late starter

    def known(self) -> tuple[str, ...]:
        """Containers that were signalled and neither seen dead nor given up."""
        ends = [i for i, end in self.ends.items() if end.problem is not None and end.died_at is None]
        before = self.earlier.containers if self.earlier is not None else []
        return (*ends, *(item["id"] for item in before if item["died_at"] is None and "alive" not in item))

    def named(self) -> tuple[str, ...]:
        """All containers that its report names, dead or alive."""
        before = self.earlier.containers if self.earlier is not None else []
        return (*self.ends, *(item["id"] for item in before))

    def is_gone(self, container: str) -> bool:
        """True if a container of the order, by its name or id, was seen dead."""
        dead = [
            (end.container.id, end.container.name) for end in self.ends.values() if end.died_at is not None
        ]
        return any(
            container == name or (len(container) >= 12 and ident.startswith(container))
            for ident, name in dead
        )

    def quest(self) -> Quest:
        """What a pass over the engines is to look for."""
        return Quest(
            self.hunt.order, self.known(), self.named(), lambda: self.hunt.order.hands_off, self.quiet
        )

    def take(self, found: Found, to_db: ToDbClock) -> None:
        """What a pass over the engines found for the order."""
        for end in found.ends:
            if end.let_live is not None:
                self.let_live[end.container.id] = end.signals
                continue
            if (before := self.ends.get(end.container.id)) is not None:
                end.signals[:0] = before.signals  # the engine died amid it
            self.ends[end.container.id] = end
        for ident, moment in found.gone.items():
            if (gone := self.ends.get(ident)) is not None:
                gone.died_at, gone.noticed = moment, "gone when the engine was back"
            if self.earlier is not None:
                self.earlier.see_container_gone(ident, to_db(moment))
        self.spared = {}
        for container, verdict in found.spared:
            reason = spared_reason(verdict.reason, self.let_live.get(container.id))
            self.spared[container.id] = (container, replace(verdict, reason=reason))
        for ident in self.spared:
            if ident in self.ends and self.ends[ident].died_at is None:
                del self.ends[ident]  # its sparing says it

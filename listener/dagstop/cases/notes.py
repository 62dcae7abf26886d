"""What is written down on this host before each first signal: in the journal, and whose log is told of it."""

from __future__ import annotations

from dagstop.evidence.clock import Clock
from dagstop.host.containers import Container
from dagstop.kill.endings import Sent, now
from dagstop.kill.journal import SignalJournal
from dagstop.model import Process, Role, StopOrder, Verdict
from dagstop.report.findings import container_facts, process_facts, signals_at
from dagstop.report.task_logs import TaskLogs


class Notes:
    """Writes down who is about to be signalled, as a report would put it; takes hold of the log it writes."""

    def __init__(self, journal: SignalJournal, clock: Clock) -> None:
        self.journal = journal
        self.task_logs = TaskLogs()
        self._clock = clock

    def process(self, order: StopOrder, process: Process, verdict: Verdict, sent: list[Sent]) -> None:
        facts = process_facts(process, verdict, self._clock.started_at(process))
        signals = signals_at(sent, self._clock.to_db)
        self.journal.note(order.id or 0, {**facts, "signals": signals, "died_at": None})
        if process.role is Role.RUNNER:
            self.task_logs.keep(order, process)

    def container(self, order_id: int, container: Container, verdict: Verdict, name: str) -> None:
        """The same for a container; called by the thread that ends it."""
        signals = signals_at([(name, now())], self._clock.to_db)
        facts = container_facts(container, verdict)
        self.journal.note(order_id, {**facts, "signals": signals, "died_at": None})

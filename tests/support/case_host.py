"""A host on which a case is carried out without processes, /proc or a clock: the test moves its time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dagstop.cases.actions import Action, EngineAway, Hold, Journal, Release, Report, Resume, Signal
from dagstop.cases.case import Case, Seen, View
from dagstop.evidence.index import Index
from dagstop.evidence.verdicts import of_processes
from dagstop.kill.container_query import ContainerAnswer, ContainerQuery
from dagstop.kill.endings import Ending
from dagstop.model import Decision, Identity, Process, StopOrder
from tests.support.fake_proc import at, order, site

START = 1000.0


@dataclass
class CaseHost:
    """Does what cases ask for, and shows them what came of it."""

    seconds: float = START
    engine: bool = False  # is one there?
    endings: dict[Identity, Ending] = field(default_factory=dict)
    sent: list[tuple[int, str, float]] = field(default_factory=list)  # pid, signal, seconds since the start
    journal: list[tuple[int, list[str]]] = field(default_factory=list)  # pid, signals; before they are sent
    reports: list[bool] = field(default_factory=list)  # True: the last one
    warnings: list[str] = field(default_factory=list)
    masked: frozenset[int] = frozenset()  # pids that may not be signalled
    brief: frozenset[int] = frozenset()  # pids of what is there when it is read, and gone when it is judged

    @property
    def clock(self) -> datetime:
        return at(self.seconds - START)

    def case(self, asked: StopOrder | None = None, grace: float = 10.0, *, dry_run: bool = False) -> Case:
        return Case(asked or order(), grace, self.seconds, dry_run=dry_run)

    def look(self, case: Case, *processes: Process, everything: bool = True) -> None:
        """One round: escalate, look, judge, and what the case wants to report then."""
        case.begin_round(self.seconds)
        self.do(case.escalate(self.seconds))
        here = [p for p in processes if p.identity not in self.endings or self.endings[p.identity].alive]
        judged = of_processes(case.order, Index(here, lambda p: p.label), lambda _: at(-30), site())
        seen = tuple(
            Seen(process, verdict, None if verdict.decision is Decision.SPARE else self._taken(process))
            for process, verdict in judged
        )
        self.do(case.look(View(seen, site(), self.clock, self.seconds if everything else None), self.seconds))
        case.plan(self.seconds, closely=everything)

    def ask(self, case: Case) -> ContainerQuery | None:
        return case.ask(any_engine=self.engine)

    def answer(self, case: Case, **found: object) -> None:
        self.do(case.answer(ContainerAnswer(case.id, **found), lambda moment: moment))  # type: ignore[arg-type]

    def report(self, case: Case) -> None:
        self.do(case.report(self.seconds))

    def die(self, process: Process, *cases: Case) -> None:
        """It ends, and the cases are told."""
        ending = self.endings[process.identity]
        ending.died_at, ending.died = self.clock, self.seconds
        for case in cases:
            case.died({process.identity})

    def do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Signal(ending, hard, entry):
                    self._stop(ending, hard, None if entry is None else entry.process)
                case Hold(ending):
                    ending.holders += 1
                case Release(ending):
                    ending.holders -= 1
                case Resume(ending, sent):
                    ending.signals = list(sent)
                    age = (self.clock - sent[0][1]) / timedelta(seconds=1)
                    ending.first_signal = self.seconds - age
                case Journal(ending, entry):
                    self.journal.append((entry.process.pid, [name for name, _ in ending.signals]))
                case EngineAway(why):
                    self.warnings.append(why)
                case Report(final):
                    self.reports.append(final)

    def _taken(self, process: Process) -> Ending | None:
        return None if process.pid in self.brief else self._ending(process)

    def _ending(self, process: Process) -> Ending:
        return self.endings.setdefault(process.identity, Ending(process, None))

    def _stop(self, ending: Ending, hard: bool, noted: Process | None) -> None:
        if (ending.killed is not None) if hard else bool(ending.signals):
            return
        name = "SIGKILL" if hard else "SIGTERM"
        if noted is not None:
            self.journal.append((noted.pid, [name]))
        ending.first_signal = ending.first_signal or self.seconds
        ending.first_tick = ending.first_tick or int(self.seconds * 100)
        ending.killed = self.seconds if hard else None
        if ending.process.pid in self.masked:
            ending.refused = "EPERM"
            return
        ending.signals.append((name, self.clock))
        self.sent.append((ending.process.pid, name, self.seconds - START))

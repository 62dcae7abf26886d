"""One order under way on this host: everything known of it, its phase, and what is to be done next.

A case reads no clock, no /proc and no engine, and sends nothing: it is given the time (monotonic seconds)
and what was seen, and gives back actions. An `Ending` in it is read only: what it says of signals and of
death comes from the host.

    look      what the host shows of the order      -> whom to signal
    escalate  the time                              -> whom to SIGKILL
    died      who was seen dead
    ask       is an engine there?                   -> what to ask the engines
    answer    what the engines said                 -> what that ends
    report    the time                              -> what to report; phase DONE with the last report
"""

from __future__ import annotations

import os
from collections.abc import Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from dagstop.cases.actions import Action, EngineAway, Entry, Hold, Journal, Release, Report, Resume, Signal
from dagstop.evidence.containers import watches
from dagstop.evidence.site import Site
from dagstop.host.containers import Container
from dagstop.kill.container_query import ContainerAnswer, ContainerQuery
from dagstop.kill.containers import ContainerEnd
from dagstop.kill.endings import Ending, Sent, spared_reason
from dagstop.model import Decision, Identity, Label, Process, Role, StopOrder, Verdict
from dagstop.report.findings import CaseFacts, Findings, ToDbClock

LOOK_AGAIN = 0.25
"""Seconds between two looks while something of the order is still alive."""
CALM = 0.05
"""Seconds after the last death until the look that may be the last: what a dying process forked is
not to be recognised before its exec is through."""
GIVE_UP = 20.0
"""Seconds after SIGKILL until a process that is still there is reported unkillable."""
AGAIN = 1.0
"""Seconds until an order that failed is tried again."""
NEVER = float("inf")


class Phase(Enum):
    """How far a case is. Only a look at everything leads to CLEAR; a death leads back."""

    STOPPING = "something of it lives or is given time, as far as anyone knows"
    NOTHING_NEW = "the last look found nothing left, but was at new processes only"
    CLEAR = "a look at everything found nothing left, or only what cannot be killed"
    LAST_QUERY = "the engines are asked after that, and nothing has contradicted it since"
    DONE = "reported with its outcome"


class Seen(NamedTuple):
    """One process that has to do with the order, as it was judged a moment ago."""

    process: Process
    verdict: Verdict
    ending: Ending | None  # None: it is dead by now, or is not to die


@dataclass(frozen=True, slots=True)
class View:
    """What one look at the host shows of one order."""

    seen: tuple[Seen, ...]
    site: Site
    clock: datetime  # the host's, when it was put together
    began_at: float | None  # when a look at everything began, monotonic seconds; None: new processes only


@dataclass(slots=True)
class Case:
    """One order on this host. Times without a word are monotonic seconds."""

    order: StopOrder
    grace: float  # seconds between SIGTERM and SIGKILL
    opened_at: float
    dry_run: bool
    settled_at: float = field(init=False)  # when a runner has had its time to report its own failure
    phase: Phase = Phase.STOPPING
    # its processes
    endings: dict[Identity, Ending] = field(default_factory=dict)
    verdicts: dict[Identity, Verdict] = field(default_factory=dict)
    spared: dict[Identity, tuple[Process, Verdict]] = field(default_factory=dict)
    seen: set[Label] = field(default_factory=set)  # of the run's processes, dead ones and supervisors too
    # signals of a listener before this one, or before it was spared
    sent_before: dict[Identity, list[Sent]] = field(default_factory=dict)
    first_signal: float | None = None
    looked_at: float = 0.0  # when the last look at everything began
    site: Site | None = None  # as it was at the last look
    # its containers
    query: ContainerQuery | None = None  # what the engines were asked and have not answered yet
    ends: dict[str, ContainerEnd] = field(default_factory=dict)
    spared_containers: dict[str, tuple[Container, Verdict]] = field(default_factory=dict)
    let_live: dict[str, list[Sent]] = field(default_factory=dict)  # what those got that were let live then
    problem: str | None = None  # why an engine did not answer the last time
    # its reports
    quiet: bool = False  # others closed it before this listener was there: only what lives here is news
    earlier: Findings | None = None  # what an earlier listener did, or this one before a late starter
    told_at: float | None = None  # when its first signals were reported, in case this listener is cut off
    trouble: str | None = None  # an unexpected error since the last look: that look cannot be the last
    said: str | None = None  # the one that is in the log already
    # when it is due
    read_at: float = field(init=False)  # when its row was read last
    next_look: float = 0.0
    next_glance: float = NEVER  # at new processes only: its last process died, did it leave something?

    def __post_init__(self) -> None:
        self.read_at = self.opened_at
        age = (self.order.db_now - self.order.created_at).total_seconds()
        self.settled_at = self.opened_at + self.order.settle_seconds - max(0.0, age)

    @property
    def id(self) -> int:
        return self.order.id or 0

    @property
    def due_at(self) -> float:
        """When it is to be looked after if nothing happens before."""
        return min(self.next_look, self.next_glance)

    def alive(self) -> list[Ending]:
        return [ending for ending in self.endings.values() if ending.alive]

    # --- what happens to it ---

    def look(self, view: View, now: float) -> list[Action]:
        """Signal what is to die by its verdict, the first time it is seen."""
        self.site = view.site
        self.spared = {}
        actions: list[Action] = []
        left = waits = False
        ordered = sorted(view.seen, key=lambda one: _order_of_signals(one.process))
        cleaning = self._cleaning_up([one.process for one in ordered])
        parents = {one.process.ppid for one in ordered if self._lives(one.process)}
        for process, verdict, ending in ordered:
            self._note_seen(process, verdict, view.site)
            if verdict.decision is Decision.SPARE:
                actions += self._spare(process, verdict)
                unsure = process.above_ends or _unlisted(process, view.site)
                if unsure and process.state != "Z" and now < self.opened_at + GIVE_UP:
                    waits = True  # soon it can be said whose it is
            elif ending is not None and ending.alive:
                left = True
                passes_on = _is_sudo(process) and process.pid in parents
                until = self._waits_until(process, verdict, cleaning.get(process.pid), passes_on, now)
                if until is not None and now < until:
                    waits = True
                else:
                    actions += self._stop(process, verdict, ending, passes_on, view.clock, now)
            elif ending is None and process.state not in "ZXx" and not self.dry_run:
                waits = True  # it ended since it was read: what it forked by then may not have been read
        self._looked(view, left=left, waits=waits, now=now)
        return actions

    def escalate(self, now: float) -> list[Action]:
        """SIGKILL to what outlived its grace."""
        due = ((ending, self._kill_at(ending)) for ending in self.alive())
        late: list[Action] = [Signal(ending, hard=True) for ending, at in due if at is not None and now >= at]
        return late + self._end_watchers()

    def died(self, dead: Set[Identity]) -> None:
        """Those processes, of this order or another, were seen dead."""
        if not dead.isdisjoint(self.endings) and not self.alive():
            self.next_glance = 0.0
            self.phase = Phase.STOPPING

    def ask(self, *, any_engine: bool) -> ContainerQuery | None:
        """What the engines are to be asked, if anything.

        Only a query that begins when no process is left, or none that can be killed, can be the last one.
        """
        if self.query is not None or self.phase is Phase.LAST_QUERY:
            return None
        if self.phase is Phase.CLEAR:
            self.phase = Phase.LAST_QUERY
        if any_engine or self.known():
            self.query = ContainerQuery(self.order, self.known(), self.named(), self.quiet)
        return self.query

    def answer(self, answer: ContainerAnswer, to_db: ToDbClock) -> list[Action]:
        """What the engines said."""
        self.query = None
        actions: list[Action] = []
        if answer.problem is not None and self.problem is None:
            actions.append(EngineAway(answer.problem))
        if (answer.problem is None) != (self.problem is None):
            actions.append(Report(final=False))
        self.problem = answer.problem
        self._take(answer, to_db)
        actions += self._end_watchers()
        living = any(end.died_at is None and end.let_live is None for end in answer.ends)
        if answer.problem is not None or (answer.ends and not living and not self.dry_run):
            self._back()
        if self.phase is not Phase.STOPPING and not self.alive():
            self.next_look = 0.0  # else with the next look: the engines are not asked without a pause
        return actions

    def report(self, now: float) -> list[Action]:
        """After a look: the last report, if this was the last look; its first signals, once."""
        if self._finished(now):
            self.phase = Phase.DONE
            return [Report(final=True)]
        if self.first_signal is not None and self.told_at is None:
            self.told_at = now
            return [Report(final=False)]
        return []

    def begin_round(self, now: float) -> None:
        """It is being looked after; whatever fails from here on, it is not due again without a pause."""
        self.next_look = self.next_look if self.next_look > now else now + AGAIN
        self.next_glance = NEVER
        self.trouble = None

    def failed(self, why: str, now: float) -> None:
        """An error that nobody expects: it is tried again, and no look before can be the last."""
        self.trouble = why
        self.phase = Phase.STOPPING
        self.next_look = min(self.next_look, now + AGAIN)

    # --- what it comes to ---

    def known(self) -> tuple[str, ...]:
        """Containers that were signalled and neither seen dead nor given up."""
        ends = [i for i, end in self.ends.items() if end.problem is not None and end.died_at is None]
        before = self.earlier.containers if self.earlier is not None else []
        return (*ends, *(item["id"] for item in before if item["died_at"] is None and "alive" not in item))

    def named(self) -> tuple[str, ...]:
        """All containers that its report names, dead or alive."""
        before = self.earlier.containers if self.earlier is not None else []
        return (*self.ends, *(item["id"] for item in before))

    def facts(self) -> CaseFacts:
        """What a report is made of."""
        return CaseFacts(
            self.order,
            [(ending, self.verdicts[identity]) for identity, ending in self.endings.items()],
            list(self.ends.values()),
            list(self.spared.values()),
            list(self.spared_containers.values()),
            self.seen,
            self.trouble or self.problem,
        )

    # --- its processes ---

    def _spare(self, process: Process, verdict: Verdict) -> list[Action]:
        actions: list[Action] = []
        ending = self.endings.get(process.identity)
        if ending is not None and ending.alive:  # a row or setting read since speaks for it
            self.sent_before[process.identity] = ending.signals
            actions.append(Release(self.endings.pop(process.identity)))
        if process.state != "Z":
            reason = spared_reason(verdict.reason, self.sent_before.get(process.identity))
            self.spared[process.identity] = (process, replace(verdict, reason=reason))
        return actions

    def _stop(
        self,
        process: Process,
        verdict: Verdict,
        ending: Ending,
        passes_on: bool,
        clock: datetime,
        now: float,
    ) -> list[Action]:
        actions: list[Action] = []
        first = process.identity not in self.endings
        before = self.sent_before.get(process.identity)
        signalled = bool(ending.signals)
        if first:
            actions.append(Hold(ending))
            if before and not signalled:  # a second SIGTERM would end a clean-up
                actions.append(Resume(ending, tuple(before)))
                signalled = True
            if signalled:
                actions.append(Journal(ending, Entry(process, verdict)))
        self.endings[process.identity] = ending
        self.verdicts[process.identity] = verdict
        if ending.refused is None:
            late = self.first_signal is not None and now >= self.first_signal + self.grace
            hard = verdict.at_once or late or (passes_on and not signalled)
            actions.append(Signal(ending, hard, None if signalled else Entry(process, verdict)))
        if self.first_signal is None:
            self.first_signal = self._first_signal(ending, before, clock, now)
        return actions

    def _first_signal(
        self, ending: Ending, before: list[Sent] | None, clock: datetime, now: float
    ) -> float | None:
        """When this one got its first signal, or gets it now; another order may have begun with it."""
        if ending.first_signal is None and before:
            at = now - max(0.0, (clock - min(moment for _, moment in before)).total_seconds())
        elif ending.first_signal is None:
            at = now
        else:
            at = ending.first_signal
        return at if before is not None else max(at, self.opened_at)

    def _waits_until(
        self,
        process: Process,
        verdict: Verdict,
        cleaning_until: float | None,
        passes_on: bool,
        now: float,
    ) -> float | None:
        """Until when it is given time before its first signal, if it is.

        The runner of a task that may have failed by itself gets the settling time; what a runner or
        anyone else starts while it cleans up (on_kill, failure callbacks, a trap of bash) gets the grace
        of the one that started it. What passes a signal on waits for its child, which would get two, and
        the second would cut its clean-up off, or end it though it is spared.
        """
        if process.identity in self.endings:
            return None
        if verdict.decision is Decision.SETTLE:
            return self.settled_at
        if passes_on:
            return (self.first_signal or self.opened_at) + self.grace
        if self.first_signal is not None and self._its_runner_lives(process):
            return self.first_signal + self.grace
        return cleaning_until

    def _cleaning_up(self, candidates: list[Process]) -> dict[int, float]:
        """Candidates started by one that is in its grace, or below it: by pid, until when it has that.

        One that was forked in the same tick (10 ms) as the signal counts too: a handler acts at once.
        What was read before the first signal is not part of a clean-up.
        """
        living = {ending.process.pid: ending for ending in self.alive() if ending.killed is None}
        if not living:
            return {}
        parents = {process.pid: process.ppid for process in candidates}
        found: dict[int, float] = {}
        for process in candidates:
            pid, passed = process.ppid, set[int]()
            while pid in parents and pid not in passed:
                passed.add(pid)
                starter = living.get(pid)
                if (
                    starter is not None
                    and starter.first_signal is not None
                    and starter.first_tick is not None
                ):
                    if process.identity.start >= starter.first_tick:
                        found[process.pid] = starter.first_signal + self.grace
                        break
                pid = parents[pid]
        return found

    def _its_runner_lives(self, process: Process) -> bool:
        """True for what lives in the session of its own runner, while that one does.

        Not by the session alone: runners that one executor forked may share theirs. In a dry run a
        process counts as dead from the signal on that it would have got.
        """
        if process.role is Role.RUNNER or not process.with_runner or self.dry_run:
            return False
        return any(
            ending.process.role is Role.RUNNER
            and ending.process.pid in process.line
            and not _is_sudo(ending.process)
            for ending in self.alive()
        )

    def _lives(self, process: Process) -> bool:
        known = self.endings.get(process.identity)
        return process.state != "Z" and (known is None or known.alive)

    def _note_seen(self, process: Process, verdict: Verdict, site: Site) -> None:
        label = process.label
        if label is None or (process.role is Role.SUPERVISOR and not site.may_be_ours(label)):
            return
        if verdict.decision is not Decision.SPARE or process.role is Role.SUPERVISOR:
            self.seen.add(label)

    def _kill_at(self, ending: Ending) -> float | None:
        """When it is to be killed: what got its first signal late has no grace of its own."""
        if ending.first_signal is None or ending.killed is not None:
            return None
        return min(ending.first_signal, self.first_signal or ending.first_signal) + self.grace

    def _end_watchers(self) -> list[Action]:
        """No grace for `docker stats` and the like (some outlive SIGTERM) once what they watch is gone."""
        actions: list[Action] = []
        for ending in self.alive() if self.ends else ():
            watched = watches(ending.process)
            if watched and all(map(self._is_gone, watched)):
                actions.append(Signal(ending, hard=True))
        return actions

    # --- its containers ---

    def _is_gone(self, container: str) -> bool:
        """True if a container of the order, by its name or id, was seen dead."""
        dead = [
            (end.container.id, end.container.name) for end in self.ends.values() if end.died_at is not None
        ]
        return any(
            container == name or (len(container) >= 12 and ident.startswith(container))
            for ident, name in dead
        )

    def _take(self, answer: ContainerAnswer, to_db: ToDbClock) -> None:
        for end in answer.ends:
            if end.let_live is not None:
                self.let_live[end.container.id] = end.signals
                continue
            if (before := self.ends.get(end.container.id)) is not None:
                end.signals[:0] = before.signals  # the engine died before it had ended
            self.ends[end.container.id] = end
        for ident, moment in answer.gone.items():
            if (gone := self.ends.get(ident)) is not None:
                gone.died_at, gone.noticed = moment, "gone when the engine was back"
            if self.earlier is not None:
                self.earlier.see_container_gone(ident, to_db(moment))
        self.spared_containers = {}
        for container, verdict in answer.spared:
            reason = spared_reason(verdict.reason, self.let_live.get(container.id))
            self.spared_containers[container.id] = (container, replace(verdict, reason=reason))
        for ident in self.spared_containers:
            if ident in self.ends and self.ends[ident].died_at is None:
                del self.ends[ident]  # its sparing says it

    # --- its phase and its time ---

    def _looked(self, view: View, *, left: bool, waits: bool, now: float) -> None:
        if view.began_at is None:
            self.phase = Phase.STOPPING if left or waits else Phase.NOTHING_NEW
            return
        self.looked_at = view.began_at
        if waits or (left and not self._beyond_help(now)):
            self.phase = Phase.STOPPING
        elif self.phase is not Phase.LAST_QUERY:
            self.phase = Phase.CLEAR

    def plan(self, now: float, *, closely: bool) -> None:
        """After a look: when the next one is due if nobody dies before."""
        self.next_glance = NEVER
        soonest = NEVER if closely else self.next_look
        self.next_look = min(soonest, self.next_at(now))

    def next_at(self, now: float) -> float:
        if self.phase is not Phase.STOPPING and not self.alive() and now < self._calm_at():
            return self._calm_at()
        due = [at for ending in self.alive() if (at := self._kill_at(ending)) is not None]
        return min([now + LOOK_AGAIN, *due])

    def _finished(self, now: float) -> bool:
        """True once nothing is left, or only what cannot be killed, and the engines have said so too."""
        if self.trouble is not None or self.query is not None or self.phase is not Phase.LAST_QUERY:
            return False
        return self._beyond_help(now) if self.alive() else self.looked_at >= self._calm_at()

    def may_be_last(self, now: float) -> bool:
        """True if a look at everything now may show that nothing is left, or nothing that can be killed.

        Not while an engine is away: the last one comes after its answer.
        """
        away = self.problem is not None and self.query is not None
        return not away and (self.phase is not Phase.STOPPING or self._beyond_help(now))

    def _beyond_help(self, now: float) -> bool:
        """True if something lives, and all that could be done about it was done."""
        alive = self.alive()
        return bool(alive) and all(
            ending.refused is not None or (ending.killed is not None and now >= ending.killed + GIVE_UP)
            for ending in alive
        )

    def _back(self) -> None:
        """What was to be the last query is not: the engines are asked again."""
        if self.phase is Phase.LAST_QUERY:
            self.phase = Phase.CLEAR

    def _calm_at(self) -> float:
        deaths = [ending.died for ending in self.endings.values() if ending.died is not None]
        return max(deaths) + CALM if deaths else 0.0


def _unlisted(process: Process, site: Site) -> bool:
    """True while its container's engine has not said what that is."""
    place = site.places.get(process.place) if process.place is not None else None
    return place is not None and place.unlisted


def _order_of_signals(process: Process) -> tuple[bool, bool, int]:
    """The runner first, then session leaders, then the others, parents before children.

    A bash whose last child dies first ends well, and Airflow would write `success` over `failed`.
    """
    leads = process.sid == process.pid
    return process.role is not Role.RUNNER, not leads, process.identity.start


def _is_sudo(process: Process) -> bool:
    """True for what stands before the real runner of a task with run_as_user, whose on_kill it is not.

    It passes a SIGTERM on to its child, and ends with it.
    """
    return bool(process.argv) and os.path.basename(process.argv[0]) == "sudo"

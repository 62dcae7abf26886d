"""One order's processes on this host, from the first look to the last: TERM, grace, KILL, look again.

A hunt never blocks. `consider` is given every round's verdicts, `escalate` the passing of time;
`finished` is true only when a look that came after the last death found nothing left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from dagstop.evidence.site import Site
from dagstop.kill.endings import Ending, Endings, Sent, now, spared_reason
from dagstop.model import Decision, Identity, Label, Process, Role, StopOrder, Verdict

LOOK_AGAIN = 0.25
"""Seconds between two looks while something of the order is still alive."""
CALM = 0.05
"""Seconds after the last death until the look that may be the last: what a dying process forked is
not to be recognised before its exec is through."""
GIVE_UP = 20.0
"""Seconds after SIGKILL until a process that is still there is reported unkillable."""


def _no_note(process: Process, verdict: Verdict, sent: list[Sent]) -> None:
    """Nobody wants to know."""


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


@dataclass(slots=True)
class Hunt:
    """All that one order needs to know between two looks."""

    order: StopOrder
    grace: float  # seconds between SIGTERM and SIGKILL
    started: float = field(default_factory=time.monotonic)
    endings: dict[Identity, Ending] = field(default_factory=dict)
    verdicts: dict[Identity, Verdict] = field(default_factory=dict)
    spared: dict[Identity, tuple[Process, Verdict]] = field(default_factory=dict)
    seen: set[Label] = field(default_factory=set)  # of the run's processes, dead ones and supervisors too
    earlier: dict[Identity, list[Sent]] = field(
        default_factory=dict
    )  # signals of a listener before this one, or before it was spared
    note: Callable[[Process, Verdict, list[Sent]], None] = _no_note  # called before each first signal
    first_signal: float | None = None  # monotonic seconds
    waiting_until: float | None = None  # something settles, a runner is cleaning up, or what is above ends
    clean: bool = False  # the last look found nothing that is still to die
    looked: float = 0.0  # when that look began, monotonic seconds; 0: it was no look at everything
    settled: float = 0.0  # when a runner has had its time to report its own failure

    def __post_init__(self) -> None:
        age = (self.order.db_now - self.order.created_at).total_seconds()
        self.settled = self.started + self.order.settle_seconds - max(0.0, age)

    def consider(
        self,
        judged: Iterable[tuple[Process, Verdict]],
        site: Site,
        pool: Endings,
        looked: float,
    ) -> None:
        """Signal what is to die by its verdict, the first time it is seen."""
        self.waiting_until = None
        self.looked = looked
        self.spared = {}
        left = False
        ordered = sorted(judged, key=lambda one: _order_of_signals(one[0]))
        cleaning = self._cleaning_up([process for process, _ in ordered])
        parents = {process.ppid for process, _ in ordered if self._lives(process)}
        for process, verdict in ordered:
            self._note_seen(process, verdict, site)
            if verdict.decision is Decision.SPARE:
                known = self.endings.get(process.identity)
                if known is not None and known.alive:  # a row or setting read since speaks for it
                    self.earlier[process.identity] = known.signals
                    pool.release(self.endings.pop(process.identity))
                if process.state != "Z":
                    reason = spared_reason(verdict.reason, self.earlier.get(process.identity))
                    self.spared[process.identity] = (process, replace(verdict, reason=reason))
                    if process.above_ends and time.monotonic() < self.started + GIVE_UP:
                        self.waiting_until = self.started + GIVE_UP  # soon it can be said whose it is
                continue
            ending = self.endings.get(process.identity) or pool.take(process)
            if ending is None:
                continue
            if not ending.alive:
                continue
            left = True
            passes_on = _is_sudo(process) and process.pid in parents
            if self._may_wait(process, verdict, cleaning.get(process.pid), passes_on=passes_on):
                continue
            if process.identity not in self.endings:
                pool.hold(ending)
                self._first(process, ending, verdict, pool)
            self.endings[process.identity] = ending
            self.verdicts[process.identity] = verdict
            self._signal(ending, pool, at_once=verdict.at_once or (passes_on and not ending.signals))
        self.clean = not left

    def _note_seen(self, process: Process, verdict: Verdict, site: Site) -> None:
        label = process.label
        if label is None or (process.role is Role.SUPERVISOR and not site.may_be_ours(label)):
            return
        if verdict.decision is not Decision.SPARE or process.role is Role.SUPERVISOR:
            self.seen.add(label)

    def escalate(self, pool: Endings) -> None:
        """SIGKILL to what outlived its grace."""
        moment = time.monotonic()
        for ending in self.alive():
            due = self._due(ending)
            if due is not None and moment >= due:
                pool.stop(ending, hard=True)

    def _due(self, ending: Ending) -> float | None:
        """When it is to be killed: what got its first signal late has no grace of its own."""
        if ending.first_signal is None or ending.killed is not None:
            return None
        return min(ending.first_signal, self.first_signal or ending.first_signal) + self.grace

    def alive(self) -> list[Ending]:
        return [ending for ending in self.endings.values() if ending.alive]

    def _lives(self, process: Process) -> bool:
        known = self.endings.get(process.identity)
        return process.state != "Z" and (known is None or known.alive)

    def given_up(self) -> list[Ending]:
        """What lives on although all that could be done was done."""
        moment = time.monotonic()
        return [
            ending
            for ending in self.alive()
            if ending.refused is not None or (ending.killed is not None and moment >= ending.killed + GIVE_UP)
        ]

    @property
    def finished(self) -> bool:
        """True once nothing is left, or only what cannot be killed."""
        if self.waiting_until is not None or self.looked == 0.0:
            return False
        alive = self.alive()
        if not alive:
            return self.clean and self.looked >= self._calm_at()
        return len(self.given_up()) == len(alive)

    def next_at(self) -> float:
        """When (monotonic seconds) to look again if nobody dies before."""
        moment = time.monotonic()
        if self.clean and not self.alive() and moment < self._calm_at():
            return self._calm_at()
        due = [d for ending in self.alive() if (d := self._due(ending)) is not None and d > moment]
        return min([moment + LOOK_AGAIN, *due])

    def _calm_at(self) -> float:
        deaths = [ending.died for ending in self.endings.values() if ending.died is not None]
        return max(deaths) + CALM if deaths else 0.0

    def _first(self, process: Process, ending: Ending, verdict: Verdict, pool: Endings) -> None:
        """Go on where a listener before this one was cut off; a second SIGTERM would end a clean-up."""
        sent = self.earlier.get(process.identity)
        if sent and not ending.signals:
            pool.resume(ending, sent)
        if ending.signals:
            self.note(process, verdict, ending.signals)
        else:
            ending.before_first = lambda name: self.note(process, verdict, [(name, now())])

    def _signal(self, ending: Ending, pool: Endings, *, at_once: bool) -> None:
        late = self.first_signal is not None and time.monotonic() >= self.first_signal + self.grace
        if ending.refused is None:
            pool.stop(ending, hard=at_once or (late and not ending.signals))
        if self.first_signal is None and ending.first_signal is not None:
            # another order may have begun with it: that one's grace is not this order's
            before = ending.identity in self.earlier
            self.first_signal = ending.first_signal if before else max(ending.first_signal, self.started)

    def _may_wait(
        self, process: Process, verdict: Verdict, cleaning_until: float | None, *, passes_on: bool
    ) -> bool:
        """True for what is given time before its first signal.

        The runner of a task that may have failed by itself gets the settling time; what a runner or
        anyone else starts while it cleans up (on_kill, failure callbacks, a trap of bash) gets the grace
        of the one that started it. What passes a signal on waits for its child, which would get two, and
        the second would cut its clean-up off, or end it though it is spared.
        """
        if process.identity in self.endings:
            return False
        moment = time.monotonic()
        until: float | None = None
        if verdict.decision is Decision.SETTLE:
            until = self.settled
        elif passes_on:
            until = (self.first_signal or self.started) + self.grace
        elif self.first_signal is not None and self._its_runner_lives(process):
            until = self.first_signal + self.grace
        else:
            until = cleaning_until
        if until is None or moment >= until:
            return False
        self.waiting_until = max(until, self.waiting_until or until)
        return True

    def _cleaning_up(self, candidates: list[Process]) -> dict[int, float]:
        """Candidates started by one that is in its grace, or below it: by pid, until when it has that.

        One that was forked in the same tick (10 ms) as the signal counts too: a handler acts at once.
        What was read before the first signal does not: it is no part of a clean-up.
        """
        living = {q.process.pid: q for q in self.alive() if q.killed is None}
        if not living:
            return {}
        parents = {process.pid: process.ppid for process in candidates}
        found: dict[int, float] = {}
        for process in candidates:
            pid, seen = process.ppid, set[int]()
            while pid in parents and pid not in seen:
                seen.add(pid)
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

        Not by the session alone: runners that one executor forked may share theirs.
        """
        if process.role is Role.RUNNER or not process.with_runner:
            return False
        return any(
            ending.process.role is Role.RUNNER
            and ending.process.pid in process.line
            and not _is_sudo(ending.process)
            for ending in self.alive()
        )

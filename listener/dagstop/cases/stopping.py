"""All orders under way on this host: shows each case what is seen, and does what it asks for.

The only part that writes the journal, signals processes, asks the engines and sends reports for a case; the
cases decide (case.py). One round: what outlived its grace gets SIGKILL, one look at the host for all that
are due, each is judged and signalled, the engines are asked, what is done is reported.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from functools import partial
from typing import Any

import psycopg2.extras

from dagstop.cases.actions import Action, EngineAway, Entry, Hold, Journal, Release, Report, Resume, Signal
from dagstop.cases.case import LOOK_AGAIN, Case, Seen, View
from dagstop.cases.notes import Notes
from dagstop.config import ListenerConfig
from dagstop.evidence.clock import Clock
from dagstop.evidence.index import Index
from dagstop.evidence.place import Place
from dagstop.evidence.places import Places
from dagstop.evidence.recent_orders import RecentOrders
from dagstop.evidence.sight import unseen
from dagstop.evidence.site import Site, survey, trusted_uids
from dagstop.evidence.verdicts import inside, of_processes
from dagstop.evidence.watch import Watch
from dagstop.feed.notices import News, OrderFeed
from dagstop.host.procfs import ProcFS
from dagstop.kill.container_query import ContainerAnswer, ContainerQueries
from dagstop.kill.endings import Endings, now
from dagstop.logs import event, log, shown
from dagstop.model import Decision, Identity, Process, Role, StopOrder
from dagstop.report.counters import Counters
from dagstop.report.findings import (
    Findings,
    begun_here,
    findings,
    is_superseded,
    resumed,
    spared_process,
    summary,
)
from dagstop.report.sender import ReportSender
from dagstop.report.task_logs import is_supervisor_of, last_line

SOON = 0.02
"""Seconds from an order to the first look at everything: what is dying wants the processor first. Where the
kernel tells, everything is looked at once all that is known is dead."""
GLANCE = 0.002
"""Seconds from the first signals to the search for what is new, likewise; 0 if none was sent."""
RECENT = 1.0
"""Seconds that a listing of the engine's containers may be old for the first pass, never for the last."""
ENGINE_RETRY = 2.0
"""Seconds between two tries of an engine that does not answer."""


class Stopping:
    """All orders under way on this host. Called by the daemon's one thread only."""

    def __init__(
        self,
        config: ListenerConfig,
        proc: ProcFS,
        clock: Clock,
        watch: Watch,
        pool: Endings,
        containers: ContainerQueries,
        feed: OrderFeed,
        sender: ReportSender,
        notes: Notes,
        places: Places,
    ) -> None:
        self._config = config
        self._places = places
        self._proc = proc
        self._clock = clock
        self._watch = watch
        self._pool = pool
        self._containers = containers
        self._feed = feed
        self._sender = sender
        self._notes = notes
        self._cases: dict[int, Case] = {}
        self._ended = RecentOrders(proc, watch)
        self._started = datetime.now(timezone.utc)
        self._site: Site | None = None  # prepared for the orders that are being read
        self.counters = Counters()

    @property
    def _host_names(self) -> frozenset[str]:
        return self._config.host_names | self._places.names()

    @property
    def under_way(self) -> int:
        return len(self._cases)

    def next_at(self) -> float:
        """When (monotonic seconds) `step` is due if nothing happens before."""
        return min((case.due_at for case in self._cases.values()), default=float("inf"))

    def take(self, news: News) -> None:
        """Open a case for each order that is new; bring those under way up to date."""
        if news.orders:
            self._clock.bound(*news.clock_ahead)
        fresh = [order for order in news.orders if self._taken(order)]
        try:
            if fresh:
                self._begin([self._cases[order.id or 0] for order in fresh])
        finally:
            self._feed.expect(len(self._cases))

    def _taken(self, order: StopOrder) -> bool:
        try:
            return self._take_order(order)
        except Exception:
            # it comes back with the next sweep
            log.exception(event("order failed", order=order.id, at="its beginning"))
            return False

    def tick(self, *, complete: bool) -> None:
        """Take up again whose run started something since, forget the notes on what is reported on.

        `complete`: all open orders are known here.
        """
        self._site = None  # others may be here by now
        if again := self._ended.reopen():
            self._feed.refresh(again)
        self.settle(complete=complete)

    def settle(self, *, complete: bool) -> None:
        """Forget the notes on what is reported on; the last time when the listener has ended."""
        self._notes.journal.settle(self._cases.keys() | self._sender.outbox.unsent, complete=complete)

    def step(self) -> None:
        """See who died, escalate, look again where it is time, report what is done."""
        while self._containers.answers:
            answer = self._containers.answers.popleft()
            case = self._cases.get(answer.order_id)
            if case is not None:
                self._guarded(case, self._take_answer, case, answer)
        self._reap()
        self._round()

    def _take_order(self, order: StopOrder) -> bool:
        """True if it is to be begun now; one under way is only brought up to date."""
        assert order.id is not None
        if order.id in self._cases:
            self._cases[order.id].order = order
            self._containers.tell(order)
            return False
        if not self._ended.may_begin(order):
            return False  # its report is still on the way
        case = Case(order, order.grace(self._config.grace), time.monotonic(), dry_run=self._config.dry_run)
        try:
            case.earlier = resumed(order, self._notes.journal.of(order.id), self._host_names)
        except Exception:
            # a report that this release cannot read must not keep the order from being carried out
            log.exception(event("report unreadable", order=order.id))
        if case.earlier is not None:
            for identity, sent in case.earlier.sent().items():
                case.sent_before[identity] = [(name, self._clock.from_db(at)) for name, at in sent]
        elif order.closed_at is not None and order.id not in self._ended:
            case.quiet = self._clock.from_db(order.closed_at) < self._started
        self._cases[order.id] = case
        return True

    def prepare(self) -> None:
        """Orders are being read: look around until they are here, so that no signal waits for that."""
        kin = self._watch.attend()
        self._site, homes = self._survey(), self._watch.at_homes()
        self._containers.attend(kin, self._watch.client_ends())
        self._watch.catch_up(lambda: bool(self._feed.news))
        if self._watch.at_homes() is not homes:
            self._site = None  # another Airflow may be among them

    def _begin(self, cases: list[Case]) -> None:
        """Signal what is known to be the run's; a search for what is new and a look at everything follow."""
        kin = self._watch.attend()
        site = self._site or self._survey()
        self._judge(cases, site, None)
        self._containers.attend(kin, self._watch.client_ends())
        self._ask_engines(cases, site, since=time.monotonic() - RECENT)
        for case in cases:
            self._guarded(case, self._keep_logs, case)
        moment = time.monotonic()
        for case in cases:
            case.next_glance = moment + GLANCE if case.endings else 0.0
            case.next_look = moment + (LOOK_AGAIN if case.endings and self._watch.told else SOON)

    def _keep_logs(self, case: Case) -> None:
        for process, _ in case.spared.values():
            if is_supervisor_of(process, case.order):
                self._notes.task_logs.keep(case.order, process)

    def _look(self, cases: list[Case], *, closely: bool) -> None:
        """`closely`: at every process; otherwise at new ones only, which no order can end with."""
        began_at, self._site = time.monotonic() if closely else None, None
        if closely:
            self._watch.look()
        elif self._watch.told:
            index = self._watch.index()
            self._watch.tick(process.pid for case in cases for process in index.of(case.order))
        else:
            self._watch.tick()
        site = self._survey()
        self._judge(cases, site, began_at)
        for case in cases:
            case.plan(time.monotonic(), closely=closely)
        self._ask_engines(cases, site)

    def _survey(self) -> Site:
        urls = (self._config.database_url, *self._config.airflow_urls)
        homes, places = self._config.airflow_homes, self.look_for_places()
        return survey(homes, urls, self._watch.at_homes(), self._proc, os.getpid(), places)

    def look_for_places(self) -> dict[Identity, Place]:
        """The containers that an Airflow runs in, as the engines listed them last."""
        listed = (one for engine in self._containers.engines for one in engine.listed())
        places = self._places.survey(self._watch.processes, listed)
        if self._places.unlisted:
            self._containers.warm_up()
        return places

    def _judge(self, cases: list[Case], site: Site, began_at: float | None) -> None:
        index = self._watch.index()
        for number, case in enumerate(cases, 1):
            if number % 64 == 0:
                self._reap()  # of thousands, the first are long dead when the last are signalled
            self._guarded(case, self._judge_one, case, index, site, began_at)

    def _judge_one(self, case: Case, index: Index[Process], site: Site, began_at: float | None) -> None:
        judged = list(of_processes(case.order, index, self._clock.started_at, site))
        self._containers.note_clients(process for process, _ in judged)
        seen = tuple(
            Seen(process, verdict, None)
            if verdict.decision is Decision.SPARE
            else Seen(process, verdict, case.endings.get(process.identity) or self._pool.take(process))
            for process, verdict in judged
        )
        self._do(case, case.look(View(seen, site, now(), began_at), time.monotonic()))

    def _reap(self) -> None:
        dead = {ending.identity for ending in self._pool.reap()}
        for identity in dead:
            self._watch.died(identity)
        for case in self._cases.values() if dead else ():
            case.died(dead)

    def _round(self) -> None:
        moment = time.monotonic()
        due = [case for case in self._cases.values() if case.due_at <= moment]
        if not due:
            return
        # where the kernel tells, only the look that may be the last is at everything
        closely = any(
            case.next_look <= moment and (case.may_be_last(moment) or not self._watch.told) for case in due
        )
        for case in due:
            case.begin_round(moment)
            self._guarded(case, self._escalate, case)
        self._reap()
        self._look(due, closely=closely)
        stale = {case.id for case in due if moment - case.read_at > 1.0}
        for identity in stale:
            self._cases[identity].read_at = moment
        if stale:
            self._feed.refresh(stale)
        for case in due:
            self._guarded(case, self._report, case)

    def _guarded(self, case: Case, act: Callable[..., None], *arguments: Any) -> None:
        """One order's trouble must not hold up the others; it is tried again with each look."""
        try:
            act(*arguments)
        except Exception as exc:
            case.failed(f"{type(exc).__name__}: {exc}", time.monotonic())
            if case.said != case.trouble:
                log.exception(event("order failed", order=case.id))
            case.said = case.trouble

    def _escalate(self, case: Case) -> None:
        self._do(case, case.escalate(time.monotonic()))

    def _report(self, case: Case) -> None:
        self._do(case, case.report(time.monotonic()))

    def claim(self) -> None:
        """Tell the watch what the tasks' `docker exec`s run."""
        while self._containers.claims:
            self._watch.claim(*self._containers.claims.popleft())

    def _ask_engines(self, cases: list[Case], site: Site, since: float = float("inf")) -> None:
        self._containers.ties.told(self._watch.client_ends(), self._watch.unread_kin())
        self.claim()
        any_engine = self._containers.any_engine
        asking = [case for case in cases if case.ask(any_engine=any_engine) is not None]
        if not asking:
            return
        queries = [case.query for case in asking if case.query is not None]
        delay = ENGINE_RETRY if all(case.problem for case in asking) else 0.0
        self._containers.ask(queries, site, self._clock.to_db, delay=delay, since=since)

    def _take_answer(self, case: Case, answer: ContainerAnswer) -> None:
        self._do(case, case.answer(answer, self._clock.to_db))

    def _do(self, case: Case, actions: Iterable[Action]) -> None:
        """Each of them, whatever becomes of the others; the first error is the order's trouble."""
        trouble: Exception | None = None
        for action in actions:
            try:
                self._do_one(case, action)
            except Exception as exc:
                trouble = trouble or exc
        if trouble is not None:
            raise trouble

    def _do_one(self, opened: Case, action: Action) -> None:
        match action:
            case Signal(ending, hard, entry):
                before = None if entry is None else partial(self._note, opened.order, entry)
                self._pool.stop(ending, hard=hard, before=before)
            case Hold(ending):
                self._pool.hold(ending)
            case Release(ending):
                self._pool.release(ending)
            case Resume(ending, sent):
                self._pool.resume(ending, sent)
            case Journal(ending, entry):
                self._notes.process(opened.order, entry.process, entry.verdict, ending.signals)
            case EngineAway(why):
                log.warning(event("engine away", order=opened.id, why=why))
            case Report(final):
                self._finish(opened) if final else self._send(opened, None)

    def _note(self, order: StopOrder, entry: Entry, name: str) -> None:
        """Before the first signal."""
        self._notes.process(order, entry.process, entry.verdict, [(name, now())])

    def _finish(self, case: Case) -> None:
        order = case.order
        assert order.id is not None
        result = self._findings(case, final=True)
        self._send(case, result)
        del self._cases[order.id]
        self._containers.forget(order.id)
        said = last_line(order, result, result.outcome(is_superseded(order)), self._config.host_name)
        self._notes.task_logs.tell(order, None if self._config.dry_run else said)
        for ending in case.endings.values():
            self._pool.release(ending)
        # what began after the rows were read, or was still to become a runner, is to be judged again
        judged = {
            process.identity
            for process, _ in case.spared.values()
            if process.role is not Role.SUPERVISOR and self._clock.started_at(process) <= order.db_now
        }
        self._ended.remember(order, {*case.endings, *judged})

    def unseen(self) -> list[str]:
        """What this host cannot see of the users as whom tasks run."""
        users = trusted_uids(self._config.airflow_homes, self._config.task_users) | self._places.uids()
        return [*unseen(self._watch.unread(), self._proc, users), *self._places.unread()]

    def _findings(self, case: Case, *, final: bool = False) -> Findings:
        named = [container for container, _ in case.spared_containers.values()]
        named += [end.container for end in case.ends.values()]
        within = inside(self._proc, named, (identity.pid for identity in case.spared))
        for identity in [one for one in case.spared if one.pid in within]:
            del case.spared[identity]  # its container is named, that says it all
        result = findings(
            case.facts(),
            self._pool,
            self._clock.to_db,
            self._clock.started_at,
            self._host_names,
            lambda: self._watch.departed.of(case.order, case.site) if case.site else (),
        )
        result.could_not_look = self.unseen() if final else []
        if final:
            self._note_gaps(case, result)
        if case.quiet:  # other hosts, or an earlier name, answered for them
            result.not_found, result.ended_by_itself = [], []
        if case.earlier is None:
            return result
        case.earlier.see(self._clock.lives, self._clock.now())
        return result.merged(case.earlier)

    def _note_gaps(self, case: Case, result: Findings) -> None:
        """When nobody was told what the tasks forked, and what may be one of those."""
        known = result if case.earlier is None else result.merged(case.earlier)
        begun = begun_here(case.order, known, self._host_names)
        if begun is None:
            return
        since = self._clock.from_db(begun)
        gaps = self._watch.gaps.since(since)
        result.not_told = [gap.told(self._clock.to_db) for gap in gaps]
        if gaps:
            doubtful = self._watch.gaps.doubtful(known.of_processes(), self._watch.processes)
            result.spared += [spared_process(*one) for one in doubtful]
        named = {*case.spared_containers, *(end.container.id for end in case.ends.values())}
        listed = self._containers.listed()
        untold = self._watch.gaps.containers(since, listed, named | self._containers.ties.clients().keys())
        # only the time speaks for the run: this is said, and does not change the outcome
        result.containers_untold = [shown(container.name) for container, _ in untold]
        named |= {container.id for container, _ in untold}
        execs = self._watch.gaps.execs(since, listed, named, self._watch.processes)
        words = (shown(f"{container.name}: {' '.join(process.argv)}") for container, process, _ in execs)
        result.execs_untold = [one for one in words if one not in result.execs_untied]
        users = trusted_uids(self._config.airflow_homes, self._config.task_users) | self._watch.users()
        for name, conmon, verdict in self._watch.gaps.podmans(since, users, self._watch.processes):
            result.containers_untied.append(shown(name))
            result.spared.append({"container": shown(name), **spared_process(conmon, verdict)})

    def _send(self, case: Case, final: Findings | None) -> None:
        """Write a report: final with its outcome, or in progress without one."""
        result = final or self._findings(case)
        order = case.order
        outcome = result.outcome(is_superseded(order)).value if final is not None else None
        # a late starter that was spared is not worth a line
        if final is not None and (order.id not in self._ended or case.endings or case.ends):
            log.info(summary(order, result, f"would be {outcome}" if self._config.dry_run else f"{outcome}"))
        if self._config.dry_run:
            return
        if outcome is not None and order.id not in self._ended:
            self.counters.done(outcome, order.created_at, result.first_signal_at, result.last_death_at)
        self._sender.tell(
            {
                "order_id": order.id,
                "host": self._config.host_name,
                "outcome": outcome,
                "first_signal_at": result.first_signal_at,
                "last_death_at": result.last_death_at,
                "detail": psycopg2.extras.Json(result.detail()),
            }
        )

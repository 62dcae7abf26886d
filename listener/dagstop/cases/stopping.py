"""From orders to reports on one host: evidence, kill, look again, for all open orders at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from typing import Any

import psycopg2.extras

from dagstop.cases.case import Notes, Work
from dagstop.config import ListenerConfig
from dagstop.evidence.clock import Clock
from dagstop.evidence.containers import watches
from dagstop.evidence.index import Index
from dagstop.evidence.recent_orders import RecentOrders
from dagstop.evidence.sight import unseen
from dagstop.evidence.site import Site, survey, trusted_uids
from dagstop.evidence.verdicts import inside, of_processes
from dagstop.evidence.watch import Watch
from dagstop.feed.notices import News, OrderFeed
from dagstop.host.procfs import ProcFS
from dagstop.kill.container_hunt import ContainerHunts, Found
from dagstop.kill.endings import Endings
from dagstop.kill.hunt import Hunt
from dagstop.kill.journal import SignalJournal
from dagstop.logs import event, log
from dagstop.model import Process, Role, StopOrder
from dagstop.report.counters import Counters
from dagstop.report.findings import Findings, findings, is_superseded, resumed, summary
from dagstop.report.sender import ReportSender
from dagstop.report.task_logs import TaskLogs, is_supervisor_of, last_line

SOON = 0.02
"""Seconds from an order to the first look at everything: what is dying wants the processor first."""
GLANCE = 0.002
"""Seconds from the first signals to the search for what is new, likewise; 0 if none was sent."""
RECENT = 1.0
"""Seconds that a listing of the engine's containers may be old for the first pass, never for the last."""
AGAIN = 1.0
"""Seconds until an order that failed is tried again."""
ENGINE_RETRY = 2.0
"""Seconds between two tries of an engine that does not answer."""


class Stopping:
    """All orders under way on this host. Called by the daemon's one thread only."""

    def __init__(
        self,
        config: ListenerConfig,
        proc: ProcFS,
        watch: Watch,
        pool: Endings,
        containers: ContainerHunts,
        feed: OrderFeed,
        sender: ReportSender,
        journal: SignalJournal,
    ) -> None:
        self._config = config
        self._host_names = config.host_names
        self._proc = proc
        self._watch = watch
        self._pool = pool
        self._containers = containers
        self._feed = feed
        self._sender = sender
        self._journal = journal
        self._works: dict[int, Work] = {}
        self._ended = RecentOrders(proc, watch)
        self._started = datetime.now(timezone.utc)
        self._clock = Clock(proc)
        self._site: Site | None = None  # prepared for the orders that are being read
        self._task_logs = TaskLogs()
        self._notes = Notes(journal, self._clock, self._task_logs)
        containers.note = self._notes.container
        self.counters = Counters()

    @property
    def under_way(self) -> int:
        return len(self._works)

    def next_at(self) -> float:
        """When (monotonic seconds) `step` is due if nothing happens before."""
        return min((min(w.next_look, w.next_glance) for w in self._works.values()), default=float("inf"))

    def take(self, news: News) -> None:
        """Begin the orders that are new; bring those under way up to date."""
        if news.orders:
            self._clock.bound(*news.clock_ahead)
        fresh = [order for order in news.orders if self._taken(order)]
        try:
            if fresh:
                self._begin([self._works[order.id or 0] for order in fresh])
        finally:
            self._feed.expect(len(self._works))

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
        self._journal.settle(self._works.keys() | self._sender.unsent, complete=complete)

    def step(self) -> None:
        """See who died, escalate, look again where it is time, report what is done."""
        while self._containers.results:
            found = self._containers.results.popleft()
            work = self._works.get(found.order_id)
            if work is not None:
                self._guarded(work, self._take_found, work, found)
        self._reap()
        self._round()

    def _take_order(self, order: StopOrder) -> bool:
        """True if it is to be begun now; one under way is only brought up to date."""
        assert order.id is not None
        if order.id in self._works:
            self._works[order.id].hunt.order = order
            return False
        if not self._ended.may_begin(order):
            return False  # its report is still on the way
        grace = order.grace(self._config.grace)
        work = Work(Hunt(order, grace, note=partial(self._notes.process, order)))
        try:
            work.earlier = resumed(order, self._journal.of(order.id), self._host_names)
        except Exception:
            # a report that this release cannot read must not keep the order from being carried out
            log.exception(event("report unreadable", order=order.id))
        if work.earlier is not None:
            for identity, sent in work.earlier.sent().items():
                work.hunt.earlier[identity] = [(name, self._clock.from_db(at)) for name, at in sent]
        elif order.closed_at is not None and order.id not in self._ended:
            work.quiet = self._clock.from_db(order.closed_at) < self._started
        self._works[order.id] = work
        return True

    def prepare(self) -> None:
        """Orders are being read: look around, so that their first signals need not wait for that."""
        self._site = self._survey()

    def _begin(self, works: list[Work]) -> None:
        """Signal what is known to be the run's; a search for what is new and a look at everything follow."""
        site = self._site or self._survey()
        self._judge(works, site, 0.0)
        self._ask_engines(works, site, since=time.monotonic() - RECENT)
        for work in works:
            self._guarded(work, self._keep_logs, work)
        moment = time.monotonic()
        for work in works:
            work.next_glance = moment + GLANCE if work.hunt.endings else 0.0
            work.next_look = moment + SOON

    def _keep_logs(self, work: Work) -> None:
        for process, _ in work.hunt.spared.values():
            if is_supervisor_of(process, work.hunt.order):
                self._task_logs.keep(work.hunt.order, process)

    def _look(self, works: list[Work], *, closely: bool) -> None:
        """`closely`: at every process; otherwise at new ones only, which no order can end with."""
        looked, self._site = time.monotonic() if closely else 0.0, None
        if closely:
            self._watch.look()
        else:
            self._watch.tick()
        site = self._survey()
        self._judge(works, site, looked)
        for work in works:
            work.next_glance = float("inf")
            soonest = float("inf") if closely else work.next_look
            work.next_look = min(soonest, work.hunt.next_at())
        self._ask_engines(works, site)

    def _survey(self) -> Site:
        urls = (self._config.database_url, *self._config.airflow_urls)
        return survey(self._config.airflow_homes, urls, self._watch.at_homes(), self._proc, os.getpid())

    def _judge(self, works: list[Work], site: Site, looked: float) -> None:
        index = self._watch.index()
        for number, work in enumerate(works, 1):
            if number % 64 == 0:
                self._reap()  # of thousands, the first are long dead when the last are signalled
            self._guarded(work, self._judge_one, work, index, site, looked)

    def _judge_one(self, work: Work, index: Index[Process], site: Site, looked: float) -> None:
        judged = list(of_processes(work.hunt.order, index, self._clock.started_at, site))
        self._containers.note_clients(process for process, _ in judged)
        work.site = site
        work.hunt.consider(judged, site, self._pool, looked)

    def _reap(self) -> None:
        dead = {ending.identity for ending in self._pool.reap()}
        for identity in dead:
            self._watch.died(identity)
        for work in self._works.values() if dead else ():
            if not dead.isdisjoint(work.hunt.endings) and not work.hunt.alive():
                work.next_glance = 0.0
                work.containers_clean = False

    def _round(self) -> None:
        moment = time.monotonic()
        due = [w for w in self._works.values() if min(w.next_look, w.next_glance) <= moment]
        if not due:
            return
        closely = any(work.next_look <= moment for work in due)
        for work in due:
            # whatever fails below, it is not due again without a pause
            work.next_look = work.next_look if work.next_look > moment else moment + AGAIN
            work.next_glance = float("inf")
            work.trouble = None
            self._guarded(work, self._escalate, work)
        self._reap()
        self._look(due, closely=closely)
        stale = {work.hunt.order.id or 0 for work in due if moment - work.refreshed > 1.0}
        for identity in stale:
            self._works[identity].refreshed = moment
        if stale:
            self._feed.refresh(stale)
        for work in due:
            self._guarded(work, self._report, work)

    def _guarded(self, work: Work, act: Callable[..., None], *arguments: Any) -> None:
        """One order's trouble must not hold up the others; it is tried again with each look."""
        try:
            act(*arguments)
        except Exception as exc:
            work.trouble = f"{type(exc).__name__}: {exc}"
            if work.said != work.trouble:
                log.exception(event("order failed", order=work.hunt.order.id))
            work.said = work.trouble
            work.hunt.clean = work.containers_clean = False
            work.next_look = min(work.next_look, time.monotonic() + AGAIN)

    def _escalate(self, work: Work) -> None:
        work.hunt.escalate(self._pool)
        self._end_watchers(work)

    def _report(self, work: Work) -> None:
        self._finish_if_done(work)
        if work.hunt.first_signal is not None and not work.told and work.hunt.order.id in self._works:
            work.told = True
            self._send(work, None)  # so that it is known if this listener is cut off

    def _ask_engines(self, works: list[Work], site: Site, since: float = float("inf")) -> None:
        if not self._containers.any_engine and not any(work.known() for work in works):
            for work in works:
                work.containers_clean = True
            return
        asking = [work for work in works if not work.asked_engine and not work.containers_clean]
        if not asking:
            return
        for work in asking:
            work.asked_engine = True
            # only a pass that begins when no process is left, or none that can be killed, can be the last one
            hunt = work.hunt
            work.containers_clean = hunt.finished if hunt.alive() else hunt.clean and hunt.looked > 0
        quests = [work.quest() for work in asking]
        delay = ENGINE_RETRY if all(work.problem for work in asking) else 0.0
        self._containers.look(quests, site, self._clock.to_db, delay=delay, since=since)

    def _take_found(self, work: Work, found: Found) -> None:
        work.asked_engine = False
        if found.problem is not None and work.problem is None:
            log.warning(event("engine away", order=found.order_id, why=found.problem))
        if (found.problem is None) != (work.problem is None):
            work.problem = found.problem
            self._send(work, None)
        work.problem = found.problem
        work.take(found, self._clock.to_db)
        self._end_watchers(work)
        living = any(end.died_at is None and end.let_live is None for end in found.ends)
        if found.problem is not None or (found.ends and not living and not self._config.dry_run):
            work.containers_clean = False
        if work.hunt.clean and not work.hunt.alive():
            work.next_look = 0.0  # else with the next look: the engines are not asked without a pause

    def _end_watchers(self, work: Work) -> None:
        """No grace for `docker stats` and the like (some outlive SIGTERM) once what they watch is gone."""
        for ending in work.hunt.alive() if work.ends else ():
            watched = watches(ending.process)
            if watched and ending.first_signal is not None and all(map(work.is_gone, watched)):
                self._pool.stop(ending, hard=True)

    def _finish_if_done(self, work: Work) -> None:
        if work.trouble or not work.hunt.finished or work.asked_engine or not work.containers_clean:
            return
        order = work.hunt.order
        assert order.id is not None
        result = self._findings(work, final=True)
        self._send(work, result)
        del self._works[order.id]
        said = last_line(order, result, result.outcome(is_superseded(work.hunt)), self._config.host_name)
        self._task_logs.tell(order, None if self._config.dry_run else said)
        for ending in work.hunt.endings.values():
            self._pool.release(ending)
        # what began after the rows were read, or was still to become a runner, is to be judged again
        judged = {
            process.identity
            for process, _ in work.hunt.spared.values()
            if process.role is not Role.SUPERVISOR and self._clock.started_at(process) <= order.db_now
        }
        self._ended.remember(order, {*work.hunt.endings, *judged})

    def unseen(self) -> list[str]:
        """What this host cannot see of the users as whom tasks run."""
        users = trusted_uids(self._config.airflow_homes, self._config.task_users)
        return unseen(self._watch.processes.values(), self._proc, users)

    def _findings(self, work: Work, *, final: bool = False) -> Findings:
        named = [container for container, _ in work.spared.values()]
        named += [end.container for end in work.ends.values()]
        within = inside(self._proc, named, (identity.pid for identity in work.hunt.spared))
        for identity in [one for one in work.hunt.spared if one.pid in within]:
            del work.hunt.spared[identity]  # its container is named, that says it all
        result = findings(
            work.hunt,
            work.ends.values(),
            work.spared.values(),
            work.trouble or work.problem,
            self._pool,
            self._clock.to_db,
            self._clock.started_at,
            self._host_names,
            lambda: self._watch.departed.of(work.hunt.order, work.site) if work.site else (),
        )
        result.could_not_look = self.unseen() if final else []
        if work.quiet:
            result.not_found, result.ended_by_itself = (
                [],
                [],
            )  # other hosts, or an earlier name, answered for them
        if work.earlier is None:
            return result
        work.earlier.see(self._clock.lives, self._clock.now())
        return result.merged(work.earlier)

    def _send(self, work: Work, final: Findings | None) -> None:
        """Write a report: final with its outcome, or in progress without one."""
        result = final or self._findings(work)
        order = work.hunt.order
        outcome = result.outcome(is_superseded(work.hunt)).value if final is not None else None
        # a late starter that was spared is no news
        if final is not None and (order.id not in self._ended or work.hunt.endings or work.ends):
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

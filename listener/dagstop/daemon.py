"""The only file that knows the order of the stages: notices, orders, evidence, kill, report.

One thread decides and signals; the database and the Docker engine, which may hang, have threads of
their own and hand over through queues and one pipe.
"""

from __future__ import annotations

import os
import pwd
import select
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dagstop.cases.notes import Notes
from dagstop.cases.stopping import Stopping
from dagstop.config import ListenerConfig
from dagstop.database.outbox import Outbox
from dagstop.evidence import memory
from dagstop.evidence.clock import Clock
from dagstop.evidence.consent import selectors
from dagstop.evidence.places import Places
from dagstop.evidence.site import trusted_uids
from dagstop.evidence.watch import Watch
from dagstop.feed.notices import News, OrderFeed
from dagstop.host.engine import Engine
from dagstop.host.process_events import ProcessEvents
from dagstop.host.procfs import ProcFS
from dagstop.kill.container_query import ContainerQueries
from dagstop.kill.endings import Endings
from dagstop.kill.journal import SignalJournal
from dagstop.logs import event, log
from dagstop.pace import Pace
from dagstop.report.sender import ReportSender
from dagstop.self_pipe import SelfPipe

SWITCH = 0.0002
"""Seconds after which a thread that computes lets another one run: each may have an order in hand."""
FAILED_PAUSE = 0.1
"""Seconds of rest after an unexpected error, which may come again at once."""
REST = 0.05
"""The most seconds between two readings of what the kernel tells while tasks run, once it tells something."""
HEAR_AGAIN = 0.002
"""The least: a docker client may live for 20 ms."""
BURST = 0.01
"""Seconds of the processor's time that readings at that pace may take after a rest."""
SHARE = 0.02
"""The part of a core that they may take on a host that forks all the time."""
TELL_CONTAINERS = 2.0
"""The least seconds between two heartbeats ahead of time for containers that came or went."""
QUIET = 1.0
"""Seconds between two ticks while the kernel tells of nothing, and nothing is left to be read again."""
LEARN_CONTAINERS = 10.0
"""Seconds between two listings of the engine's containers in silence."""
TRY = 5.0
"""Seconds between two looks at what this host refuses to show, which the heartbeat tells."""


class Daemon:
    """The listener of one host."""

    def __init__(
        self,
        config: ListenerConfig,
        proc: ProcFS | None = None,
        events: ProcessEvents | None = None,
        untold: str = "",
    ) -> None:
        """events: what the kernel tells of processes; `untold` says why it tells nothing."""
        self.config = config
        self._events = events
        self._untold = untold
        self._proc = proc or ProcFS()
        self._proc.must_be_ours()
        self._woken = SelfPipe()
        self._ending = False
        self._swept = False  # all that was open here at some moment since the start is known
        self._said: str | None = None  # the last unexpected error that is in the log
        self._unsaved = False  # the last attempt to save the memory failed
        self._unseen: list[str] = []  # what this host refused to show, the last time
        self._try_at = 0.0  # when that is looked at again
        self._users: frozenset[int] = frozenset()  # as whom tasks ran since the start
        self._users_not_told: set[str] = set()  # of them, those that no option named
        self._known_at = time.time()  # what there was then is known
        self._next_told = 0.0  # when a change of the containers may hurry the heartbeat again
        self._state_dir = Path(config.state_dir) if config.state_dir else None
        self._pool = Endings(self._proc, dry_run=config.dry_run)
        self._places = Places(
            self._proc,
            selectors(config.containers),
            urls=(config.database_url, *config.airflow_urls),
            task_users=config.task_users,
            machine=config.host_names,
        )
        self._watch = Watch(
            self._proc,
            trusted_uids=lambda: trusted_uids(config.airflow_homes, config.task_users),
            own_pid=os.getpid(),
            events=events,
            init_of=self._places.init_of if self._places.wanted else None,
            hostname_of=self._places.hostname_of,
        )
        self._journal = SignalJournal(self._state_dir)
        clock = Clock(self._proc)
        notes = Notes(self._journal, clock)
        self._containers = ContainerQueries(
            [Engine(url) for url in config.docker_urls],
            self._proc,
            config.grace,
            self._woken.ring,
            dry_run=config.dry_run,
            note=notes.container,
            executed_at=self._watch.executed_at,
        )
        ident, outbox = str(uuid.uuid4()), Outbox()
        self.feed = OrderFeed(config.database_url, config.host_name, ident, outbox, self._woken, config.sweep)
        self._sender = ReportSender(config, ident, outbox, self.feed)
        self._stopping = Stopping(
            config,
            self._proc,
            clock,
            self._watch,
            self._pool,
            self._containers,
            self.feed,
            self._sender,
            notes,
            self._places,
        )
        self._sender.about = self._about()

    def stand_by(self) -> None:
        """Connect and LISTEN ahead of `run`, while another listener of this host still works."""
        self.feed.start()

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; with `once`, until every open order is dealt with."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.set_wakeup_fd(self._woken.write_end, warn_on_full_buffer=False)
        self._watch.begin(self._remember(self._state_dir) if self._state_dir is not None else None)
        self._save()
        sys.setswitchinterval(SWITCH)
        self.feed.begin()
        self._containers.follow()
        self._notify("READY=1")
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        poller.register(self._pool.fileno(), select.POLLIN)
        ticked = time.monotonic()
        next_tick = ticked + self.config.tick
        next_learning = 0.0
        next_hearing = 0.0 if self._events is not None else float("inf")
        pace = Pace(HEAR_AGAIN, REST, BURST, SHARE)
        while not self._ending:
            if self._events is not None and time.monotonic() >= next_hearing:
                poller.register(self._events, select.POLLIN)
                next_hearing = float("inf")
            due = min(next_tick, self._stopping.next_at(), next_hearing)
            ready = poller.poll(max(0.0, due - time.monotonic()) * 1000)
            self._woken.drain()
            if self._events is not None and any(fd == self._events.fileno() for fd, _ in ready):
                poller.unregister(self._events)
                next_tick = next_hearing = min(next_tick, ticked + self.config.tick)
                if self._watch.labelled():  # where no task runs it can wait for the next tick
                    began = time.thread_time()
                    self._guarded(self._attend)
                    rest = pace.rest(time.thread_time() - began, time.monotonic())
                    # who ends unread may have created what a task's compose seems to have
                    next_hearing = time.monotonic() + (0.0 if self._containers.closely else rest)
            if self.feed.rung.is_set():
                self.feed.rung.clear()
                self._guarded(self._containers.ring)
                self._guarded(self._stopping.prepare)
            while self.feed.news:
                news = self.feed.news.popleft()
                self._swept = self._swept or news.sweep
                self._hand_on(news)
                self._guarded(self._stopping.take, news)
            self._guarded(self._stopping.step)
            if time.monotonic() >= next_tick:
                self._guarded(self._tick)
                ticked = time.monotonic()
                next_tick = ticked + (max(QUIET, self.config.tick) if self._quiet else self.config.tick)
            if time.monotonic() >= next_learning:
                self._guarded(self._containers.warm_up)
                next_learning = time.monotonic() + LEARN_CONTAINERS
            self._guarded(self._containers.hurry)
            if self.config.once and self._swept and self._idle:
                break
        self._notify("STOPPING=1")
        self._disconnect()
        # or a listener under another name would report on it, too
        self._stopping.settle(complete=self._swept)
        self._save()

    def _guarded(self, act: Callable[..., None], *arguments: Any) -> None:
        """An error that nobody expects must not end what the other orders need; it is tried again.

        Where no look succeeds any more, systemd hears nothing (WatchdogSec) and starts this listener again.
        """
        try:
            act(*arguments)
        except Exception as exc:
            said = f"{type(exc).__name__}: {exc}"
            if said != self._said:
                log.exception(event("listener failed", at=act.__name__.lstrip("_"), do="it goes on"))
            self._said = said
            time.sleep(FAILED_PAUSE)

    @property
    def _idle(self) -> bool:
        return not self._stopping.under_way and not self._sender.outbox.unsent

    def _remember(self, state_dir: Path) -> datetime | None:
        """Take up what the listener before this one knew; when it was there last, if that is known."""
        left = memory.last_sign(state_dir)
        remembered = memory.load(state_dir, self._proc.boot_id())
        if remembered.processes and left is not None:
            self._say_away(left)
        self._watch.restore(remembered.everything(), remembered.folders)
        self._containers.ties.restore(remembered.all_clients())
        self._watch.gaps.restore(remembered.gaps)
        self._journal.load(self._proc.boot_id())
        return None if remembered is memory.NOTHING else left

    def _say_away(self, since: datetime) -> None:
        """Tasks were running when the listener before this one ended: what they forked since nobody told."""
        do = "dagstop ps shows what runs; what such a task started then and let go does not die with its run"
        begun, ended = (at.isoformat(timespec="seconds") for at in (since, datetime.now(timezone.utc)))
        log.warning(event("no listener ran", since=begun, until=ended, do=do))

    @property
    def _quiet(self) -> bool:
        """True if a tick would find nothing but what the kernel tells of."""
        busy = self._stopping.under_way or self._watch.restless or self._containers.unsettled
        return self._watch.told and not busy

    def _end(self, number: int, frame: object) -> None:
        self._ending = True

    def _hand_on(self, news: News) -> None:
        """Orders were read: from now on this host has a heartbeat. A dry run says nothing to the database."""
        if not self.config.dry_run:
            self._sender.kept.start()
        if news.chores:
            self._sender.hurry()

    def _disconnect(self, timeout: float = 3.0) -> None:
        """What is still to be reported is reported first, if the database is there."""
        until = time.monotonic() + timeout
        self.feed.stop(0.0)
        self._sender.kept.stop(timeout)
        self.feed.stop(until - time.monotonic())

    def _attend(self) -> None:
        """See what tasks' processes have become, and which of them are docker clients."""
        closely = self._containers.closely
        kin = self._watch.attend_closely() if closely else self._watch.attend()
        self._containers.attend(kin, self._watch.client_ends(), self._watch.unread_kin())
        self._stopping.claim()

    def _tick(self) -> None:
        """Learn of new processes, so that they are known when an order comes."""
        self._sender.looked_at, self._known_at = time.monotonic(), time.time()
        if deciding := self._containers.deciding:
            self._watch.prove_soon()
        self._watch.tick()
        self._stopping.look_for_places()
        labelled, everybody = self._watch.labelled(), self._watch.processes.values()
        self._containers.learn_clients(labelled, everybody, closely=deciding)
        self._containers.attend((), self._watch.client_ends(), self._watch.unread_kin())
        if deciding:
            self._containers.hear(self._watch.heard())
        self._stopping.claim()
        self._stopping.tick(complete=self._swept)
        if time.monotonic() >= self._try_at:
            self._unseen, self._try_at = self._stopping.unseen(), time.monotonic() + TRY
        self.feed.watch()
        self._sender.kept.watch()
        if new := self._watch.users() - self._users:
            self._users |= new
            untold = new - trusted_uids(self.config.airflow_homes, self.config.task_users)
            self._users_not_told |= set(map(_user_name, untold))
        changed = self._watch.changed or self._containers.ties.changed
        if changed and not self._stopping.under_way:
            self._save()
        elif self._state_dir is not None and not changed:
            memory.still_here(self._state_dir, self._known_at)
        self._tell()
        self._notify("WATCHDOG=1")

    def _tell(self) -> None:
        """Containers that came or went are told soon: until then `check` says that nobody serves them."""
        before, self._sender.about = self._sender.about, self._about()
        if before["places"] != self._sender.about["places"] and time.monotonic() >= self._next_told:
            self._next_told = time.monotonic() + TELL_CONTAINERS
            self._sender.hurry()

    def _about(self) -> dict[str, Any]:
        """What heartbeats say of this listener."""
        return {
            "pid": os.getpid(),
            "uid": os.geteuid(),
            "host_names": sorted(self._places.names()),
            "airflow_homes": list(self.config.airflow_homes),
            "containers": list(self.config.containers),
            "places": self._places.facts(),
            "docker": [engine.url for engine in self._containers.engines if engine.exists],
            "docker_refused": self._containers.refusals(),
            "could_not_look": self._unseen,
            "process_events": self._told(),
            "not_told": [gap.told() for gap in self._watch.gaps.all if gap.since is not None],
            "state_dir": self.config.state_dir,
            "under_way": self._stopping.under_way,
            "watched": len(self._watch.labelled()),
            "users_not_told": sorted(self._users_not_told),
            "options": {
                name: [getattr(self.config, name), self.config.sources.get(name, "default")]
                for name in ("grace", "tick", "sweep")
            },
            "tally": self._stopping.counters.facts(),
        }

    def _told(self) -> dict[str, Any]:
        """Whether the kernel tells of processes, why not, and how much it could not tell."""
        if self._events is None or not self._watch.told:
            why = self._untold or "the kernel has ceased to tell: start the listener again"
            return {"told": False, "why": why, "every": self.config.tick}
        return {"told": True, "lost": self._events.lost, "gaps": self._events.gaps}

    def _save(self) -> None:
        if self._state_dir is None:
            return
        try:
            ties = self._containers.ties
            self._watch.changed = False
            ties.saved()
            boot_id, labelled = self._proc.boot_id(), self._watch.labelled()
            folders, gaps = self._watch.folders(), self._watch.gaps.all
            memory.save(self._state_dir, boot_id, labelled, ties.all(), folders, gaps)
            memory.still_here(self._state_dir, self._known_at)
            self._unsaved = False
        except OSError as exc:
            if not self._unsaved:  # it is tried again with each look
                log.warning(event("memory not saved", where=self._state_dir, why=exc))
            self._unsaved = self._watch.changed = True

    def _notify(self, state: str) -> None:
        """sd_notify(3): one datagram to the socket that systemd named."""
        address = os.environ.get("NOTIFY_SOCKET")
        if not address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            try:
                connection.connect(address.replace("@", "\0", 1))
                connection.send(state.encode())
            except OSError as exc:
                log.debug(event("systemd not told", why=exc))


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

"""The containers of a batch of orders, ended in threads beside the processes.

A dead engine does not mean a failed kill: its orders are tried again until it answers, or until no
containerd-shim is left on the host, without which no container lives.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from dagstop.evidence.containers import read_client
from dagstop.evidence.lineage import ClientEnd, UnreadKin
from dagstop.evidence.noted import Noted
from dagstop.evidence.site import Site
from dagstop.evidence.ties import Ties
from dagstop.evidence.unread import Heard
from dagstop.evidence.verdicts import Containers, of_containers, start_of_exec
from dagstop.host.containers import Container
from dagstop.host.engine import CHANGING, Engine, EngineUnreachable
from dagstop.host.procfs import ProcFS
from dagstop.kill.containers import ContainerEnd, end_container
from dagstop.kill.endings import NOT_SIGNALLED, now
from dagstop.logs import event, log
from dagstop.model import Decision, Identity, Process, StopOrder, Verdict

LEARN_PAUSE = 0.05
"""The least seconds between two listings ahead of need: a flood of doorbells must not load an engine."""

REACH_PAUSE = 0.01
"""Seconds between two looks at what a client that has just begun is connected to."""

FOLLOW_AGAIN = 1.0
"""Seconds until an engine whose events cannot be read is asked for them again."""
_TELLING = CHANGING | {"begun", "lost"}
"""What is told of containers that makes a listing worth while."""


@dataclass(frozen=True, slots=True)
class ContainerQuery:
    """What the engines are asked about one order, and what of its containers was found before."""

    order: StopOrder
    known: tuple[str, ...] = ()  # ids, or their beginnings, of what was signalled and not yet seen dead
    named: tuple[str, ...] = ()  # the same, of all that its report names
    quiet: bool = False  # what has ended already is not reported


@dataclass(slots=True)
class ContainerAnswer:
    """What one pass over the engines found, and ended, for one order."""

    order_id: int
    ends: list[ContainerEnd] = field(default_factory=list)
    spared: list[tuple[Container, Verdict]] = field(default_factory=list)
    problem: str | None = None  # an engine that did not answer: to be tried again
    running: set[str] = field(default_factory=set)  # of the known ones
    gone: dict[str, datetime] = field(default_factory=dict)  # the known ones that do not run any more


@dataclass(slots=True)
class Wish:
    """What an order says by now of the containers that are being ended for it.

    The main thread tells it; the threads that end containers read it until SIGKILL.
    """

    hands_off: str | None = None  # why nothing of it is to be stopped any more


@dataclass(slots=True)
class ContainerQueries:
    """Passes over the engines, each in a thread; the answers wait in `answers`."""

    engines: Sequence[Engine]
    proc: ProcFS
    grace: float
    wake_main: Callable[[], None]
    dry_run: bool = False
    note: Callable[[int, Container, Verdict, str], None] = lambda *_: None  # before each first signal
    executed_at: Callable[[int], float | None] = lambda _: None  # as Ties.note has it
    answers: deque[ContainerAnswer] = field(default_factory=deque)
    claims: deque[tuple[Identity, Process]] = field(default_factory=deque)  # run by a `docker exec`, and that
    refused: dict[str, str] = field(default_factory=dict)  # by engine: why it did not answer the last time
    _news: bool = False  # an engine told of something
    _seen: bool = False  # an engine was there since the listener started
    _wishes: dict[int, Wish] = field(default_factory=dict)  # by order
    _learning: threading.Thread = field(default_factory=threading.Thread)
    _reaching: threading.Thread = field(default_factory=threading.Thread)
    _next_learning: float = 0.0
    _next_tying: float = 0.0
    _at_once: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(32))
    ties: Ties = field(init=False)

    def __post_init__(self) -> None:
        self.ties = Ties(self.proc)

    @property
    def any_engine(self) -> bool:
        """False where no container can be: no engine there, or gone with all its containers."""
        if any(engine.exists for engine in self.engines):
            self._seen = True
            return True
        return self._seen and self._shims()

    def listed(self) -> list[Container]:
        """What the engines showed last; two URLs may be one engine's."""
        return list({one.id: one for engine in self.engines for one in engine.listed()}.values())

    def refusals(self) -> list[str]:
        """Of the engines that are there, which did not answer the last time, and why."""
        refused = self.refused.copy()  # by the thread that learns
        return [refused[engine.url] for engine in self.engines if engine.exists and engine.url in refused]

    def ring(self) -> None:
        """Called at each doorbell, which anybody may ring: learn what runs, unless that is known."""
        if not all(engine.current for engine in self.engines if engine.exists):
            self.warm_up()

    def warm_up(self) -> None:
        """Load the Docker client and learn what runs, so that an order need not wait for it.

        One at a time, some a second, is enough.
        """
        if not self._may_learn():
            return
        if not any(engine.exists for engine in self.engines):
            return
        self._next_learning = time.monotonic() + LEARN_PAUSE

        def learn() -> None:
            for engine in self.engines:
                if engine.exists:
                    try:
                        asked_at = time.monotonic()
                        engine.learn()
                        self._tie(engine, engine.listed(), asked_at)
                        self.refused.pop(engine.url, None)
                    except EngineUnreachable as exc:
                        self.refused[engine.url] = str(exc)

        self._learning = threading.Thread(target=learn, name="engines", daemon=True)
        self._learning.start()

    def _tie(self, engine: Engine, containers: Sequence[Container], asked_at: float) -> None:
        """Which clients created them; the engine says what it created if one waits for that."""
        counts = self.ties.waits_for(engine.url) or self.ties.execs.of(engine.url) or self.ties.composes()
        if not counts:
            self.ties.tie(engine.url, containers, asked_at)
            if self.ties.execs.doubtful():
                engine.ask_creations()
        else:
            engine.ask_creations()
            self.ties.tie(engine.url, containers, asked_at, engine.creations, engine.seen())
            for one in self.ties.execs.of(engine.url):
                self._find_exec(engine, one)
        if self.ties.execs.doubtful():
            self.ties.execs.note(engine.url, engine.creations)
        self.ties.name_unread(engine.url, containers, engine.creations)
        self.ties.execs.drop_ended(engine)

    def _find_exec(self, engine: Engine, one: Noted) -> None:
        """Which process it is that a task's `docker exec` runs."""
        found, at = engine.exec_process(one.container), engine.creations.exec_at(one.container)
        if found is None or found[2] or at is None:
            one.claimed = True  # it has ended
            return
        container = engine.inspect(found[0])
        start = start_of_exec(self.proc, container, found[1], at) if container is not None else None
        one.claimed = found[1] != 0  # else it is about to begin
        if start is not None:
            self.claims.append((Identity(found[1], start), one.client.process))
            self.wake_main()

    def follow(self) -> None:
        """Read each engine's events in a thread of its own, from now on: what it starts is known at once."""
        for engine in self.engines:
            threading.Thread(target=self._follow, args=(engine,), name="events", daemon=True).start()

    def _follow(self, engine: Engine) -> None:
        def told(action: str) -> None:
            if action == "create":
                self.ties.connections.see([engine.url])
                self.ties.connections.see_others(engine.url)
            if engine.creations.behind and self.ties.may_count(engine.url):
                engine.ask_creations()
            if action in _TELLING:
                self._news = True
                self.wake_main()

        while True:
            try:
                if engine.exists:
                    engine.follow(told)
            except EngineUnreachable:
                pass  # the listing says why
            time.sleep(FOLLOW_AGAIN)

    def hurry(self) -> None:
        """List what an engine has told of since, unless that is under way: then with the next call."""
        if self._news and self._may_learn():
            self._news = False
            self.warm_up()

    def attend(
        self, kin: Iterable[Process], ends: Iterable[ClientEnd], unread: Sequence[UnreadKin] = ()
    ) -> None:
        """Tasks' processes that were forked or have executed something; how docker clients ended.

        unread: tasks' processes that ended before anybody knew whether they were such clients.
        """
        self.ties.note((client for process in kin if (client := read_client(process))), self.executed_at)
        new = self.ties.told(ends, unread)
        for engine in self.engines if new else ():  # with a listing, all of them
            self.ties.name_unread(engine.url, engine.listed(), engine.creations, new)
        if self.any_engine:
            self.ties.connections.see(engine.url for engine in self.engines)
            self._watch_connections()
        if any(self.ties.waits_for(e.url) or self.ties.execs.of(e.url) for e in self.engines):
            self.warm_up()

    @property
    def closely(self) -> bool:
        """True while a task's compose creates containers: who else may have is to be known."""
        return self.ties.connections.composes_now()

    @property
    def deciding(self) -> bool:
        """True until it is known what a task's compose has created."""
        return self.ties.connections.decides_now()

    def hear(self, heard: Heard | None) -> None:
        """What the kernel told, once the clients among all that it told of are known."""
        self.ties.hear(heard)

    def _watch_connections(self) -> None:
        """Look again and again at clients that have just begun: a `docker create` ends with its answer."""
        if self._reaching.is_alive() or not self.ties.connections.about_to_connect():
            return

        def watch() -> None:
            while self.ties.connections.about_to_connect():
                self.ties.connections.see(engine.url for engine in self.engines)
                time.sleep(REACH_PAUSE)

        self._reaching = threading.Thread(target=watch, name="connections", daemon=True)
        self._reaching.start()

    @property
    def unsettled(self) -> bool:
        """True if an engine is to be listed soon, or a client's container is not known yet."""
        execs = self.ties.execs.open() or any(self.ties.execs.of(engine.url) for engine in self.engines)
        return self._news or bool(self._waiting()) or execs or self.deciding

    def _waiting(self) -> list[Noted]:
        """The tasks' clients whose container may become known yet."""
        return [one for one in self.ties.open() if not (one.fitting and one.until)]

    def _may_learn(self) -> bool:
        return not self._learning.is_alive() and time.monotonic() >= self._next_learning

    def learn_clients(
        self, tasks: Iterable[Process], everybody: Iterable[Process], *, closely: bool = False
    ) -> None:
        """Note which containers the docker clients among the tasks' processes start.

        everybody: looked through for strangers who ask for the same while it is not known whose it is.
        closely: all of them, and at once.
        """
        self.ties.note((client for process in tasks if (client := read_client(process))), self.executed_at)
        if closely:
            self.ties.note(client for process in everybody if (client := read_client(process)))
            self.warm_up()
        for engine in self.engines if self.ties.execs.doubtful() else ():
            self.ties.execs.note(engine.url, engine.creations)
        untied = self._waiting()
        moment = time.monotonic()
        if moment < self._next_tying:
            return
        execs = self.ties.execs.open()
        if execs or any(not one.cid for one in untied):
            self.ties.note(client for process in everybody if (client := read_client(process)))
        if not untied:
            self._next_tying = moment + (1.0 if execs else 0.0)
            return
        # an image may have to be pulled first: that takes minutes
        young = any(self.proc.age(one.client.process.identity.start) < 10 for one in untied)
        self._next_tying = moment + (0.0 if young else 2.0)
        self.ties.read_cidfiles()
        self.warm_up()

    def note_clients(self, processes: Iterable[Process]) -> None:
        """Note the docker clients among processes that are to die, with a moment to read their `--cidfile`:

        the signals that follow may be the end of it.
        """
        clients = [client for process in processes if (client := read_client(process))]
        if clients:
            self.ties.note(clients, self.executed_at)
            self.ties.connections.see(engine.url for engine in self.engines)
            self.ties.read_cidfiles(wait=0.05)

    def ask(
        self,
        queries: Sequence[ContainerQuery],
        site: Site,
        to_db_clock: Callable[[datetime], datetime],
        *,
        delay: float = 0.0,
        since: float = float("inf"),
    ) -> None:
        """Begin a pass; one answer to each query comes into `answers`.

        since: as Engine.running has it.
        """
        for query in queries:
            self._wishes.setdefault(query.order.id or 0, Wish()).hands_off = query.order.hands_off
        arguments = (list(queries), site, to_db_clock, delay, since)
        threading.Thread(target=self._pass, args=arguments, name="containers", daemon=True).start()

    def tell(self, order: StopOrder) -> None:
        """An order was read again: what of it is being ended may have to be left alone now."""
        if order.id in self._wishes:
            self._wishes[order.id].hands_off = order.hands_off

    def forget(self, order_id: int) -> None:
        """An order is done: nothing of it is asked for any more."""
        self._wishes.pop(order_id, None)

    def _pass(
        self,
        queries: Sequence[ContainerQuery],
        site: Site,
        to_db_clock: Callable[[datetime], datetime],
        delay: float,
        since: float,
    ) -> None:
        time.sleep(delay)
        found = {id(query): ContainerAnswer(query.order.id or 0) for query in queries}
        pending: list[tuple[ContainerAnswer, Future[ContainerEnd]]] = []
        try:
            looked_at = now()
            if any(query.known for query in queries) and not self.any_engine and self._shims():
                raise EngineUnreachable("no Docker engine is there, and containers run")
            taken: set[str] = set()  # two URLs may be one engine's
            for engine in self.engines:
                if engine.exists or self._seen:
                    pending += self._engine(engine, taken, queries, found, site, to_db_clock, since)
            for result, future in pending:
                try:
                    result.ends.append(end := future.result())
                    result.problem = end.problem or result.problem
                except EngineUnreachable as exc:
                    result.problem = str(exc)
            self._ended(queries, found, site, to_db_clock)
            for query in queries:
                result = found[id(query)]
                if result.problem is None:
                    result.gone = dict.fromkeys(set(query.known) - result.running, looked_at)
        except EngineUnreachable as exc:
            for result in found.values():
                result.problem = str(exc)
        except Exception as exc:
            # one order's trouble must not leave the others without an answer
            log.exception(event("container pass failed"))
            for result in found.values():
                result.problem = result.problem or f"{type(exc).__name__}: {exc}"
        self.answers.extend(found.values())
        self.wake_main()

    def _running(
        self, engine: Engine, found: dict[int, ContainerAnswer], since: float
    ) -> Sequence[Container]:
        """What an engine runs, tied to its clients; nothing if it does not answer."""
        try:
            asked_at = time.monotonic()
            containers = engine.running(since)
            self.ties.read_cidfiles(wait=0.05)
            if self.ties.unread_lately():
                engine.ask_creations()  # its events may be under way
            self._tie(engine, containers, asked_at)
            return containers
        except EngineUnreachable as exc:
            if not self._engine_is_idle(engine):
                for result in found.values():
                    result.problem = str(exc)
            return []

    def _engine(
        self,
        engine: Engine,
        taken: set[str],
        queries: Sequence[ContainerQuery],
        found: dict[int, ContainerAnswer],
        site: Site,
        to_db_clock: Callable[[datetime], datetime],
        since: float,
    ) -> list[tuple[ContainerAnswer, Future[ContainerEnd]]]:
        """Judge what one engine runs, and begin to end it; `taken` was shown by another engine."""
        running = self._running(engine, found, since)
        pending = []
        others = (c for other in self.engines if other is not engine for c in other.listed())
        here = [container for container in running if container.id not in taken]
        taken |= {container.id for container in here}
        execs = {ident: it for ident, it in self.ties.execs.untied(engine.url).items() if ident not in taken}
        taken |= execs.keys()
        containers = Containers(here, self.ties.clients(), others, self.ties.untied(), execs)
        for query in queries:
            result = found[id(query)]
            known = {c.id: ident for c in here for ident in query.known if c.id.startswith(ident)}
            result.running |= set(known.values())
            for container, verdict in of_containers(query.order, containers, to_db_clock, site, known):
                if verdict.decision is Decision.SPARE:
                    result.spared.append((container, verdict))
                else:
                    pending.append((result, self._end(engine, query, container, verdict)))
        return pending

    def _ended(
        self,
        queries: Sequence[ContainerQuery],
        found: dict[int, ContainerAnswer],
        site: Site,
        to_db_clock: Callable[[datetime], datetime],
    ) -> None:
        """Add what would have been ended, had it not ended by then: by its task's `on_kill`, as a rule."""
        if any(result.problem for result in found.values()):
            return  # there will be another pass, and an engine that hangs is not asked again
        if all(query.quiet for query in queries):
            return
        moment = now()
        since = min(query.order.created_at for query in queries) - (to_db_clock(moment) - moment)
        deaths = [end for engine in self.engines if engine.exists for end in engine.ended(since)]
        died_at = {container.id: at for container, at in deaths}
        ended = Containers((container for container, _ in deaths), self.ties.clients())
        for query in queries:
            if query.quiet:
                continue
            result = found[id(query)]
            named = (*query.named, *(end.container.id for end in result.ends))
            for container, verdict in of_containers(query.order, ended, to_db_clock, site):
                at = died_at[container.id]
                before = to_db_clock(at) < query.order.created_at or container.id.startswith(named)
                if verdict.decision is Decision.KILL and not before:
                    end = ContainerEnd(container, verdict, died_at=at, noticed=NOT_SIGNALLED)
                    result.ends.append(end)

    def _end(
        self, engine: Engine, query: ContainerQuery, container: Container, verdict: Verdict
    ) -> Future[ContainerEnd]:
        future: Future[ContainerEnd] = Future()
        note = partial(self.note, query.order.id or 0, container, verdict)
        grace = query.order.grace(self.grace)
        wish = self._wishes.get(query.order.id or 0) or Wish(query.order.hands_off)

        def end() -> None:
            try:
                with self._at_once:
                    future.set_result(
                        ContainerEnd(container, verdict, died_at=now())
                        if self.dry_run
                        else end_container(
                            engine,
                            container,
                            verdict,
                            self.proc,
                            grace=grace,
                            before_first=note,
                            hands_off=lambda: wish.hands_off,
                        )
                    )
            except BaseException as exc:
                future.set_exception(exc)

        # a daemon thread: SIGTERM to the listener does not wait for a container's grace period
        threading.Thread(target=end, name="container", daemon=True).start()
        return future

    def _engine_is_idle(self, engine: Engine) -> bool:
        """True if a local engine is down and no container can be running without it."""
        return engine.local and not self._shims()

    def _shims(self) -> bool:
        """True if some container lives: each has a containerd-shim, also without its engine."""
        return any(self.proc.comm(pid).startswith("containerd-shim") for pid in self.proc.pids())

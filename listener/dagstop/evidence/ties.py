"""Which container a task's docker client started: remembered until that container is gone.

A client may be dead long before its container (SIGKILL, a lack of memory, the end of all of Airflow), and
its `--cidfile` with the task's folder. So clients are noted while they live, and tied to the full id of a
container as soon as an engine shows it: a name passes on, an id does not.

A client without either is tied by counting (`creators`), once it is proven that it has created its container
on that engine: by an exit that says so, or, of one that stays with its container, by the connections that it
holds meanwhile. What a compose created is known if nobody else can have (`compose`). What may be a
client's and is not tied is `untied`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from dagstop.evidence import cidfiles
from dagstop.evidence.compose import WORDS, Project, Up, read_project, why_uncertain
from dagstop.evidence.containers import ANOTHER_CONTEXT, Client, read_client
from dagstop.evidence.creators import SLACK as SLACK_OF_ONE
from dagstop.evidence.creators import Creator, assigned, fits, may_run, resolve
from dagstop.evidence.lineage import ClientEnd
from dagstop.evidence.match import SPARE, asks_to_be_spared
from dagstop.evidence.runners import doubt, doubts, row_of, undoubted
from dagstop.evidence.unread import Heard
from dagstop.host import unix_peers
from dagstop.host.containers import Container
from dagstop.host.creations import Creation, Creations, ExecCreation
from dagstop.host.engine import Engine
from dagstop.host.procfs import ProcFS
from dagstop.model import Identity, Label, Process, Role

SLACK = 1.0
"""Seconds by which an engine's clock may differ from this host's."""
LATE = 5.0
"""Seconds after a client's end by which everything it asked for has started."""
KEPT = 60.0
"""Seconds for which a client is kept whose container does not run: a restart takes a moment."""
AWAY = 600.0
"""Seconds after a client's end for which an engine is waited for that could say what it started."""
MOST = 1000
YOUNG = 10.0
"""Seconds since a client was noted for which its connections are looked at whenever something happens."""
BEGINS = 1.0
"""Seconds after a client's exec in which it connects to its engine."""
LOOK_PAUSE = 2.0
"""Seconds between two looks at those of older ones."""
STARTS = 60.0
"""Seconds in which an attached compose creates what it creates, as a rule."""
DECIDES = 15.0
"""Seconds after a compose's end in which it becomes known what it has created."""
ATTACHED = 3
"""Connections to its engine that a client holds only once it has created what it is attached to: one streams,
one waits for the end, one asked for the start (docker/cli, command/container/run.go). Until then it has one,
or for a moment two."""
EXECS = 2
"""The same of a `docker exec`: one streams, the others are idle."""
EXECS_FOR = 1.0
"""Seconds for which it holds these: before, it may have two for a moment as well."""

_UNIX = "unix://"
_MAY = {
    "unsure": "docker {0}: its command line is not understood for certain",
    "elsewhere": "docker {0}: it was not seen connected to this engine",
    "unproven": "docker {0}: it was not seen to have",
    "gap": "docker {0}: the engine's events do not reach back that far",
    **WORDS,
    "others": "docker {0}, and so may others",
}
"""Why a container is not tied to a client that it fits."""


class Fit(NamedTuple):
    """A container that a client may have created."""

    engine: str  # URL of the engine that has it
    why: str  # it is not certain: a key of _MAY


class MayRun(NamedTuple):
    """What runs in a container, and a `docker exec` may have asked for."""

    engine: str
    why: str  # as of a Fit
    container: str  # its name
    command: str
    at: float  # when it was asked for, seconds since 1970


@dataclass(frozen=True, slots=True)
class Untied:
    """A client that may have created a container, and why that is not certain."""

    client: Client
    why: str


@dataclass(slots=True, eq=False)
class Noted:
    """A docker client, and the container that it started once that is known."""

    client: Client
    path: str | None  # its --cidfile as this host names it
    cid: str = ""  # what that holds
    until: datetime | None = None  # when it was seen to be gone, by this host's clock
    container: str = ""  # full id
    engine: str = ""  # URL of the engine that has it
    unseen: float | None = None  # since when its container does not run, monotonic seconds
    reached: str = ""  # URL of the engine that it was seen connected to
    project: Project | None = None  # of a compose
    began: float | None = None  # when that was executed, seconds since 1970, if the kernel told
    went_wrong: bool = False  # it ended with an error
    composed: dict[str, str] = field(default_factory=dict)  # by id, the engine of each that it created
    streams_since: float | None = None  # when a `docker exec` was first seen to hold EXECS connections
    claimed: bool = False  # what it runs is known to the watch, or has ended
    created_by: float | None = None  # when it had created one at the latest, seconds since 1970
    failed: bool = False  # it ended and had started none
    fitting: dict[str, Fit] = field(default_factory=dict)  # by id, what may be its
    may_run: dict[str, MayRun] = field(default_factory=dict)  # by id, what a `docker exec` may have asked for
    noted_at: float = field(default_factory=time.monotonic)  # its process may be older, and have been bash

    @property
    def label(self) -> Label | None:
        return self.client.process.label

    @property
    def matters(self) -> bool:
        """True while something that it created, or may have, may be there."""
        return bool(self.container or self.composed or self.fitting or self.may_run)

    @property
    def composes(self) -> bool:
        """True of a task's compose."""
        return self.label is not None and self.client.compose is not None

    @property
    def unproven(self) -> bool:
        """True if its connections may still say something: whom it reached, that it has created one."""
        asks = self.client.ask or self.client.runs
        if asks is None:
            return self.client.compose is not None and not self.reached
        if self.container or self.created_by is not None:
            return False
        return asks.attached or not self.reached

    @property
    def undoubted(self) -> bool:
        """False for a stranger, and for what is spared whatever the order."""
        process = self.client.process
        asks = asks_to_be_spared(process)  # it stands among the others, with its wish
        wish = replace(process, environ={}, kin_spared=False) if asks else process
        return process.label is not None and undoubted(wish)

    def facts(self) -> dict[str, Any]:
        """For `memory`."""
        process = self.client.process
        until = self.until or datetime.now(timezone.utc)
        return {
            "pid": process.identity.pid,
            "start": process.identity.start,
            "label": process.label.facts() if process.label is not None else None,
            "evidence": list(process.evidence),
            "line": sorted(process.line),
            "runner": row_of(process.runner),
            "spare": asks_to_be_spared(process),
            "doubts": doubts(process),
            "unread": process.unread,
            "name": self.client.name,
            "cidfile": self.client.cidfile,
            "talks_to": self.client.engine,
            "path": self.path,
            "cid": self.cid,
            "until": until.isoformat(),
            "container": self.container,
            "engine": self.engine,
            "composed": self.composed,
            "fitting": self.fitting,
            "may_run": self.may_run,
            "failed": self.failed,
            "reached": self.reached,
            "created_by": self.created_by,
        }


def noted(facts: dict[str, Any], label: Label | None, runner: Process | None) -> Noted:
    """The reverse of `Noted.facts`. Raises ValueError, TypeError or KeyError for what that did not write."""
    words = ("cid", "container", "engine")
    maybe = ("name", "cidfile", "talks_to", "path")
    if not all(isinstance(facts[n], str) for n in words):
        raise ValueError("a client of another shape")
    if not all(facts[n] is None or isinstance(facts[n], str) for n in maybe):
        raise ValueError("a client of another shape")
    process = Process(
        identity=Identity(int(facts["pid"]), int(facts["start"])),
        ppid=0,
        pgid=0,
        sid=0,
        state="X",
        uid=-1,
        argv=(),
        environ={SPARE: "1"} if facts["spare"] else {},
        role=Role.OTHER,
        title=None,
        label=label,
        evidence=tuple(map(str, facts["evidence"])),
        trusted=True,
        line=frozenset(map(int, facts["line"])),
        runner=runner,
    )
    if "doubts" in facts:  # an earlier release kept no doubted one
        doubt(process, facts["doubts"])
        process.unread = {str(name): str(why) for name, why in dict(facts["unread"]).items()}
    client = Client(facts["name"], facts["cidfile"], process, facts["talks_to"])
    until = datetime.fromisoformat(facts["until"])
    if until.tzinfo is None:
        raise ValueError("a moment without a zone")
    one = Noted(client, facts["path"], facts["cid"], until, facts["container"], facts["engine"])
    one.failed = bool(facts.get("failed"))  # an earlier release kept none of these
    one.reached = str(facts.get("reached", ""))
    one.composed = {str(ident): str(engine) for ident, engine in dict(facts.get("composed", {})).items()}
    one.created_by = None if facts.get("created_by") is None else float(facts["created_by"])
    for ident, (engine, why) in dict(facts.get("fitting", {})).items():
        one.fitting[str(ident)] = Fit(str(engine), why if why in _MAY else "unproven")
    for ident, (engine, why, name, command, at) in dict(facts.get("may_run", {})).items():
        why = why if why in _MAY else "unproven"
        one.may_run[str(ident)] = MayRun(str(engine), why, str(name), str(command), float(at))
    return one


class Ties:
    """All docker clients of tasks that live, or whose container does. Thread-safe."""

    def __init__(self, proc: ProcFS) -> None:
        self._proc = proc
        self._noted: dict[Identity, Noted] = {}
        self._lock = threading.Lock()
        self._reading = threading.Thread()
        self._next_look = 0.0
        self._ended_execs: dict[str, None] = {}
        self._gone: list[Noted] = []  # ended, and had no container: they may have been rivals of a compose
        self._strangers: list[float] = []  # when another program was seen connected, seconds since 1970
        self._forgot_at = float("-inf")  # when one of these was forgotten
        self.heard: Heard | None = None  # what the kernel told, as far as that is known to be all
        self.changed = False  # differs from what was last saved

    def note(
        self, clients: Iterable[Client], executed_at: Callable[[int], float | None] = lambda _: None
    ) -> None:
        """Learn of living clients; those without a label are strangers', who may have asked for the same.

        executed_at: when a pid executed its program, seconds since 1970, if the kernel told.
        """
        with self._lock:
            for client in clients:
                process = client.process
                known = self._noted.get(process.identity)
                if known is not None:
                    known.client = client  # an earlier listener's knowledge of it was a copy
                    known.project = known.project or read_project(client, self._proc)
                elif process.state not in "ZXx":
                    self._noted[process.identity] = one = Noted(client, cidfiles.locate(client))
                    one.project = read_project(client, self._proc)
                    one.began = executed_at(process.pid) if client.compose is not None else None
                    self.changed = self.changed or process.label is not None
            self._see_who_is_gone()

    def _see_who_is_gone(self) -> None:
        now = datetime.now(timezone.utc)
        for identity, one in list(self._noted.items()):
            if one.until is None:
                if not self._lives(identity):
                    one.until, self.changed = now, True
            elif not one.matters and one.until < now - timedelta(seconds=AWAY):
                self._put_away(self._noted.pop(identity))
        for identity in list(self._noted)[:-MOST]:
            del self._noted[identity]
            self._forgot_at = time.time()

    def _put_away(self, one: Noted) -> None:
        self._gone.append(one)
        if len(self._gone) > MOST:
            del self._gone[0]
            self._forgot_at = time.time()

    def _lives(self, identity: Identity) -> bool:
        stat = self._proc.stat(identity.pid)
        return stat is not None and stat.start == identity.start and stat.state not in "ZXx"

    def told(self, ends: Iterable[ClientEnd]) -> None:
        """How clients ended, by the kernel's word."""
        ahead = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        with self._lock:
            for end in ends:
                one = self._noted.get(end.process.identity)
                if one is None:
                    self._note_ended(end, end.at / 1e9 + ahead)
                if one is not None and one.client.compose is not None:
                    one.went_wrong = os.WIFEXITED(end.status) and end.status != 0
                asks = one.client.ask or one.client.runs if one is not None else None
                if one is None or asks is None or asks.attached:
                    continue
                if end.status == 0:
                    one.created_by = end.at / 1e9 + ahead
                elif os.WIFEXITED(end.status):  # of one that was killed nobody knows what it had done
                    one.failed = self.changed = True

    def _note_ended(self, end: ClientEnd, at: float) -> None:
        """A client that came and went between two looks: it may have created what a compose seems to have."""
        client = read_client(end.process)
        if client is not None:
            one = Noted(client, None, until=datetime.fromtimestamp(at, timezone.utc))
            one.project = read_project(client, self._proc)
            self._put_away(one)

    def composes(self) -> bool:
        """True if a task's compose may have created containers."""
        with self._lock:
            return any(one.composes for one in self._noted.values())

    def composes_now(self) -> bool:
        """True if one is at it, or was a moment ago: all of that time is to be known."""
        now = datetime.now(timezone.utc)
        with self._lock:
            return any(
                one.client.compose is not None
                and (one.client.compose.detached or time.monotonic() - one.noted_at < STARTS)
                and (one.until is None or (now - one.until).total_seconds() < DECIDES)
                for one in self._noted.values()
                if one.composes
            )

    def see_others(self, url: str) -> None:
        """While a compose works: note whether others than the known clients are connected to the engine."""
        if not url.startswith(_UNIX) or not self.composes_now():
            return
        path = url[len(_UNIX) :]
        with self._lock:
            pids = [one.client.process.pid for one in self._noted.values() if one.until is None]
        others = unix_peers.connected_to(path)
        for pid in (os.getpid(), *pids):
            others -= unix_peers.sockets_of(self._proc.root, pid)
        if others & unix_peers.connected_to(path):  # what came and went meanwhile may be the listener's own
            if len(self._strangers) > MOST:
                self._forgot_at = self._strangers[-1]
            self._strangers = [*self._strangers[-MOST:], time.time()]

    def see_connections(self, urls: Iterable[str]) -> None:
        """Look which engine's socket the living clients hold that are not known to have created theirs."""
        looked = self._to_be_looked_at()
        held = {one: unix_peers.sockets_of(self._proc.root, one.client.process.pid) for one in looked}
        if not any(held.values()):
            return
        for url in urls:
            peers = unix_peers.connected_to(url[len(_UNIX) :]) if url.startswith(_UNIX) else frozenset()
            now = time.time()
            for one, sockets in held.items():
                number = len(sockets & peers)
                if number and self._lives(one.client.process.identity):
                    if not one.reached:
                        one.reached, self.changed = url, True
                    self._see_number(one, number, now)

    def _see_number(self, one: Noted, number: int, now: float) -> None:
        """What follows from how many connections a client holds."""
        if one.client.ask is not None and one.client.ask.attached and number >= ATTACHED:
            one.created_by = now
        if one.client.runs is not None and one.client.runs.attached and number >= EXECS:
            one.streams_since = one.streams_since or now
            if now - one.streams_since >= EXECS_FOR:
                one.created_by = now

    def about_to_connect(self) -> bool:
        """True if a task's client has just begun and was not seen connected to an engine yet."""
        with self._lock:
            new = [one for one in self._noted.values() if one.label is not None and one.until is None]
        return any(
            not one.reached
            and one.unproven
            and time.monotonic() - one.noted_at < BEGINS
            and self._lives(one.client.process.identity)
            for one in new
        )

    def may_count(self, engine: str) -> bool:
        """True if it may come to matter that all is known that the engine creates."""
        with self._lock:
            return any(
                one.label is not None
                and not one.container
                and not one.failed
                and (one.client.ask or one.client.runs or one.client.compose) is not None
                and (not one.reached or _one_engine(one.reached, engine))
                for one in self._noted.values()
            )

    def _to_be_looked_at(self) -> list[Noted]:
        moment = time.monotonic()
        with self._lock:
            found = [one for one in self._noted.values() if one.until is None and one.unproven]
            old = moment >= self._next_look
            if found and old:
                self._next_look = moment + LOOK_PAUSE
        return [one for one in found if old or moment - one.noted_at < YOUNG]

    def _age(self, one: Noted) -> float:
        return self._proc.age(one.client.process.identity.start)

    def waits_for(self, engine: str) -> bool:
        """True if a client has created a container on that engine, and which is to be counted out."""
        with self._lock:
            return any(self._is_creator(one, engine) for one in self._noted.values())

    def _is_creator(self, one: Noted, engine: str) -> bool:
        asks = one.client.ask or one.client.runs
        return (
            not one.container
            and one.created_by is not None
            and asks is not None
            and asks.sure
            and bool(one.reached)
            and _one_engine(one.reached, engine)
        )

    def open(self) -> list[Noted]:
        """The tasks' clients whose container is not known yet."""
        return [
            one
            for one in list(self._noted.values())
            if not one.container and one.label is not None and one.client.starts_one
        ]

    def open_execs(self) -> bool:
        """True if a task's living `docker exec` is not tied yet."""
        with self._lock:
            return any(
                one.client.runs is not None and one.until is None and not one.container
                for one in self._noted.values()
                if one.label is not None
            )

    def execs(self, engine: str) -> list[Noted]:
        """The tasks' `docker exec`s that are tied, and of which it is not known which process that is."""
        with self._lock:
            return [
                one
                for one in self._noted.values()
                if one.engine == engine and not one.claimed and one.client.runs is not None
            ]

    def read_cidfiles(self, wait: float = 0.0) -> None:
        """In one thread, since their file system may hang. Returns after `wait` seconds at the latest."""
        new = [one for one in self.open() if not one.cid and one.client.cidfile is not None]

        def read() -> None:
            for one in new:
                one.cid = cidfiles.read(one.client, one.path)

        with self._lock:  # two threads may ask at once
            if new and not self._reading.is_alive():
                self._reading = threading.Thread(target=read, name="cidfiles", daemon=True)
                self._reading.start()
            reading = self._reading
        if new and wait:
            reading.join(wait)

    def tie(
        self,
        engine: str,
        containers: Sequence[Container],
        begun: float,
        creations: Creations | None = None,
        seen: Mapping[str, Container] | None = None,
    ) -> None:
        """An engine's listing, begun then (monotonic seconds): tie what can be, forget what is gone.

        creations: all that the engine created, as far as it is known. seen: what it showed lately.
        """
        with self._lock:
            taken = self._taken()
            free = [container for container in containers if container.id not in taken]
            for one in self.open():
                container = self._started_by(one, engine, free)
                if container is not None:
                    self._take(one, engine, container.id)
                    free.remove(container)
            shown = {**(seen or {}), **{container.id: container for container in containers}}
            self._count(engine, creations, shown)
            self._count_execs(engine, creations)
            self._follow_composes(engine, containers, creations)
            self._note_fitting(engine, containers, creations)
            self._forget(engine, {container.id for container in containers}, begun)

    def _taken(self) -> set[str]:
        """What is known to be a client's."""
        return {one.container for one in self._noted.values() if one.container}.union(
            *(one.composed for one in self._noted.values())
        )

    def _take(self, one: Noted, engine: str, ident: str) -> None:
        one.container, one.engine, self.changed = ident, engine, True

    def _count(self, engine: str, creations: Creations | None, shown: Mapping[str, Container]) -> None:
        """Tie what follows from how many there are; strangers' clients help to rule out."""
        if creations is None:
            return
        creators = []
        for identity, one in self._noted.items():
            known = self._known_to(one, engine, creations)
            if known is not None and one.client.ask is not None and one.created_by is not None:
                creators.append(
                    Creator(identity, one.client.ask, self._born_at(one), one.created_by, list(known))
                )
        taken = self._taken()
        made = {one.id: one for creator in creators for one in creator.known}
        for identity, ident in resolve(creators, shown, taken).items():
            if not self._has_rival(self._noted[identity], made[ident], shown):
                self._take(self._noted[identity], engine, ident)

    def _count_execs(self, engine: str, creations: Creations | None) -> None:
        """Likewise what was to be run in containers."""
        possible: dict[Identity, set[str]] = {}
        made: dict[str, ExecCreation] = {}
        taken = {one.container for one in self._noted.values()}
        for identity, one in self._noted.items() if creations is not None else ():
            runs = one.client.runs
            if (
                creations is None
                or runs is None
                or one.created_by is None
                or not self._is_creator(one, engine)
            ):
                continue
            known = creations.known_execs(self._born_at(one) - SLACK_OF_ONE, one.created_by)
            made |= {e.id: e for e in known or ()}
            if known is not None:
                possible[identity] = {e.id for e in known if may_run(runs, e)} - taken
        for identity, ident in assigned(possible).items():
            if not self._has_rival(self._noted[identity], made[ident], {}):
                self._take(self._noted[identity], engine, ident)

    def _has_rival(self, one: Noted, made: Creation | ExecCreation, shown: Mapping[str, Container]) -> bool:
        """True if another task's or a stranger's client is known that may have made it as well.

        An exit proves that it was this one. What a client is attached to is concluded from how it behaves:
        that is not enough where another one is known that asked for the same.
        """
        asks = one.client.ask or one.client.runs
        return (asks is None or asks.attached) and any(
            other.label != one.label
            and not other.container
            and not other.failed
            and other.created_by is None
            and self._born_at(other) - SLACK_OF_ONE <= made.at
            and (other.until is None or made.at <= other.until.timestamp())
            and _might(other.client, made, shown)
            for other in self._noted.values()
            if other is not one
        )

    def _known_to(self, one: Noted, engine: str, creations: Creations) -> Iterable[Creation] | None:
        """All that the engine created in the time of a proven client; None if that is not known."""
        if not self._is_creator(one, engine) or one.created_by is None:
            return None
        return creations.known(self._born_at(one) - SLACK_OF_ONE, one.created_by)

    def _born_at(self, one: Noted) -> float:
        return time.time() - self._age(one)

    def _note_fitting(
        self, engine: str, containers: Sequence[Container], creations: Creations | None
    ) -> None:
        """What the tasks' clients may have created, and nobody is known to have."""
        taken = self._taken()
        free = [container for container in containers if container.id not in taken]
        for one in self._noted.values():
            if one.label is None:
                continue
            kept = {ident: fit for ident, fit in one.fitting.items() if fit.engine != engine}
            if not one.container:
                kept |= self._fitting(one, engine, free, creations)
            if kept != one.fitting:
                one.fitting, self.changed = kept, True

    def _fitting(
        self, one: Noted, engine: str, free: Sequence[Container], creations: Creations | None
    ) -> dict[str, Fit]:
        why = self._why_not(one, engine, creations)
        fits_it = {} if why is None else {c.id: Fit(engine, why) for c in free if self._may_be(one, c)}
        if why == "compose":
            for container in (c for c in free if c.id in fits_it):
                word = self._why_not_composed(one, engine, container, creations) or why
                fits_it[container.id] = Fit(engine, word)
        if creations is None or (one.client.ask is None and one.client.starts_one):
            # a listener that knew more found these
            fits_it |= {c.id: one.fitting[c.id] for c in free if c.id in one.fitting}
        return fits_it

    def _why_not(self, one: Noted, engine: str, creations: Creations | None) -> str | None:
        """The word for why it is not certain what the client has created on the engine; None: nothing."""
        says, ask = one.client.engine, one.client.ask or one.client.runs
        if one.failed or (one.reached and not _one_engine(one.reached, engine)):
            return None
        if says and says != ANOTHER_CONTEXT and not _one_engine(says, engine):
            return None
        if ask is None:
            return "compose" if one.client.compose is not None else None
        if not ask.sure:
            return "unsure"
        if not one.reached:
            return "elsewhere"
        if one.created_by is None:
            return "unproven"
        return "others" if creations is None or self._known_to(one, engine, creations) is not None else "gap"

    def _may_be(self, one: Noted, container: Container) -> bool:
        ask = one.client.ask
        if not self._lived_at(one, container) and (ask is not None or not self._started_in(one, container)):
            return False
        if ask is None:
            return one.project is not None and one.project.has(container)
        if not ask.sure:
            return container.image in one.client.process.argv
        return fits(ask, container.name, container.image, container)

    def _started_in(self, one: Noted, container: Container) -> bool:
        """True if a container that was there began to run in the lifetime of a compose."""
        at = container.started_at
        if at is None or at.timestamp() < self._born_at(one):
            return False
        return one.until is None or at <= one.until

    def _follow_composes(
        self, engine: str, containers: Sequence[Container], creations: Creations | None
    ) -> None:
        """Tie what only a task's compose can have created."""
        taken = self._taken()
        for one in self._noted.values() if self.heard is not None and creations is not None else ():
            if one.label is None or self._why_not(one, engine, creations) != "compose":
                continue
            for container in containers:
                if container.id not in taken and self._may_be(one, container):
                    if self._why_not_composed(one, engine, container, creations) is None:
                        one.composed[container.id] = engine
                        taken.add(container.id)
                        self.changed = True

    def _why_not_composed(
        self, one: Noted, engine: str, container: Container, creations: Creations | None
    ) -> str | None:
        reached = bool(one.reached) and engine.startswith(_UNIX)
        began = one.began if one.began is not None and one.began > self._forgot_at else None
        up = Up(one.client, one.project, began, one.until is not None, one.went_wrong, reached)

        def rivals(made: Creation) -> bool:
            others = (other for other in (*self._noted.values(), *self._gone) if other.label != one.label)
            return any(self._may_compose(other, engine, container, made) for other in others)

        return why_uncertain(up, container, creations, self.heard, rivals, self._strangers)

    def _may_compose(self, other: Noted, engine: str, container: Container, made: Creation) -> bool:
        """False only if that client cannot have created it."""
        client = other.client
        # what it says of its engine does not count: in a container a socket has another path
        if other.reached and not _one_engine(other.reached, engine):
            return False
        until = other.until.timestamp() if other.until is not None else float("inf")
        if not self._born_at(other) - SLACK_OF_ONE <= made.at <= until + SLACK_OF_ONE:
            return False
        if client.compose is not None:
            return other.project is None or other.project.may_have(container)
        return client.runs is None and (client.ask is None or _might(client, made, {container.id: container}))

    def untied(self) -> dict[str, list[Untied]]:
        """By container id, the clients that may have created what is tied to none."""
        found: dict[str, list[Untied]] = {}
        with self._lock:
            for one in self._noted.values():
                for ident, fit in one.fitting.items():
                    found.setdefault(ident, []).append(Untied(one.client, _why(one, fit.why)))
        return found

    def doubtful_execs(self) -> bool:
        """True if a task's `docker exec` is not tied, or what it may run was noted before it was."""
        with self._lock:
            return any(
                one.client.runs is not None and (one.may_run or not (one.container or one.failed))
                for one in self._noted.values()
                if one.label is not None
            )

    def note_execs(self, engine: str, creations: Creations) -> None:
        """What the tasks' `docker exec`s may have asked for, and nobody is known to have."""
        with self._lock:
            taken = {one.container for one in self._noted.values()} | self._ended_execs.keys()
            for one in self._noted.values():
                if one.label is None or one.client.runs is None:
                    continue
                why = None if one.container else self._why_not(one, engine, creations)
                found = {ident: may for ident, may in one.may_run.items() if may.engine != engine}
                if why is not None:
                    found |= {ident: may for ident, may in one.may_run.items() if ident not in taken}
                    until = one.until.timestamp() if one.until is not None else time.time()
                    found |= {
                        made.id: MayRun(engine, why, made.name, made.command, made.at)
                        for made in creations.heard_execs(self._born_at(one) - SLACK_OF_ONE, until)
                        if made.id not in taken and _may_ask(one.client, made)
                    }
                if found != one.may_run:
                    one.may_run, self.changed = found, True

    def drop_ended_execs(self, engine: Engine) -> None:
        """Name no more what ran in its containers and is gone. Raises EngineUnreachable."""
        for ident in self.untied_execs(engine.url):
            found = engine.exec_process(ident)
            if found is None or found[2]:
                self.exec_ended(ident)

    def exec_ended(self, ident: str) -> None:
        """What a `docker exec` ran is gone, whoever had asked for it."""
        with self._lock:
            self._ended_execs[ident] = None
            while len(self._ended_execs) > MOST:
                del self._ended_execs[next(iter(self._ended_execs))]
            for one in self._noted.values():
                if one.may_run.pop(ident, None) is not None:
                    self.changed = True

    def untied_execs(self, engine: str | None = None) -> dict[str, tuple[Container, list[Untied]]]:
        """By id, what runs in containers and the clients that may have asked for it; None: on any engine."""
        found: dict[str, tuple[Container, list[Untied]]] = {}
        with self._lock:
            for one in self._noted.values():
                for ident, may in one.may_run.items():
                    if engine is not None and not _one_engine(may.engine, engine):
                        continue
                    at = datetime.fromtimestamp(may.at, timezone.utc)
                    what = Container(ident, may.container, "", 0, at, False, "no", {}, runs=may.command)
                    found.setdefault(ident, (what, []))[1].append(
                        Untied(one.client, _why(one, may.why, runs=True))
                    )
        return found

    def _started_by(self, one: Noted, engine: str, free: Sequence[Container]) -> Container | None:
        if one.cid:
            return next((c for c in free if c.id == one.cid and self._lived_at(one, c)), None)
        # a name means one container only on the engine that the client talks to; an id is everybody's
        if one.client.name is None or not _one_engine(one.client.engine or engine, engine):
            return None
        container = next((c for c in free if c.name == one.client.name and self._lived_at(one, c)), None)
        if container is None:
            return None
        rivals = (
            other
            for other in self._noted.values()
            if other is not one
            and other.client.name == container.name
            and other.label != one.label
            and self._lived_at(other, container)
        )
        return container if next(rivals, None) is None else None

    def _lived_at(self, one: Noted, container: Container) -> bool:
        """True if the container was created in the client's lifetime: else it would be somebody else's."""
        now = datetime.now(timezone.utc)
        born = now - timedelta(seconds=self._proc.age(one.client.process.identity.start) + SLACK)
        return born <= container.created_at <= (one.until or now + timedelta(seconds=SLACK))

    def _forget(self, engine: str, running: set[str], begun: float) -> None:
        """Clients that are gone and have no container any more."""
        moment = time.monotonic()
        late = datetime.now(timezone.utc) - timedelta(seconds=moment - begun + LATE)
        for identity, one in list(self._noted.items()):
            if one.container and (one.engine != engine or one.container in running):
                one.unseen = None if one.engine == engine else one.unseen
                continue
            if any(where != engine or ident in running for ident, where in one.composed.items()):
                one.unseen = None
                continue
            if one.until is None or one.until > late or one.fitting or one.may_run:
                continue
            one.unseen = one.unseen or moment
            if moment - one.unseen >= KEPT or one.label is None:
                self._put_away(self._noted.pop(identity))
                self.changed = True

    def clients(self) -> dict[str, Client]:
        """The clients that started containers, by the full id of those."""
        with self._lock:
            known = list(self._noted.values())
            composed = {ident: one.client for one in known for ident in one.composed}
            return composed | {one.container: one.client for one in known if one.container}

    def all(self) -> list[Noted]:
        with self._lock:
            return list(self._noted.values())

    def restore(self, known: Iterable[Noted]) -> None:
        """Take up what an earlier listener on this boot remembered."""
        with self._lock:
            for one in known:
                if self._lives(one.client.process.identity):
                    one.until = None
                self._noted.setdefault(one.client.process.identity, one)


def _why(one: Noted, why: str, *, runs: bool = False) -> str:
    pid = one.client.process.pid
    does = f"exec {pid} may have asked for it" if runs else f"client {pid} may have created it"
    return _MAY[why].format(does, pid)


def _may_ask(client: Client, made: ExecCreation) -> bool:
    runs = client.runs
    if runs is None or not runs.sure:  # its words may be others than they seem: the container is among them
        words = client.process.argv
        return made.name in words or any(len(word) >= 4 and made.container.startswith(word) for word in words)
    return may_run(runs, made)


def _might(client: Client, made: Creation | ExecCreation, shown: Mapping[str, Container]) -> bool:
    """True if a client may have asked for it."""
    if isinstance(made, ExecCreation):
        return client.runs is not None and (not client.runs.sure or may_run(client.runs, made))
    ask = client.ask
    return ask is not None and (not ask.sure or fits(ask, made.name, made.image, shown.get(made.id)))


def _one_engine(url: str, other: str) -> bool:
    """True if two URLs are one engine's; /var/run is a link to /run."""
    if url.startswith(_UNIX) and other.startswith(_UNIX):
        return os.path.realpath(url[len(_UNIX) :]) == os.path.realpath(other[len(_UNIX) :])
    return url == other

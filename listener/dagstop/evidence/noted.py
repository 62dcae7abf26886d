"""One docker client that is remembered, and what it started or may have started."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, NamedTuple

from dagstop.evidence.compose import WORDS, Project
from dagstop.evidence.containers import Client
from dagstop.evidence.match import SPARE, asks_to_be_spared
from dagstop.evidence.runners import doubt, doubts, row_of, undoubted
from dagstop.model import Identity, Label, Process

UNIX = "unix://"
WHYS = {
    "unsure": "docker {0}: its command line is not understood for certain",
    "elsewhere": "docker {0}: it was not seen connected to this engine",
    "unproven": "docker {0}: it was not seen to have",
    "failed": "docker {0}: it asked for this name, and ended with an error",
    "gap": "docker {0}: the engine's events do not reach back that far",
    **WORDS,
    "unread": "{0}: it ended before it was read",
    "others": "docker {0}, and so may others",
}
"""Why a container is not tied to a client that it fits."""


class Fit(NamedTuple):
    """A container that a client may have created."""

    engine: str  # URL of the engine that has it
    why: str  # it is not certain: a key of WHYS


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
    began: float | None = None  # when it was executed, seconds since 1970, if the kernel told
    went_wrong: bool = False  # it ended with an error
    composed: dict[str, str] = field(default_factory=dict)  # by id, the engine of each that it created
    streams_since: float | None = None  # when a `docker exec` was first seen to hold EXECS connections
    claimed: bool = False  # what it runs is known to the watch, or has ended
    created_by: float | None = None  # when it had created one at the latest, seconds since 1970
    failed: bool = False  # it ended with an error, and had started none
    fitting: dict[str, Fit] = field(default_factory=dict)  # by id, what may be its
    may_run: dict[str, MayRun] = field(default_factory=dict)  # by id, what a `docker exec` may have asked for
    noted_at: float = field(default_factory=time.monotonic)  # its process may be older, and have been bash
    unread: bool = False  # it ended before it was read, so it may have been no client

    @property
    def label(self) -> Label | None:
        return self.client.process.label

    @property
    def has(self) -> dict[str, str]:
        """By id, the engine of each container that is known to be its."""
        return {self.container: self.engine} if self.container else self.composed

    @property
    def matters(self) -> bool:
        """True while something that it created, or may have, may be there."""
        return bool(self.has or self.fitting or self.may_run)

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
        environ={SPARE: "1"} if facts["spare"] else {},
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
        one.fitting[str(ident)] = Fit(str(engine), why if why in WHYS else "unproven")
    for ident, (engine, why, name, command, at) in dict(facts.get("may_run", {})).items():
        why = why if why in WHYS else "unproven"
        one.may_run[str(ident)] = MayRun(str(engine), why, str(name), str(command), float(at))
    return one


def why(one: Noted, word: str, *, runs: bool = False) -> str:
    """The sentence for a key of WHYS; runs: of what a `docker exec` asked for."""
    pid = one.client.process.pid
    who = "process" if word == "unread" else "exec" if runs else "client"
    return WHYS[word].format(f"{who} {pid} may have {'asked for' if runs else 'created'} it", pid)


def one_engine(url: str, other: str) -> bool:
    """True if two URLs are one engine's; /var/run is a link to /run."""
    if url.startswith(UNIX) and other.startswith(UNIX):
        return os.path.realpath(url[len(UNIX) :]) == os.path.realpath(other[len(UNIX) :])
    return url == other

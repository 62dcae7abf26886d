"""What an engine has created, and since when that is known without a gap.

An engine keeps its last events (256 of them: moby, daemon/events) and gives them on request, all kinds in
one row. Two such answers that overlap leave nothing out between them. Neither does a short one within one
stream: the engine has not been restarted since that began, and has pushed nothing out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHORT = 48
"""Events that no engine pushes out: an early one kept 64."""
BEHIND = 64
"""Events heard since the last answer, after which it is time for the next one."""
MOST = 5000
_NOTED = frozenset(("create", "exec_create", "destroy", "rename"))


@dataclass(frozen=True, slots=True)
class Creation:
    """One container, as it was created."""

    id: str
    name: str
    image: str  # as it was asked for
    at: float  # seconds since 1970 by the engine's clock


@dataclass(frozen=True, slots=True)
class ExecCreation:
    """What was to be run in a container that was there."""

    id: str
    container: str  # full id
    name: str  # of the container, at that time
    command: str  # its words, with blanks between them
    at: float


class Creations:
    """Of one engine. Thread-safe. Times are seconds since 1970 by the engine's clock."""

    def __init__(self) -> None:
        self._found: dict[str, Creation] = {}
        self._execs: dict[str, ExecCreation] = {}
        self._replaced: dict[tuple[str, float], Mapping[str, str]] = {}  # by id and time
        self._lock = threading.Lock()
        self._since = float("inf")
        self._until = float("-inf")
        self._stream_since: float | None = None
        self._unanswered = 0

    def begun(self, asked_at: float) -> None:
        """A stream of events that was asked for then is there."""
        with self._lock:
            self._stream_since = asked_at

    def ended(self) -> None:
        """The stream is lost: the engine may have been restarted."""
        with self._lock:
            self._stream_since = None

    def heard(self, event: Mapping[str, Any]) -> None:
        """One event of the stream, of any kind. Raises KeyError, TypeError for what is not an event."""
        with self._lock:
            self._unanswered += 1
            self._note(event)

    @property
    def behind(self) -> bool:
        """True if so much was heard since the last answer that the next one may not overlap with it."""
        return self._unanswered >= BEHIND

    def answered(self, events: Sequence[Mapping[str, Any]], asked_at: float) -> None:
        """All that the engine has kept, up to that moment. Raises as `heard`."""
        with self._lock:
            self._unanswered = 0
            for event in events:
                self._note(event)
            since = event_at(events[0]) if events else asked_at
            if self._stream_since is not None and len(events) < SHORT:
                since = min(since, self._stream_since)
            self._since = min(self._since, since) if since <= self._until else since
            self._until = max(self._until, asked_at)

    def known(self, since: float, until: float) -> Iterable[Creation] | None:
        """All between the two; None if there may have been others."""
        with self._lock:
            if not self._since <= since <= until <= self._until:
                return None
            return [one for one in self._found.values() if since <= one.at <= until]

    def of(self, ident: str) -> Creation | None:
        """How that container was created, if that was heard of."""
        with self._lock:
            return self._found.get(ident)

    def replaced(self, since: float, until: float) -> list[Mapping[str, str]]:
        """Labels (and what else an event has) of all that were renamed or removed between the two.

        Complete if `known` is.
        """
        with self._lock:
            return [facts for (_, at), facts in self._replaced.items() if since <= at <= until]

    def exec_at(self, ident: str) -> float | None:
        """When it was created, if that is known."""
        with self._lock:
            one = self._execs.get(ident)
            return one.at if one is not None else None

    def heard_execs(self, since: float, until: float) -> list[ExecCreation]:
        """Those that are known of; there may have been others."""
        with self._lock:
            return [one for one in self._execs.values() if since <= one.at <= until]

    def known_execs(self, since: float, until: float) -> list[ExecCreation] | None:
        """The same of what was to be run in containers."""
        with self._lock:
            if not self._since <= since <= until <= self._until:
                return None
            return [one for one in self._execs.values() if since <= one.at <= until]

    def _note(self, event: Mapping[str, Any]) -> None:
        action, _, command = str(event.get("Action", "")).partition(": ")
        if event.get("Type") != "container" or action not in _NOTED:
            return
        facts, at = event["Actor"]["Attributes"], event_at(event)
        ident, name = event["Actor"]["ID"], facts.get("name", "")
        if action in ("destroy", "rename"):
            self._replaced[ident, at] = dict(facts)
        elif action == "create":
            self._found[ident] = Creation(ident, name, facts.get("image", ""), at)
        else:
            self._execs[facts["execID"]] = ExecCreation(facts["execID"], ident, name, command, at)
        for found in (self._found, self._execs):
            while len(found) > MOST:
                # what was there before is not known any more
                gone = found.pop(next(iter(found)))
                self._since = max(self._since, gone.at + 1e-6)
        while len(self._replaced) > MOST:
            _, at = first = next(iter(self._replaced))
            del self._replaced[first]
            self._since = max(self._since, at + 1e-6)


def event_at(event: Mapping[str, Any]) -> float:
    return int(event["timeNano"]) / 1e9

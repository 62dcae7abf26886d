"""What a docker client may have created, and why that is not certain; what only a task's compose can have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dagstop.evidence.clients import Clients
from dagstop.evidence.compose import Up, why_uncertain
from dagstop.evidence.connections import Connections
from dagstop.evidence.containers import ANOTHER_CONTEXT, says_whose_it_is
from dagstop.evidence.counting import known_to, might
from dagstop.evidence.creators import SLACK, fits
from dagstop.evidence.noted import UNIX, Fit, Noted, Untied, one_engine, why
from dagstop.evidence.unread import Heard
from dagstop.host.containers import Container
from dagstop.host.creations import Creation, Creations


class Lives:
    """From when to when tasks' processes that ended unread may have asked for something."""

    def __init__(self, unread: Iterable[Noted]) -> None:
        self._spans = [
            (one.began - SLACK, one.until.timestamp() + SLACK, one)
            for one in unread
            if one.began is not None and one.until is not None
        ]
        self.since = min((since for since, _, _ in self._spans), default=float("inf"))  # seconds since 1970
        self.until = max((until for _, until, _ in self._spans), default=float("-inf"))

    def at(self, moment: float) -> list[Noted]:
        """Who was there then."""
        if not self.since <= moment <= self.until:
            return []
        return [one for since, until, one in self._spans if since <= moment <= until]


class Fitting:
    """Of all clients. Not thread-safe: `Ties` has the lock."""

    def __init__(self, clients: Clients, connections: Connections) -> None:
        self._clients = clients
        self._connections = connections
        self.heard: Heard | None = None  # what the kernel told, as far as that is known to be all

    def note(self, engine: str, containers: Sequence[Container], creations: Creations | None) -> None:
        """What the tasks' clients may have created, and nobody is known to have."""
        taken = self._clients.taken()
        free = [container for container in containers if container.id not in taken]
        for one in self._clients.noted.values():
            if one.label is None:
                continue
            kept = {ident: fit for ident, fit in one.fitting.items() if fit.engine != engine}
            if not one.container:
                kept |= self._fitting(one, engine, free, creations)
            if kept != one.fitting:
                one.fitting, self._clients.changed = kept, True

    def _fitting(
        self, one: Noted, engine: str, free: Sequence[Container], creations: Creations | None
    ) -> dict[str, Fit]:
        said = self.why_not(one, engine, creations)
        fits_it = {} if said is None else {c.id: Fit(engine, said) for c in free if self._may_be(one, c)}
        if said == "compose":
            for container in (c for c in free if c.id in fits_it):
                word = self._why_not_composed(one, engine, container, creations) or said
                fits_it[container.id] = Fit(engine, word)
        if creations is None or (one.client.ask is None and one.client.starts_one):
            # a listener that knew more found these
            fits_it |= {c.id: one.fitting[c.id] for c in free if c.id in one.fitting}
        return fits_it

    def why_not(self, one: Noted, engine: str, creations: Creations | None) -> str | None:
        """The word for why it is not certain what the client has created on the engine; None: nothing."""
        says, ask = one.client.engine, one.client.ask or one.client.runs
        if one.reached and not one_engine(one.reached, engine):
            return None
        if one.failed:
            return None if one.client.name is None else "failed"
        if says and says != ANOTHER_CONTEXT and not one_engine(says, engine):
            return None
        if ask is None:
            return "compose" if one.client.compose is not None else None
        if not ask.sure:
            return "unsure"
        if not one.reached:
            return "elsewhere"
        if one.created_by is None:
            return "unproven"
        return (
            "others"
            if creations is None or known_to(self._clients, one, engine, creations) is not None
            else "gap"
        )

    def _may_be(self, one: Noted, container: Container) -> bool:
        ask = one.client.ask
        if not self._clients.lived_at(one, container) and (
            ask is not None or not self._started_in(one, container)
        ):
            return False
        if ask is None:
            return one.project is not None and one.project.has(container)
        if not ask.sure:
            return container.image in one.client.process.argv
        return fits(ask, container.name, container.image, container)

    def _started_in(self, one: Noted, container: Container) -> bool:
        """True if a container that was there began to run in the lifetime of a compose."""
        at = container.started_at
        if at is None or at.timestamp() < self._clients.born_at(one):
            return False
        return one.until is None or at <= one.until

    def follow_composes(
        self, engine: str, containers: Sequence[Container], creations: Creations | None
    ) -> None:
        """Tie what only a task's compose can have created."""
        taken = self._clients.taken()
        for one in self._clients.noted.values():
            if one.label is None or self.why_not(one, engine, creations) != "compose":
                continue
            for container in containers:
                if container.id not in taken and self._may_be(one, container):
                    if self._why_not_composed(one, engine, container, creations) is None:
                        one.composed[container.id] = engine
                        taken.add(container.id)
                        self._clients.changed = True

    def _why_not_composed(
        self, one: Noted, engine: str, container: Container, creations: Creations | None
    ) -> str | None:
        reached = bool(one.reached) and engine.startswith(UNIX)
        began = one.began if one.began is not None and one.began > self._clients.forgot_at else None
        up = Up(one.client, one.project, began, one.until is not None, one.went_wrong, reached)

        def rivals(made: Creation) -> bool:
            # who ended unread is among what the kernel told
            others = (o for o in self._clients.ever() if o.label != one.label and not o.unread)
            return any(self._may_compose(other, engine, container, made) for other in others)

        return why_uncertain(up, container, creations, self.heard, rivals, self._connections.strangers)

    def _may_compose(self, other: Noted, engine: str, container: Container, made: Creation) -> bool:
        """False only if that client cannot have created it."""
        client = other.client
        # what it says of its engine does not count: in a container a socket has another path
        if other.reached and not one_engine(other.reached, engine):
            return False
        until = other.until.timestamp() if other.until is not None else float("inf")
        if not self._clients.born_at(other) - SLACK <= made.at <= until + SLACK:
            return False
        if client.compose is not None:
            return other.project is None or other.project.may_have(container)
        return client.runs is None and (client.ask is None or might(client, made, {container.id: container}))

    def name_unread(self, engine: str, containers: Sequence[Container], lives: Lives) -> None:
        """What was created in one of these lives, and nobody is known to have."""
        taken = self._clients.taken()
        for container in containers:
            if container.id in taken or says_whose_it_is(container):
                continue
            for one in lives.at(container.created_at.timestamp()):
                if container.id not in one.fitting:
                    one.fitting[container.id] = Fit(engine, "unread")
                    self._clients.remember(one)

    def untied(self) -> dict[str, list[Untied]]:
        """By container id, the clients that may have created what is tied to none."""
        found: dict[str, list[Untied]] = {}
        for one in self._clients.noted.values():
            for ident, fit in one.fitting.items():
                found.setdefault(ident, []).append(Untied(one.client, why(one, fit.why)))
        return found

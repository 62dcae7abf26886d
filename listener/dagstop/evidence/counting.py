"""Which container, or process in one, a docker client created that is proven to have: by counting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dagstop.evidence.clients import Clients
from dagstop.evidence.containers import Client
from dagstop.evidence.creators import SLACK, Creator, assigned, fits, may_run, resolve
from dagstop.evidence.noted import Noted
from dagstop.host.containers import Container
from dagstop.host.creations import Creation, Creations, ExecCreation
from dagstop.model import Identity


def count(clients: Clients, engine: str, creations: Creations | None, shown: Mapping[str, Container]) -> None:
    """Tie what follows from how many there are; strangers' clients help to rule out."""
    if creations is None:
        return
    creators = []
    for identity, one in clients.noted.items():
        known = known_to(clients, one, engine, creations)
        if known is not None and one.client.ask is not None and one.created_by is not None:
            creators.append(
                Creator(identity, one.client.ask, clients.born_at(one), one.created_by, list(known))
            )
    taken = clients.taken()
    made = {one.id: one for creator in creators for one in creator.known}
    for identity, ident in resolve(creators, shown, taken).items():
        if not _has_rival(clients, clients.noted[identity], made[ident], shown):
            clients.take(clients.noted[identity], engine, ident)


def count_execs(clients: Clients, engine: str, creations: Creations | None) -> None:
    """Likewise what was to be run in containers."""
    possible: dict[Identity, set[str]] = {}
    made: dict[str, ExecCreation] = {}
    taken = {one.container for one in clients.noted.values()}
    for identity, one in clients.noted.items() if creations is not None else ():
        runs = one.client.runs
        if creations is None or runs is None or one.created_by is None or not clients.is_creator(one, engine):
            continue
        known = creations.known_execs(clients.born_at(one) - SLACK, one.created_by)
        made |= {e.id: e for e in known or ()}
        if known is not None:
            possible[identity] = {e.id for e in known if may_run(runs, e)} - taken
    for identity, ident in assigned(possible).items():
        if not _has_rival(clients, clients.noted[identity], made[ident], {}):
            clients.take(clients.noted[identity], engine, ident)


def _has_rival(
    clients: Clients, one: Noted, made: Creation | ExecCreation, shown: Mapping[str, Container]
) -> bool:
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
        and clients.born_at(other) - SLACK <= made.at
        and (other.until is None or made.at <= other.until.timestamp())
        and might(other.client, made, shown)
        for other in clients.noted.values()
    )


def known_to(clients: Clients, one: Noted, engine: str, creations: Creations) -> Iterable[Creation] | None:
    """All that the engine created in the time of a proven client; None if that is not known."""
    if not clients.is_creator(one, engine) or one.created_by is None:
        return None
    return creations.known(clients.born_at(one) - SLACK, one.created_by)


def might(client: Client, made: Creation | ExecCreation, shown: Mapping[str, Container]) -> bool:
    """True if a client may have asked for it."""
    if isinstance(made, ExecCreation):
        return client.runs is not None and (not client.runs.sure or may_run(client.runs, made))
    ask = client.ask
    return ask is not None and (not ask.sure or fits(ask, made.name, made.image, shown.get(made.id)))

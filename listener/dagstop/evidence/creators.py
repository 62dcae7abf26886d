"""Which container a docker client created: pure, and by counting.

A client that is proven to have created one container created one of those that came in its time on its
engine and are what it asked for. If that is one, it is the client's, whoever else may speak to the engine:
an SDK, another host, a client that nobody saw. If they are two, either may be anybody's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dagstop.evidence.docker_words import Ask, ExecAsk
from dagstop.host.containers import Container
from dagstop.host.creations import Creation, ExecCreation
from dagstop.model import Identity

SLACK = 0.1
"""Seconds by which the times of one machine may differ: a tick, and a clock that is adjusted meanwhile."""
_GIVEN_BY_ENGINE = re.compile(r"[a-z]+_[a-z]+[0-9]*")
"""Names for those who ask for none (moby, pkg/namesgenerator)."""


@dataclass(frozen=True, slots=True)
class Creator:
    """A client that created one container between the two moments (seconds since 1970)."""

    key: Identity
    ask: Ask
    since: float
    until: float
    known: Sequence[Creation]  # all that its engine created in that time


def resolve(
    creators: Iterable[Creator], containers: Mapping[str, Container], taken: Collection[str] = ()
) -> dict[Identity, str]:
    """By the client's key, the id of the container that only it can have created.

    containers: what is known of some of them. taken: ids that are known to be of others. What is certainly
    one client's is none of the others', which may leave them with one.
    """
    possible = {
        creator.key: {one.id for one in creator.known if may_be(creator, one, containers.get(one.id))}
        - set(taken)
        for creator in creators
    }
    return assigned(possible)


def assigned(possible: dict[Identity, set[str]]) -> dict[Identity, str]:
    """By key, the one that only it can have; `possible` is used up."""
    found: dict[Identity, str] = {}
    while single := [key for key, ids in possible.items() if len(ids) == 1]:
        key = single[0]
        (ident,) = possible.pop(key)
        if any(ids == {ident} for ids in possible.values()):
            # two that are sure of one: something of what they are sure of is wrong
            possible = {key: ids for key, ids in possible.items() if ids != {ident}}
            continue
        found[key] = ident
        for ids in possible.values():
            ids.discard(ident)
    return found


def may_run(ask: ExecAsk, creation: ExecCreation) -> bool:
    """False only if a `docker exec` cannot have asked for it."""
    here = creation.container.startswith(ask.container) or creation.name == ask.container.removeprefix("/")
    return here and creation.command.rstrip(" ") == " ".join(ask.command).rstrip(" ")


def may_be(creator: Creator, creation: Creation, container: Container | None) -> bool:
    """False only if the client cannot have created it."""
    if not creator.since - SLACK <= creation.at <= creator.until:
        return False
    return fits(creator.ask, creation.name, creation.image, container)


def fits(ask: Ask, name: str, image: str, container: Container | None) -> bool:
    """False only if it cannot be what was asked for. name: the one that it was created with."""
    if image != ask.image:
        return False
    if name and (name != ask.name if ask.name else not _GIVEN_BY_ENGINE.fullmatch(name)):
        return False
    shape = container.shape if container is not None else None
    if shape is None:
        return True
    if ask.command and _trimmed(shape.command) != _trimmed(ask.command):
        return False
    if ask.entrypoint and shape.entrypoint != (ask.entrypoint,):
        return False
    same = (shape.remove, shape.tty, shape.stdin) == (ask.remove, ask.tty, ask.stdin)
    return same and _has(shape.environment, ask.environment) and _has(shape.labels, ask.labels)


def _has(found: Mapping[str, str], asked: Mapping[str, str]) -> bool:
    """What the words say last may end in blanks that /proc/PID/cmdline does not show."""
    return all(name in found and found[name].rstrip(" ") == asked[name].rstrip(" ") for name in asked)


def _trimmed(words: Sequence[str]) -> tuple[str, ...]:
    """Without the blanks at the end that /proc/PID/cmdline does not show."""
    left = list(words)
    while left and not left[-1].strip(" "):
        left.pop()
    return (*left[:-1], left[-1].rstrip(" ")) if left else ()

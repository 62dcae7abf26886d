"""The one judge: what is to happen to each process and container of this host under an order.

The listener acts on these verdicts, a dry run and `dagstop explain` show them, and `dagstop ps` says by the
same view whose a container is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from dagstop.evidence.containers import Client, judge_container, label_of, neighbours
from dagstop.evidence.creators import SLACK
from dagstop.evidence.index import Index
from dagstop.evidence.match import ELSEWHERE, judge
from dagstop.evidence.noted import Untied
from dagstop.evidence.place import named_in, why_not_ours
from dagstop.evidence.site import Site, ancestors
from dagstop.host.containers import Container
from dagstop.host.procfs import ProcFS
from dagstop.model import Decision, Label, Process, StopOrder, Verdict

EARLY = 1.0
"""The most seconds that an engine may say it ran before that fork, by the times of both."""
SLOW_START = 60.0
"""The most seconds from the fork of a container's init until its engine says that the container runs."""


class Containers:
    """Containers of this host, running or ended lately, each with the docker client that started it."""

    def __init__(
        self,
        found: Iterable[Container],
        clients: Mapping[str, Client],
        beside: Iterable[Container] = (),
        untied: Mapping[str, Sequence[Untied]] | None = None,
        execs: Mapping[str, tuple[Container, Sequence[Untied]]] | None = None,
    ) -> None:
        """beside: what other engines of the host run, which may be another Airflow's.

        untied: by id, the clients that may have created a container. execs: what runs in them, likewise.
        """
        self.execs = dict(execs or {})
        # two URLs may be one engine's: a container counts once
        self.all = {container.id: container for container in found}
        self.clients = {ident: client for ident, client in clients.items() if ident in self.all}
        self.untied = {ident: may for ident, may in (untied or {}).items() if ident in self.all}
        self.beside = neighbours(({one.id: one for one in beside} | self.all).values())
        # under what its tags name and under what its client names: they may contradict each other
        claims: list[tuple[Container, Label | None]] = [(one, one.label) for one in self.all.values()]
        claims += [(self.all[ident], client.process.label) for ident, client in self.clients.items()]
        claims += [
            (self.all[ident], one.client.process.label) for ident, may in self.untied.items() for one in may
        ]
        self._claims = Index(claims, lambda claim: claim[1])

    def of(self, order: StopOrder) -> dict[str, Container]:
        """Everything that may concern the order, by id."""
        return {container.id: container for container, _ in self._claims.of(order)}

    def label(self, container: Container, site: Site) -> Label | None:
        """Whose a container is, whatever the order."""
        return label_of(container, self.clients.get(container.id), site)


def of_processes(
    order: StopOrder,
    processes: Index[Process],
    started_at: Callable[[Process], datetime],
    site: Site,
) -> Iterator[tuple[Process, Verdict]]:
    """Every process that has to do with the order; started_at: on the database's clock."""
    for process in processes.of(order):
        if process.state not in {"X", "x"}:
            verdict = judge(order, process, started_at(process), site)
            if verdict.decision is not Decision.FOREIGN:
                yield process, verdict


def of_containers(
    order: StopOrder,
    containers: Containers,
    to_db: Callable[[datetime], datetime],
    site: Site,
    known: Collection[str] = (),
) -> Iterator[tuple[Container, Verdict]]:
    """Every container that has to do with the order.

    to_db: from this host's clock to the database's. known: ids of those that were signalled under this order
    before, which may have lost their client since.
    """
    found = {ident: containers.all[ident] for ident in known} | containers.of(order)
    for container in found.values():
        client, created = containers.clients.get(container.id), to_db(container.created_at)
        verdict = judge_container(order, container, client, created, site, containers.beside)
        if verdict.decision is Decision.FOREIGN and client is None:
            may = containers.untied.get(container.id, ())
            verdict = _of_untied(order, container, may, containers, created, site) or verdict
        if verdict.decision is Decision.FOREIGN and container.id in known:
            verdict = Verdict(Decision.KILL, "it was signalled under this order before")
            if order.hands_off is not None:
                verdict = Verdict(Decision.SPARE, order.hands_off)
        if verdict.decision is not Decision.FOREIGN:
            yield container, verdict
    for runs, may in containers.execs.values():
        doubt = _of_untied(order, runs, may, containers, to_db(runs.created_at), site)
        if doubt is not None:
            yield runs, doubt


def _of_untied(
    order: StopOrder,
    container: Container,
    may: Sequence[Untied],
    containers: Containers,
    created: datetime,
    site: Site,
) -> Verdict | None:
    """What the run's client may have created is never killed, and never kept quiet about."""
    for one in may:
        verdict = judge_container(order, container, one.client, created, site, containers.beside)
        runs = verdict.decision in (Decision.KILL, Decision.SETTLE)
        if runs or (verdict.reason == ELSEWHERE and _in_one_of_ours(order, one.client, site)):
            return replace(verdict, decision=Decision.SPARE, reason=one.why, untied=True)
    return None


def _in_one_of_ours(order: StopOrder, client: Client, site: Site) -> bool:
    """True of a client in a container that the operator named, and in which a task of the run ran."""
    place = site.places.get(client.process.place) if client.process.place is not None else None
    return place is not None and named_in(order, place) and why_not_ours(place, site.databases) is None


def inside(proc: ProcFS, containers: Iterable[Container], pids: Iterable[int]) -> set[int]:
    """Those of the pids that live in one of the containers, and die or stay with that."""
    inits = {one.pid for one in containers if start_of_init(proc, one) is not None}
    return {pid for pid in pids if not inits.isdisjoint(ancestors(proc, pid))} if inits else set()


def start_of_init(proc: ProcFS, container: Container) -> int | None:
    """The start time of the container's init, if a process that we see is proven to be that; else None.

    The engine's pids count in the engine's pid namespace: to a listener in a container they are other
    processes. So its cgroup has to name the container, and it has to have started when that did.
    """
    stat = proc.stat(container.pid) if container.pid else None
    if stat is None or container.started_at is None or container.id not in proc.cgroups(container.pid):
        return None
    begun = time.time() - proc.age(stat.start)
    return stat.start if -EARLY <= container.started_at.timestamp() - begun <= SLOW_START else None


def start_of_exec(proc: ProcFS, container: Container, pid: int, created_at: float) -> int | None:
    """The start time of what a `docker exec` runs, if a process that we see is proven to be that; else None.

    created_at: when the engine was asked for it, seconds since 1970.
    """
    stat = proc.stat(pid) if pid else None
    if stat is None or container.id not in proc.cgroups(pid) or start_of_init(proc, container) is None:
        return None
    begun = time.time() - proc.age(stat.start)
    return stat.start if -SLACK <= begun - created_at <= SLOW_START else None

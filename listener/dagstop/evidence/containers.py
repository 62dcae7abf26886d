"""Order + container -> verdict. Pure. A container is known by its tags, or by its docker client.

Processes of a container descend from containerd-shim, not from the task, so that no process group
reaches them; what ties them to a task is what the cluster policy put into their environment and
labels, or the `--name` / `--cidfile` of the `docker run` that a task's own process executed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from dagstop.airflow_names import conflict, read_try_tags
from dagstop.evidence.docker_words import (
    Ask,
    ComposeAsk,
    ExecAsk,
    read_ask,
    read_compose,
    read_exec,
    read_words,
)
from dagstop.evidence.match import ELSEWHERE, SPARE, asks_to_be_spared, judge, names_order, with_hands_off
from dagstop.evidence.place import Place, why_not_ours
from dagstop.evidence.site import Site
from dagstop.evidence.twins import ALONE, Neighbours, another_airflows
from dagstop.host.containers import Container
from dagstop.model import Decision, Identity, Label, Process, StopOrder, Verdict, Whose

ANOTHER_CONTEXT = "another context"
"""In place of the URL of an engine that the docker CLI looks up by a name."""


def neighbours(containers: Iterable[Container]) -> Neighbours:
    found = list(containers)
    return Neighbours.among((c.label for c in found), (c.airflow for c in found))


@dataclass(frozen=True, slots=True)
class Client:
    """A `docker run` process of a task: the container it names, and the task's own process."""

    name: str | None
    cidfile: str | None
    process: Process
    engine: str | None = None  # URL of the engine it talks to, where it says so
    ask: Ask | None = None  # all that it asks for; None: an earlier listener knew
    runs: ExecAsk | None = None  # of a `docker exec`
    compose: ComposeAsk | None = None  # it creates what its files say

    @property
    def starts_one(self) -> bool:
        """True of what makes one container."""
        return self.runs is None and self.compose is None


def judge_container(
    order: StopOrder,
    container: Container,
    client: Client | None,
    created_at: datetime,
    site: Site,
    beside: Neighbours = ALONE,
) -> Verdict:
    """As `judge`, for a container; created_at is on the database's clock."""
    label, evidence = label_of(container, client, site), ["container's AIRFLOW_CTX_* tags"]
    worker = _worker_of(container, site) if client is None else None
    said, tags = _said(container, site), read_try_tags(container.tags)
    # who may start containers is root on this host already; the tags carry AIRFLOW_HOME
    trusted, contrary = True, None
    if client is not None:
        # any user may run something that is called docker: the client counts as much as its process
        trusted, contrary = client.process.trusted, client.process.contrary
        if client.process.place is not None:  # its names and files are not this host's
            contrary = contrary or ELSEWHERE
        if said is not None and client.process.label is not None:
            if field := conflict(said, client.process.label):
                contrary = f"the {field} of its tags differs from that of docker client {client.process.pid}"
                # spared under the order that the tags name, too
                label = said if names_order(order, said) else label
        evidence = [f"docker client {client.process.pid}", *client.process.evidence]
    if label is None:
        return Verdict(Decision.FOREIGN, "nothing ties it to a task")
    stand_in = Process(
        identity=Identity(-1, 0),
        state="S",
        uid=client.process.uid if client is not None else -1,
        environ={SPARE: asked} if (asked := _asks(container, client)) else {},
        label=label,
        evidence=tuple(evidence),
        trusted=trusted,
        contrary=contrary,
        line=client.process.line if client is not None else frozenset(),
        place=worker.init if worker is not None else None,
        vouchers=worker.uids if worker is not None else frozenset(),
        kin_spared=client is not None and asks_to_be_spared(client.process),
        runner=client.process.runner if client is not None else None,
        unread=client.process.unread if client is not None else {},
    )
    verdict = judge(replace(order, hands_off=None), stand_in, created_at, site)
    if verdict.decision is not Decision.FOREIGN and (client is None or tags.known):
        other = another_airflows(order, label, tags, site, beside)
        if other is not None and verdict.decision is not Decision.SPARE:
            verdict = Verdict(Decision.SPARE, other[0], verdict.evidence, whose=other[1])
        elif other is not None and verdict.whose is Whose.RUN:
            verdict = replace(verdict, whose=other[1])
    if verdict.decision is Decision.SETTLE:
        verdict = Verdict(Decision.KILL, verdict.reason, verdict.evidence)
    return replace(with_hands_off(order, verdict), label=label)


def _worker_of(container: Container, site: Site) -> Place | None:
    """The container of ours, also one that has ended, in which the task ran that started this one.

    By the cluster policy's tags: the host name and the home are the worker's, as it spells them.
    """
    tags, home = read_try_tags(container.tags), container.tags.get("DAGSTOP_AIRFLOW_HOME")
    if not tags.known or tags.hostname is None or home is None:
        return None
    for place in site.places.values():
        if place.hostname == tags.hostname and why_not_ours(place, site.databases) is None:
            return place if os.path.normpath(home) == place.home else None
    return None


def says_whose_it_is(container: Container) -> bool:
    """True if it is some task's, a part of an Airflow or of Kubernetes, or is to be spared."""
    airflows = container.label is not None or container.airflow is not None
    return airflows or container.kubernetes is not None or container.tags.get(SPARE) == "1"


def label_of(container: Container, client: Client | None, site: Site) -> Label | None:
    """Whose a container is, by the client that started it and by its tags."""
    said = _said(container, site)
    if client is None or client.process.label is None:
        return said
    return client.process.label.filled_from(said or Label())


def _said(container: Container, site: Site) -> Label | None:
    """What its tags say."""
    label, tags = container.label, read_try_tags(container.tags)
    if label is None:
        return None
    label = replace(label, ti_id=tags.ti_id, job_id=tags.job_id)
    if label.airflow_home and "DAGSTOP_AIRFLOW_HOME" not in container.tags:
        # an image may bring an AIRFLOW_HOME of its own: only ours says something
        label = label if site.is_home(label.airflow_home) else replace(label, airflow_home=None)
    return label


def _asks(container: Container, client: Client | None) -> str | None:
    """What the container says of being spared, or the `docker run` that started it."""
    return container.tags.get(SPARE) or (client.process.environ.get(SPARE) if client is not None else None)


def read_client(process: Process) -> Client | None:
    """What a `docker run`, `docker create` or `docker exec` (or podman's, nerdctl's) says it starts."""
    if (compose := read_compose(process.argv)) is not None:
        return Client(None, None, process, process.environ.get("DOCKER_HOST") or None, compose=compose)
    words = read_words(process.argv)
    if words is None:
        return None
    ask, runs = read_ask(words), read_exec(words)
    if ask is None and runs is None:
        if (words.command, *words.rest[:1]) != ("system", "dial-stdio"):
            return None
        ask = Ask(None, None)  # it passes on what another host asks for, over SSH
    engine = words.options.get("--host") or process.environ.get("DOCKER_HOST") or None
    if "--context" in words.options:
        engine = ANOTHER_CONTEXT
    trust = process.environ.get("DOCKER_CONTENT_TRUST", "0").lower() not in ("", "0", "f", "false")
    if ask is None:
        return Client(None, None, process, engine, runs=runs)
    if trust or "environ" in process.unread:
        ask = replace(ask, sure=False)  # with content trust the engine is asked for another image
    return Client(ask.name, ask.cidfile, process, engine, ask)


def watches(process: Process) -> tuple[str, ...]:
    """The containers, by name or id, that a docker client only watches: it has no end to make of its own."""
    words = read_words(process.argv)
    if words is None or words.command not in _WATCHERS:
        return ()
    switches, rest, found = _WATCHERS[words.command], list(words.rest), []
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            found.append(word)
        elif "=" not in word and word not in switches and rest:
            rest.pop(0)
    return tuple(found)


_WATCHERS = {  # their options without a value
    "stats": frozenset({"-a", "--all", "--no-stream", "--no-trunc", "--no-reset"}),
    "logs": frozenset({"-f", "--follow", "-t", "--timestamps", "--details", "-ft", "-tf"}),
    "wait": frozenset[str](),
}

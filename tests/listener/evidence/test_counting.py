"""What a docker client that is proven to have created something has created: by counting."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dagstop.evidence.clients import Clients
from dagstop.evidence.containers import Client, read_client
from dagstop.evidence.counting import count, count_execs, might
from dagstop.evidence.noted import Noted
from dagstop.host.creations import Creation, Creations, ExecCreation
from dagstop.model import Identity, Label
from tests.support.fake_proc import RealClock, process

HERE = "unix:///here"
OURS, OTHERS = Label(dag_id="d", run_id="r", task_id="t"), Label(dag_id="e", run_id="s", task_id="t")
RUN, EXEC = "docker run -d image", "docker exec -d busy sleep 5"


class Host:
    """Its clients began so many seconds ago, and have created something 25 seconds ago at the latest."""

    def __init__(self, path: Path) -> None:
        self.proc = RealClock(path)
        self.clients = Clients(self.proc)
        self.events: list[dict[str, Any]] = []

    def client(
        self, line: str, pid: int, label: Label | None = OURS, ago: float = 60.0, **facts: Any
    ) -> Noted:
        start = self.proc.ago(ago)
        self.proc.add(pid, argv=line.split(), start=start)
        seen = process(OURS, argv=tuple(line.split()), identity=Identity(pid, start))
        seen.label = label
        client = read_client(seen)
        assert client is not None
        one = self.clients.noted[seen.identity] = Noted(client, None, reached=HERE)
        one.created_by = time.time() - 25
        for name, value in facts.items():
            setattr(one, name, value)
        return one

    def makes(self, ident: str, line: str, at: float | None = None) -> None:
        """The engine creates what that asked for; at: seconds since 1970."""
        moment = time.time() - 30 if at is None else at
        if line == RUN:
            self._happens("create", moment, ident, {"name": "calm_euler", "image": "image"})
        else:
            self._happens("exec_create: sleep 5", moment, "c" * 64, {"name": "busy", "execID": ident})

    def _happens(self, action: str, at: float, ident: str, facts: dict[str, str]) -> None:
        actor = {"ID": ident, "Attributes": facts}
        self.events.append({"Type": "container", "Action": action, "timeNano": int(at * 1e9), "Actor": actor})

    def creations(self, known_for: float = 300.0) -> Creations:
        found = Creations()
        found.begun(time.time() - known_for)
        found.answered(sorted(self.events, key=lambda event: event["timeNano"]), time.time())
        return found

    def counts(self, known_for: float = 300.0) -> dict[int, str]:
        """By the client's pid, what is known to be its."""
        count(self.clients, HERE, self.creations(known_for), {})
        count_execs(self.clients, HERE, self.creations(known_for))
        noted = self.clients.noted.values()
        return {one.client.process.pid: one.container for one in noted if one.container}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def asks(line: str) -> Client:
    client = read_client(process(argv=tuple(line.split())))
    assert client is not None
    return client


def attached(line: str) -> Client:
    """It stays with what it asked for."""
    client = asks(line)
    ask = replace(client.ask, attached=True) if client.ask is not None else None
    return replace(client, ask=ask, runs=replace(client.runs, attached=True) if client.runs else None)


@pytest.mark.parametrize("line", [RUN, EXEC])
def test_an_end_proves_that_it_was_this_one_though_another_asked_for_the_same(host: Host, line: str) -> None:
    """What a client is attached to is concluded from how it behaves: that is less."""
    one = host.client(line, 700)
    host.client(line, 701, OTHERS, created_by=None)
    host.makes("a", line)
    ended, one.client = one.client, replace(attached(line), process=one.client.process)
    assert host.counts() == {}
    one.client = ended
    assert host.counts() == {700: "a"}


@pytest.mark.parametrize("line", [RUN, EXEC])
def test_one_of_which_nothing_follows_hides_no_other(host: Host, line: str) -> None:
    """It created nothing, or another kind of thing, or what nobody knows any more."""
    host.client(line, 690, created_by=None)
    host.client(EXEC if line == RUN else RUN, 691)
    host.client("docker compose up -d", 692)
    host.client(line, 693, reached="unix:///another")
    host.client(line, 694, ago=400.0)
    host.client(line, 700)
    host.makes("a", line)
    assert host.counts() == {700: "a"}


@pytest.mark.parametrize(("before", "its"), [(0.05, True), (0.15, False)])
@pytest.mark.parametrize("line", [RUN, EXEC])
def test_the_clocks_of_one_machine_may_differ_by_a_tick(
    host: Host, line: str, before: float, its: bool
) -> None:
    one = host.client(line, 700)
    host.makes("a", line, host.clients.born_at(one) - before)
    assert host.counts() == ({700: "a"} if its else {})


@pytest.mark.parametrize(("after", "its"), [(0.05, False), (0.15, True)])
@pytest.mark.parametrize("line", [RUN, EXEC])
def test_who_began_a_tick_after_it_was_created_may_have_asked_for_it(
    host: Host, line: str, after: float, its: bool
) -> None:
    one = host.client(line, 700)
    one.client = replace(attached(line), process=one.client.process)
    rival = host.client(line, 701, OTHERS, ago=30.0, created_by=None)
    host.makes("a", line, host.clients.born_at(rival) - after)
    assert host.counts() == ({700: "a"} if its else {})


@pytest.mark.parametrize("line", [RUN, EXEC])
def test_what_came_after_it_had_created_its_own_is_not_its(host: Host, line: str) -> None:
    host.client(line, 700)
    host.makes("a", line, time.time() - 24)
    assert host.counts() == {}


@pytest.mark.parametrize("line", [RUN, EXEC])
def test_where_the_engine_tells_not_of_all_its_time_nothing_follows(host: Host, line: str) -> None:
    host.client(line, 700)
    host.makes("a", line)
    assert host.counts(known_for=40) == {}
    count(host.clients, HERE, None, {})
    count_execs(host.clients, HERE, None)
    assert not any(one.container for one in host.clients.noted.values())
    assert host.counts() == {700: "a"}


@pytest.mark.parametrize("line", [RUN, EXEC])
def test_what_is_anothers_leaves_one(host: Host, line: str) -> None:
    host.client(line, 699, OTHERS, container="a")
    host.client(line, 700)
    for ident in "ab":
        host.makes(ident, line)
    assert host.counts() == {699: "a", 700: "b"}


@pytest.mark.parametrize(
    ("line", "container", "run"),
    [
        (RUN, True, False),
        ("docker run -d another", False, False),
        ("docker run --what another", True, False),  # it is not understood
        (EXEC, False, True),
        ("docker exec busy sleep 6", False, False),
        ("docker exec --what busy sleep 6", False, True),
        ("docker compose up", False, False),
    ],
)
def test_what_a_client_might_have_asked_for(line: str, container: bool, run: bool) -> None:
    made, ran = Creation("a", "calm_euler", "image", 5.0), ExecCreation("e", "c" * 64, "busy", "sleep 5", 5.0)
    assert (might(asks(line), made, {}), might(asks(line), ran, {})) == (container, run)

"""What doorbells can make the listener do with the engines, and what ended before it could be asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from docker.errors import NotFound
from docker.models.containers import Container

from dagstop.evidence import connections
from dagstop.host.creations import Creations
from dagstop.host.engine import Engine, EngineUnreachable
from dagstop.host.procfs import ProcFS
from dagstop.kill.container_query import LEARN_PAUSE, ContainerAnswer, ContainerQueries, ContainerQuery
from dagstop.kill.endings import now
from dagstop.model import Identity, Label
from tests.support.fake_proc import HOME, FakeProc, order, process, site
from tests.support.watch import wait_until
from tests.testbed import docker_engine as testbed


class CountingEngine:
    exists = True
    current = False
    url = "unix:///counting"

    def listed(self) -> list[Any]:
        return []

    def __init__(self) -> None:
        self.creations = Creations()
        self.listings = 0
        self.most_threads = 0

    def learn(self) -> None:
        self.listings += 1
        alive = sum(thread.name == "engines" for thread in threading.enumerate())
        self.most_threads = max(self.most_threads, alive)


class CountedListings(Engine):
    listings = 0

    def _list(self) -> None:
        self.listings += 1
        super()._list()

    def follow_to_the_end(self) -> None:
        with suppress(EngineUnreachable):
            self.follow(lambda _: None)


def queries(engine: Any, proc: Path) -> ContainerQueries:
    return ContainerQueries([cast(Engine, engine)], ProcFS(str(proc)), 10.0, lambda: None)


def test_a_flood_of_doorbells_lists_the_containers_some_times_a_second(tmp_path: Path) -> None:
    engine = CountingEngine()
    some = queries(engine, tmp_path)
    begun = time.monotonic()
    for _ in range(5000):
        some.ring()
    elapsed = time.monotonic() - begun
    assert 1 <= engine.listings <= elapsed / LEARN_PAUSE + 1
    assert engine.most_threads == 1


def test_a_doorbell_asks_for_nothing_that_the_events_tell(tmp_path: Path) -> None:
    engine = CountingEngine()
    engine.current = True
    some = queries(engine, tmp_path)
    some.ring()
    assert not some._learning.is_alive() and engine.listings == 0


def test_a_listing_serves_until_the_events_tell_of_a_change(docker_engine: testbed.Engine) -> None:
    engine = CountedListings(docker_engine.url)
    with containers(docker_engine, ["sleep", "7602"]) as (started,):
        engine.running()
        assert not engine.current  # its events are not followed
        threading.Thread(target=engine.follow_to_the_end, daemon=True).start()

        def current() -> bool:
            engine.running()
            return engine.current

        wait_until(current, 20, lambda: "changes go on")
        asked = engine.listings
        assert [c.id for c in engine.running(time.monotonic())] == [started.id]
        assert engine.listings == asked
        assert [c.id for c in engine.running()] == [started.id]
        assert engine.listings == asked + 1  # what an order may end with is asked for
        for change, paused in ((started.pause, [True]), (started.unpause, [False]), (started.kill, [])):
            change()
            wait_until(lambda: not engine.current, 20, lambda: "nothing was told")
            assert [c.paused for c in engine.running(time.monotonic())] == paused
            wait_until(current, 20, lambda: "changes go on")
    engine.close()


def test_a_client_that_has_just_begun_is_looked_at_until_it_is_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`docker create` ends as soon as its engine has answered: nothing else may happen before."""
    monkeypatch.setattr(
        connections, "BEGINS", 600.0
    )  # a busy machine may need longer than a second for five looks
    client = FakeProc(tmp_path)
    start = client.now_ticks()
    some = ContainerQueries([cast(Engine, CountingEngine())], client, 10.0, lambda: None)
    argv = ("docker", "create", "image")
    client.add(700, argv=argv, start=start)
    looks: list[None] = []

    def look(_: Any) -> None:
        looks.append(None)
        for one in some.ties.all() if len(looks) == 5 else ():
            one.reached = CountingEngine.url

    some.ties.connections.see = look  # type: ignore[method-assign, assignment]
    some.attend([process(Label(dag_id="d", run_id="r"), identity=Identity(700, start), argv=argv)], ())
    wait_until(lambda: len(looks) == 5, 10, lambda: f"{len(looks)} looks")
    wait_until(lambda: "connections" not in {t.name for t in threading.enumerate()}, 10, lambda: "it goes on")
    assert len(looks) == 5


def test_what_ended_before_it_was_signalled_is_reported_once(docker_engine: testbed.Engine) -> None:
    some = ContainerQueries([Engine(docker_engine.url)], ProcFS(), 10.0, lambda: None)
    with containers(docker_engine, *[["sleep", "7602"]] * 4) as started:
        some.engines[0].learn()
        started[0].kill()  # before the order: it may have ended by itself
        some.engines[0].learn()
        began = now()
        started[1].kill()  # as its task's on_kill does
        started[2].remove(force=True)  # or DockerOperator's `auto_remove`
        ends = found(some, began).ends
        assert {end.container.id for end in ends} == {started[1].id, started[2].id}
        for end in ends:
            assert (end.signals, end.noticed) == ([], "ended before it was signalled")
            assert end.died_at is not None and began <= end.died_at <= now()
        assert found(some, began, named=tuple(end.container.id[:12] for end in ends)).ends == []
        assert [container.id for container in some.engines[0].running()] == [started[3].id]
        some.engines[0].close()
        # a listener that never saw them run: what is removed nobody knows any more
        some = ContainerQueries([Engine(docker_engine.url)], ProcFS(), 10.0, lambda: None)
        assert [end.container.id for end in found(some, began).ends] == [started[1].id]
    some.engines[0].close()


def test_a_restart_policy_given_since_it_was_learned_is_overruled(docker_engine: testbed.Engine) -> None:
    some = ContainerQueries([Engine(docker_engine.url)], ProcFS(), 10.0, lambda: None)
    handles = ["sh", "-c", 'trap "exit 0" TERM; while :; do sleep 7602 & wait; done']
    with containers(docker_engine, handles, ["sleep", "7602"], ["sleep", "7602"]) as started:
        some.engines[0].learn()
        for container in started[:2]:
            container.update(restart_policy={"Name": "always"})
        ends = {end.container.id: end for end in found(some, now(), since=time.monotonic() - 60).ends}
        for container, first in zip(started, ("SIGTERM", "SIGKILL"), strict=False):
            end = ends[str(container.id)]
            names = [name for name, _ in end.signals]
            # as often as the engine was quick enough to start it once more
            assert names[0] == first and len(names) > 1 and set(names[1:]) == {"SIGKILL"}
            assert end.died_at is not None
            container.reload()
            assert container.status == "exited"
    some.engines[0].close()


@contextmanager
def containers(engine: testbed.Engine, *commands: list[str]) -> Iterator[list[Container]]:
    """One for each command; all but the last are of the run that `found` looks for."""
    client = engine.client()
    tags = {
        "AIRFLOW_CTX_DAG_ID": "d",
        "AIRFLOW_CTX_TASK_ID": "t",
        "DAGSTOP_AIRFLOW_HOME": HOME,
        "DAGSTOP_JOB_ID": "7",
        "DAGSTOP_POLICY": "2",
    }
    started: list[Container] = []
    try:
        for number, command in enumerate(commands, 1):
            run_id = "r" if number < len(commands) else "another"
            environment = {**tags, "AIRFLOW_CTX_DAG_RUN_ID": run_id}
            where: Any = {"detach": True, "network_mode": "none", "environment": environment}
            started.append(client.containers.run(testbed.IMAGE, command, **where))
        yield started
    finally:
        for container in started:
            with suppress(NotFound):
                container.remove(force=True)
        client.close()


def found(
    some: ContainerQueries, began: datetime, *, named: tuple[str, ...] = (), since: float = float("inf")
) -> ContainerAnswer:
    """What one pass finds for an order of that moment."""
    query = ContainerQuery(order(created_at=began, db_now=now()), named=named)
    some.ask([query], site(), lambda moment: moment, since=since)
    wait_until(lambda: bool(some.answers), 20, lambda: "no answer")
    return some.answers.popleft()

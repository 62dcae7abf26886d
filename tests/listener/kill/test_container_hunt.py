"""What doorbells can make the listener do with the engines, and what ended before it could be asked for."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

from dagstop.kill.container_hunt import LEARN_PAUSE, ContainerHunts, Found, Quest
from dagstop.kill.quarry import now
from dagstop.lab import docker_engine as lab
from dagstop.outside.engine import Engine
from dagstop.outside.procfs import ProcFS
from tests.support.fake_proc import HOME, around, order
from tests.support.watch import wait_until


class CountingEngine:
    exists = True

    def __init__(self) -> None:
        self.listings = 0
        self.most_threads = 0

    def learn(self) -> None:
        self.listings += 1
        alive = sum(thread.name == "engines" for thread in threading.enumerate())
        self.most_threads = max(self.most_threads, alive)


def hunts(engine: Any, proc: Path) -> ContainerHunts:
    return ContainerHunts([cast(Engine, engine)], ProcFS(str(proc)), 10.0, lambda: None)


def test_a_flood_of_doorbells_lists_the_containers_some_times_a_second(tmp_path: Path) -> None:
    engine = CountingEngine()
    some = hunts(engine, tmp_path)
    begun = time.monotonic()
    for _ in range(5000):
        some.warm_up()
    elapsed = time.monotonic() - begun
    assert 1 <= engine.listings <= elapsed / LEARN_PAUSE + 1
    assert engine.most_threads == 1


def test_what_ended_before_it_was_signalled_is_reported_once(docker_engine: lab.Engine) -> None:
    client = docker_engine.client()
    tags = {"AIRFLOW_CTX_DAG_ID": "d", "AIRFLOW_CTX_DAG_RUN_ID": "r", "AIRFLOW_CTX_TASK_ID": "t"}
    started = [
        client.containers.run(
            lab.IMAGE,
            ["sleep", "7602"],
            detach=True,
            network_mode="none",
            environment={**tags, "DAGSTOP_AIRFLOW_HOME": HOME, **more},
        )
        for more in ({}, {}, {"AIRFLOW_CTX_DAG_RUN_ID": "another"})
    ]
    some = ContainerHunts([Engine(docker_engine.url)], ProcFS(), 10.0, lambda: None)

    def found(named: tuple[str, ...] = ()) -> Found:
        quest = Quest(order(created_at=began, db_now=now()), named=named)
        some.look([quest], around(), lambda moment: moment)
        wait_until(lambda: bool(some.results), 20, lambda: "no answer")
        return some.results.popleft()

    try:
        some.engines[0].learn()
        started[0].kill()  # before the order: it may have ended by itself
        some.engines[0].learn()
        began = now()
        started[1].kill()  # as its task's on_kill does
        started[2].kill()
        (end,) = found().ends
        assert (end.container.id, end.signals, end.noticed) == (
            started[1].id,
            [],
            "ended before it was signalled",
        )
        assert end.died_at is not None and began <= end.died_at <= now()
        assert found(named=(end.container.id[:12],)).ends == []
        assert some.engines[0].running() == []
    finally:
        for container in started:
            container.remove(force=True)
        client.close()
        some.engines[0].close()

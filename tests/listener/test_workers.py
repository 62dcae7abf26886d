"""Airflow in containers on a real engine: what is ours dies, what looks the same in a twin project lives."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.listener.test_stop import one_server, shape_2
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, show
from tests.support.watch import wait_until
from tests.support.workers import URL, Worker, inner_pid, workers
from tests.testbed.docker_engine import Engine

pytestmark = [one_server, shape_2]
TITLE = "airflow task runner: dag a run 7"
BASH = "sleep 7301 & trap '' TERM; setsid sleep 7302 & env -i sleep 7303 & sleep 7304"


@pytest.fixture
def start(docker_engine: Engine) -> Iterator[Any]:
    with workers(docker_engine) as function:
        yield function


def begin(worker: Worker) -> None:
    """One task in a worker, with all its processes."""
    worker.run(TITLE, BASH)
    for words in ("airflow task runner", "sleep 7301", "sleep 7302", "sleep 7303", "sleep 7304"):
        worker.pid_of(words)


def record(db: AirflowDatabase, worker: Worker) -> None:
    """What Airflow writes of that task."""
    db.add_running("run")
    pid = inner_pid(worker.pid_of("airflow task runner"))
    db.rows("update task_instance set hostname = %s, pid = %s, start_date = now()", (worker.hostname, pid))


def test_tasks_in_a_named_container_die_and_its_twins_live(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any
) -> None:
    ours, twin = start("shop"), start("bank")
    begin(ours)
    begin(twin)
    record(airflow_db, ours)
    before = twin.pids()
    options = ("--same-database", URL, "--container", "compose=shop")
    with Listener(airflow_db.url, tmp_path, *options, docker_url=docker_engine.url) as listener:
        listener.wait_for("is_=ours")
        listener.wait_until_remembered(0)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)
    wait_until(lambda: not ours.pids(), 20, lambda: f"all dead: {ours.pids()}")
    assert twin.pids() == before


def test_without_container_nothing_in_one_is_touched(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any
) -> None:
    ours = start("shop")
    begin(ours)
    record(airflow_db, ours)
    before = ours.pids()
    with Listener(airflow_db.url, tmp_path, "--same-database", URL, docker_url=docker_engine.url) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "spared", show(report)
    assert {item["why"] for item in report["detail"]["spared"]} == {"it lives in another pid namespace"}
    assert ours.pids() == before


@pytest.mark.parametrize("fixed", ["worker", None], ids=["fixed host name", "database unknown"])
def test_one_missing_piece_spares_and_says_which(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any, fixed: str | None
) -> None:
    """Two projects with one fixed host name; or a URL inside that is not known to be ours."""
    ours, twin = start("shop", hostname=fixed), start("bank", hostname=fixed)
    begin(ours)
    begin(twin)
    record(airflow_db, ours)
    before = ours.pids() | twin.pids()
    options = ["--container", "compose=shop", *(("--same-database", URL) if fixed else ())]
    with Listener(airflow_db.url, tmp_path, *options, docker_url=docker_engine.url) as listener:
        listener.wait_for("another container" if fixed else "if that is ours")
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "spared", show(report)
    why = {item["why"] for item in report["detail"]["spared"]}
    wanted = "has, or may have, the host name worker" if fixed else "name it with --same-database"
    assert any(wanted in word for word in why), show(report)
    assert ours.pids() | twin.pids() == before


def test_a_fixed_host_name_is_tied_by_the_runner_that_the_database_names(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any
) -> None:
    ours, twin = start("shop", hostname="worker-1"), start("bank")
    begin(ours)
    begin(twin)
    record(airflow_db, ours)
    before = twin.pids()
    options = ("--same-database", URL, "--container", "compose=shop")
    with Listener(airflow_db.url, tmp_path, *options, docker_url=docker_engine.url) as listener:
        listener.wait_for("is_=ours")
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)
    wait_until(lambda: not ours.pids(), 20, lambda: f"all dead: {ours.pids()}")
    assert twin.pids() == before


def test_a_restarted_listener_still_knows_orphans_in_a_container(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any
) -> None:
    """Their runner is gone, they carry no environment: only the memory ties them."""
    ours, twin = start("shop"), start("bank")
    begin(ours)
    begin(twin)
    record(airflow_db, ours)
    before = twin.pids()
    options = ("--same-database", URL, "--container", "compose=shop")
    listener = Listener(airflow_db.url, tmp_path, *options, docker_url=docker_engine.url)
    with listener:
        listener.wait_for("is_=ours")
        wait_until(lambda: len(listener.doubted()) >= 12, 20, lambda: f"{listener.doubted()}")
        for words in ("airflow task runner", "sleep 7301"):
            os.kill(ours.pid_of(words), signal.SIGKILL)
        listener.stop()
        listener.start()
        listener.wait_for("is_=ours")
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)
    wait_until(lambda: not ours.pids(), 20, lambda: f"all dead: {ours.pids()}")
    assert twin.pids() == before

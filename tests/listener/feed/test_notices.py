"""The wire: reconnecting, ending at once, polling where LISTEN does not fire, the rights of the listener."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from dagstop.database.connection import round_trip
from dagstop.database.outbox import Outbox
from dagstop.feed.notices import FULL_SWEEP, OrderFeed
from dagstop.report.sender import HEARTBEAT
from dagstop.self_pipe import SelfPipe
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import CLEAN, Listener
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, find, wait_for
from tests.support.watch import wait_until


def ending(process: subprocess.Popen[Any]) -> float:
    begun = time.monotonic()
    process.terminate()
    assert process.wait(10) == 0
    return time.monotonic() - begun


@one_server
@shape_2
def test_sigterm_ends_it_at_once_and_its_row_goes(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    with Listener(airflow_db.url, tmp_path) as listener:
        assert listener.process is not None
        airflow_db.wait_until("select count(*) = 1 from dagstop.listener")
        assert ending(listener.process) < 2  # usually some ms; never a wait of its own
        assert airflow_db.one("select count(*) from dagstop.listener") == 0


@one_server
@shape_2
def test_a_cascade_that_gave_way_is_completed_without_being_asked(
    airflow_db: AirflowDatabase, tmp_path: Path
) -> None:
    airflow_db.add_running()
    with Listener(airflow_db.url, tmp_path) as listener, airflow_db.transaction() as airflow:
        airflow.execute("update task_instance set pid = 1")
        airflow_db.set_run("failed")  # gives way after a second
        listener.wait_for_reports(1)
        airflow_db.wait_until("select count(*) > 0 from dagstop.stop_order where not cascaded")
        for _ in range(2):  # a heartbeat that finds the row held still is followed by another one soon
            seen = airflow_db.one("select seen_at from dagstop.listener")
            airflow_db.wait_until(f"select seen_at > '{seen.isoformat()}' from dagstop.listener")
        airflow.connection.commit()
        airflow_db.wait_until("select state = 'failed' from task_instance", HEARTBEAT / 2)


def test_sigterm_ends_it_while_the_database_is_away(tmp_path: Path) -> None:
    log_path = tmp_path / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "dagstop", "listen", "--airflow-home", str(tmp_path)),
                *("--database-url", "postgresql://u:secret@127.0.0.1:1/x"),
                *("--state-dir", str(tmp_path / "state"), "--docker-url", "unix:///nowhere"),
            ],
            env=CLEAN,
            stderr=log,
        )
    try:
        until = time.monotonic() + 10
        while "retry_in" not in log_path.read_text():
            assert time.monotonic() < until, log_path.read_text()
            time.sleep(0.01)
        assert ending(process) < 2
        assert "secret" not in log_path.read_text()
    finally:
        process.kill()


@one_server
@shape_2
def test_a_database_without_dagstop_is_named_and_waited_for(bare_db: AirflowDatabase, tmp_path: Path) -> None:
    from dagstop.install import install

    listener = Listener(bare_db.url, tmp_path)
    with listener:
        listener.wait_for("do=")
        assert "run `dagstop install`" in listener.log()
        before = listener.log_path.stat().st_size
        install(bare_db.url)
        listener.wait_for("connected", after=before)
        bare_db.wait_until("select count(*) = 1 from dagstop.listener")


@one_server
@shape_2
def test_the_listener_needs_no_more_than_its_role(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.rows("create role just_listens login in role dagstop_listener")
    try:
        airflow_db.add_running("run")
        tasks.bash("sleep 7401", tasks.environment("dag", "run"))
        wait_for("sleep 7401")
        with Listener(airflow_db.user_url("just_listens"), tmp_path):
            airflow_db.set_run("failed")
            airflow_db.wait_until("select outcome = 'stopped' from dagstop.report")
            assert not find("sleep 7401")
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                with psycopg2.connect(airflow_db.user_url("just_listens")) as connection:
                    connection.cursor().execute("select * from task_instance")
    finally:
        airflow_db.rows("drop role just_listens")


@one_server
@shape_2
def test_a_notice_that_never_comes_is_noticed(airflow_db: AirflowDatabase) -> None:
    with airflow_db.connect() as connection:
        assert round_trip(connection, airflow_db.url, "nobody_listens_to_this", patience=0.1) is None
        with connection.cursor() as cursor:
            cursor.execute("listen heard")
        assert round_trip(connection, airflow_db.url, "heard") is not None


@one_server
@shape_2
def test_behind_a_pooler_in_transaction_mode_it_polls(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, pooler: Callable[[str], str]
) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7411", tasks.environment("dag", "run"))
    wait_for("sleep 7411")
    with Listener(pooler(airflow_db.url), tmp_path) as listener:
        assert "polling why=" in listener.log()
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1, timeout=10)
        assert report["outcome"] == "stopped"
        assert not find("sleep 7411")


@one_server
@shape_2
def test_systemd_is_told_that_it_is_ready_and_alive(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(20)
        listener = Listener(airflow_db.url, tmp_path, NOTIFY_SOCKET=str(address))
        with listener:
            assert systemd.recv(64) == b"READY=1"
            assert systemd.recv(64) == b"WATCHDOG=1"
            listener.stop()
            while (said := systemd.recv(64)) == b"WATCHDOG=1":
                continue
            assert said == b"STOPPING=1"


@one_server
@shape_2
def test_more_orders_than_are_read_at_once_wait_for_no_sweep(
    airflow_db: AirflowDatabase, tmp_path: Path
) -> None:
    airflow_db.add_runs(FULL_SWEEP + 600)
    with Listener(airflow_db.url, tmp_path, "--sweep", "86400") as listener:
        airflow_db.wait_until("select count(*) = 1 from dagstop.listener")
        airflow_db.rows("update dag_run set state = 'failed'")
        listener.wait_for_reports(FULL_SWEEP + 600, timeout=180)


@one_server
@shape_2
def test_orders_are_read_beside_a_thousand_dying_processes(
    airflow_db: AirflowDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that is made then has a descriptor beyond 1023, which select(2) does not know."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limits[0] < 2000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, limits[1]))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    feed = OrderFeed(airflow_db.url, "h", str(uuid.uuid4()), Outbox(), SelfPipe())
    try:
        feed.begin()
        wait_until(lambda: feed.reads(), 20, lambda: caplog.text)
        airflow_db.add_running()
        airflow_db.set_run("failed")
        wait_until(lambda: any(news.orders for news in feed.news), 20, lambda: caplog.text)
        assert "database lost" not in caplog.text
    finally:
        feed.stop(5)
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

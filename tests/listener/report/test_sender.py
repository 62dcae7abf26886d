"""What holds up the reports, or one of them, holds up neither the orders nor the other reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extras import Json

from dagstop.config import ListenerConfig
from dagstop.database.kept_connection import HELD_UP
from dagstop.database.outbox import Outbox
from dagstop.feed.notices import OrderFeed
from dagstop.report.sender import ReportSender, ascii_only, cut
from dagstop.self_pipe import SelfPipe
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, find, wait_for
from tests.testbed.postgres import connect


@pytest.fixture
def listener_url(airflow_db: AirflowDatabase) -> Iterator[str]:
    airflow_db.rows("drop role if exists r_ghost; create role r_ghost login in role dagstop_listener")
    yield airflow_db.user_url("r_ghost")
    airflow_db.rows("drop role r_ghost")


@contextmanager
def left_open(url: str, *statements: str) -> Iterator[None]:
    """A transaction in which that was done, as long as the block runs."""
    with connect(url) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        for statement in statements:
            cursor.execute(statement)
        yield


def started(db: AirflowDatabase, tasks: Tasks, number: int) -> str:
    """A run with one process; its command line."""
    db.add_running(f"run{number}", number=number)
    sleep = f"sleep 741{number}"
    tasks.bash(sleep, tasks.environment("dag", f"run{number}"))
    wait_for(sleep)
    return sleep


def outcome(db: AirflowDatabase, number: int) -> Any:
    found = db.rows(
        "select r.outcome from dagstop.report r join dagstop.stop_order o on o.id = r.order_id"
        " where o.run_id = %s and r.host = 'host-1'",
        (f"run{number}",),
    )
    return found[0][0] if found else None


@one_server
@shape_2
def test_a_transaction_that_another_host_left_open(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, listener_url: str
) -> None:
    sleeps = [started(airflow_db, tasks, number) for number in (1, 2)]
    airflow_db.set_run("failed", "run1")
    beat = "select * from dagstop.heartbeat('ghost', gen_random_uuid(), '1', '{}')"
    report = "select dagstop.write_report(1, 'ghost', 'nothing_found', null, null, '{}')"
    with left_open(listener_url, beat, report), Listener(airflow_db.url, tmp_path) as listener:
        listener.wait_for_reports(1)
        airflow_db.set_run("failed", "run2")
        listener.wait_for_reports(2)
        assert not any(find(sleep) for sleep in sleeps)
        airflow_db.wait_until("select count(*) = 2 from dagstop.stop_order where closed_at is not null")


@one_server
@shape_2
def test_a_report_whose_row_is_held_waits_alone(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    sleeps = [started(airflow_db, tasks, number) for number in (1, 2)]
    airflow_db.set_run("failed", "run1")
    airflow_db.beat("host-1")
    report = "select dagstop.write_report(1, 'host-1', null, null, null, '{}')"
    with connect(airflow_db.url) as ghost:
        ghost.autocommit = False
        ghost.cursor().execute(report)
        with Listener(airflow_db.url, tmp_path) as listener:
            airflow_db.set_run("failed", "run2")
            airflow_db.wait_until("select count(*) = 1 from dagstop.report where outcome = 'stopped'")
            listener.wait_for("report held up")
            assert not any(find(sleep) for sleep in sleeps)
            ghost.rollback()
            listener.wait_for_reports(2)


@one_server
@shape_2
def test_a_connection_that_is_held_up_is_named(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.wait_until("select count(*) = 1 from dagstop.listener")
        with left_open(airflow_db.url, "lock table dagstop.stop_order in access exclusive mode"):
            airflow_db.rows("notify dagstop")
            listener.wait_for("held up connection=notices", timeout=HELD_UP + 20)
        listener.wait_for("no longer held up")


@contextmanager
def reporting(db: AirflowDatabase) -> Iterator[ReportSender]:
    """A sender that is still to be started, beside a feed that reads orders."""
    outbox, listener_id = Outbox(), "00000000-0000-0000-0000-000000000001"
    feed = OrderFeed(db.url, "h", listener_id, outbox, SelfPipe())
    sender = ReportSender(ListenerConfig(db.url, (), host="h"), listener_id, outbox, feed)
    feed.begin()
    try:
        yield sender
    finally:
        sender.kept.stop(5)
        feed.stop(5)


@one_server
@shape_2
def test_a_heartbeat_says_how_long_nobody_has_looked_at_the_host(airflow_db: AirflowDatabase) -> None:
    """It comes from a thread of its own: a main loop that hangs must not go unseen."""
    with reporting(airflow_db) as sender:
        sender.about = {"watched": 3, "host_names": ["a container's"]}
        sender.looked_at -= 100
        sender.kept.start()
        airflow_db.wait_until(
            "select (detail ->> 'looked_ago')::float >= 100 and detail ->> 'watched' = '3'"
            " and detail ->> 'notices' = 'listening'"
            " and detail -> 'host_names' @> '[\"a container''s\", \"h\", \"localhost\"]' from dagstop.listener"
        )


@one_server
@shape_2
def test_a_report_that_is_refused_holds_up_no_other(
    airflow_db: AirflowDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        airflow_db.add_running(f"run{number}", number=number)
    airflow_db.rows("update dag_run set state = 'failed'")
    orders = [number for (number,) in airflow_db.rows("select id from dagstop.stop_order order by 1")]
    details: list[dict[str, Any]] = [
        {"problem": "a lone surrogate \udce9"},
        {"problem": "a NUL \0"},
        {"spared": [{"why": f"{n} {'x' * 100}"} for n in range(40_000)], "processes": []},
        {"problem": "none"},
    ]
    told = [
        {"order_id": order, "host": "h", "outcome": "spared", "first_signal_at": None, "last_death_at": None,
         "detail": Json(detail)}
        for order, detail in zip(orders, details, strict=True)
    ]  # fmt: skip
    with reporting(airflow_db) as sender:
        for report in told:
            sender.tell(report)
        sender.kept.start()
        airflow_db.wait_until("select count(*) = 4 from dagstop.report where outcome = 'spared'")
        airflow_db.wait_until("select count(*) = 4 from dagstop.stop_order where closed_at is not null")
    said = [detail for (detail,) in airflow_db.rows("select detail from dagstop.report order by order_id")]
    assert [item.get("problem") for item in said] == ["a lone surrogate \\udce9", "a NUL \\0", None, "none"]
    assert said[2]["left_out"]["spared"] + len(said[2]["spared"]) == 40_000
    assert "report refused" in caplog.text


def test_what_is_cut_keeps_what_lives_and_says_how_much_is_left_out() -> None:
    processes = [
        {"pid": n, "died_at": None if n % 10 == 0 else "then", "command": "x" * 50} for n in range(100)
    ]
    short = cut({"processes": processes, "spared": [], "problem": "p"}, 4000)
    assert len(json.dumps(short)) <= 4000
    assert {item["pid"] for item in short["processes"]} >= set(range(0, 100, 10))
    assert short["left_out"] == {"processes": 100 - len(short["processes"])} and short["problem"] == "p"
    assert cut({"processes": processes}) == {"processes": processes}
    assert len(json.dumps(cut({"problem": "p" * 5000, "processes": []}, 4000))) <= 4000


def test_every_encoding_takes_ascii() -> None:
    assert ascii_only({"é": ["\udce9\0", 1, None]}) == {"\\xe9": ["\\udce9\\0", 1, None]}

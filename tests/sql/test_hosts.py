"""Hosts that are gone: forgotten by hand, or by themselves once Airflow does not use them."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import one_server
from tests.testbed.postgres import rows

BEAT = "select * from dagstop.heartbeat(%s, gen_random_uuid(), '1', %s::jsonb)"


def beat(db: AirflowDatabase, host: str, age: str = "0 s", detail: str = "{}") -> None:
    db.rows(BEAT, (host, detail))
    db.rows("call dagstop.do_chores()")
    seen(db, host, age)


def seen(db: AirflowDatabase, host: str, age: str) -> None:
    db.rows("update dagstop.listener set seen_at = now() - %s::interval where host = %s", (age, host))


def gone(db: AirflowDatabase) -> set[str]:
    return {row[0] for row in db.rows("select * from dagstop.gone_hosts()")}


def ran(db: AirflowDatabase, hostname: str, age: str) -> None:
    """Airflow's own note that a task of that host lived `age` ago."""
    if db.has_uuid:
        db.rows(
            "update task_instance set last_heartbeat_at = now() - %s::interval where hostname = %s",
            (age, hostname),
        )
    else:
        db.rows("insert into job values ('LocalTaskJob', now() - %s::interval, %s)", (age, hostname))


@pytest.fixture
def db(airflow_db: AirflowDatabase) -> AirflowDatabase:
    if not airflow_db.has_uuid:
        airflow_db.rows("create table job (job_type text, latest_heartbeat timestamptz, hostname text)")
    airflow_db.add_running()  # on host worker
    airflow_db.set_task("a", "success")
    return airflow_db


def test_a_host_is_gone_a_day_after_its_listener_and_its_last_task(db: AirflowDatabase) -> None:
    beat(db, "live")
    beat(db, "quiet", "23 h")  # an order of this time is still for it
    beat(db, "unused", "25 h")
    beat(db, "worker", "25 h")
    beat(db, "short", "25 h", '{"host_names": ["worker"]}')
    beat(db, "odd", "25 h", '{"host_names": "worker"}')
    ran(db, "worker", "26 h")
    assert gone(db) == {"unused", "worker", "short", "odd"}
    ran(db, "worker", "1 h")
    assert gone(db) == {"unused", "odd"}
    db.rows("update dagstop.setting set value = '1800' where name = 'order_seconds'")
    assert gone(db) == {"quiet", "unused", "worker", "short", "odd"}


def test_a_host_on_which_a_task_runs_is_not_gone(db: AirflowDatabase) -> None:
    beat(db, "worker", "25 h")
    assert gone(db) == {"worker"}
    db.set_task("a", "running")
    assert gone(db) == set()


def test_where_airflows_use_cannot_be_told_no_host_is_gone(airflow_db: AirflowDatabase) -> None:
    beat(airflow_db, "unused", "25 h")
    assert gone(airflow_db) == ({"unused"} if airflow_db.has_uuid else set())


def test_a_listener_not_seen_for_as_long_as_orders_are_kept_is_removed(db: AirflowDatabase) -> None:
    beat(db, "old", "31 d")
    beat(db, "recent", "29 d")
    beat(db, "live")
    assert db.rows("select host from dagstop.listener order by host") == [("live",), ("recent",)]


def forget(db: AirflowDatabase, host: str, user: str = "postgres") -> Any:
    return rows(db.user_url(user), "select dagstop.forget_host(%s)", (host,))[0][0]


def test_a_forgotten_host_is_gone_with_its_name_and_its_reports_stay(db: AirflowDatabase) -> None:
    db.set_run("failed")
    order = db.one("select id from dagstop.stop_order")
    beat(db, "dead")
    write = "select dagstop.write_report(%s, 'dead', %s, null, null, '{}')"
    db.rows(write, (order, None))
    with pytest.raises(psycopg2.errors.ObjectInUse, match=r"'dead' lives, it was seen \d+ s ago"):
        forget(db, "dead")
    seen(db, "dead", "2 min")
    assert forget(db, "dead") is True
    assert forget(db, "dead") is False and forget(db, "never") is False
    assert db.rows("select host from dagstop.listener") == []
    assert db.rows("select host from dagstop.host_role where host = 'dead'") == []
    # nobody saw anything dead: the order stays open, and what was begun stays begun
    assert db.rows("select outcome from dagstop.report") == [(None,)]
    assert db.one(
        "select closed_at is null and waiting_for = '{}' from dagstop.stop_order o join dagstop.open_order w on w.order_id = o.id"
    )
    # a host that comes back has its say
    beat(db, "dead")
    db.rows(write, (order, "stopped"))
    db.rows("call dagstop.do_chores()")
    assert db.one("select closed_at is not null from dagstop.stop_order")


@one_server
def test_a_listeners_role_forgets_its_own_hosts_only(db: AirflowDatabase) -> None:
    for role in ("r_one", "r_two"):
        db.rows(f"create role {role} login; grant dagstop_listener to {role}")
    try:
        for host in ("a", "b"):
            rows(db.user_url("r_one"), BEAT, (host, "{}"))
            seen(db, host, "2 min")
        with pytest.raises(
            psycopg2.errors.InsufficientPrivilege, match="belongs to the listener of role r_one"
        ):
            forget(db, "a", "r_two")
        assert forget(db, "a", "r_one") is True
        assert forget(db, "b") is True  # the owner, any
        rows(db.user_url("r_two"), BEAT, ("a", "{}"))  # its name is free
    finally:
        for role in ("r_one", "r_two"):
            db.rows(f"drop owned by {role} cascade; drop role {role}")

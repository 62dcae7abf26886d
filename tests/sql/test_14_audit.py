"""14_audit.sql: what an Airflow user finds of a stop in Airflow's own audit log."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg2.extras import Json

from tests.support.airflow_tables import FIRST_DATE, AirflowDatabase
from tests.support.marks import one_server
from tests.support.settings import set_setting

# table log as each release makes it
_PROCESS = {"pid": 1, "died_at": "2024-01-01T00:00:00Z"}


@pytest.fixture
def logged_db(airflow_db: AirflowDatabase) -> AirflowDatabase:
    airflow_db.add_log_table()
    airflow_db.add_running()
    return airflow_db


def report(db: AirflowDatabase, outcome: str | None, host: str = "h", **detail: Any) -> None:
    order = db.one("select max(id) from dagstop.stop_order")
    db.rows("select dagstop.write_report(%s, %s, %s, null, null, %s)", (order, host, outcome, Json(detail)))
    db.rows("call dagstop.do_chores(array[%s]::bigint[])", (order,))


def test_a_stopped_run(logged_db: AirflowDatabase, shape: str) -> None:
    logged_db.set_run("failed")
    report(logged_db, None, processes=[_PROCESS])
    assert logged_db.rows("select from log") == []  # nothing is final yet
    report(logged_db, "stopped", processes=[_PROCESS] * 3, containers=[{}])
    date = "logical_date" if shape == "3.3.2" else "execution_date"
    ((event, dag, task, when, owner, extra),) = logged_db.rows(
        f"select event, dag_id, task_id, {date}, owner, extra from log"
    )
    assert (event, dag, task, when) == ("dagstop", "dag", None, FIRST_DATE)
    assert owner == logged_db.one("select session_user")
    assert extra.startswith(f"stopped by dagstop: DAG run marked failed by {owner} from ")
    assert extra.endswith(" UTC; on h 3 processes, 1 container")
    if shape != "1.10.0":
        assert logged_db.one("select run_id from log") == "run"
    assert logged_db.faults() == []


def test_a_task_and_what_was_spared(logged_db: AirflowDatabase, shape: str) -> None:
    logged_db.set_task("a", "failed")
    spared = [{"why": "another\x1b[31m\nAirflow's"}, {"why": "another\x1b[31m\nAirflow's"}]
    report(logged_db, "spared", spared=spared)
    ((task, extra),) = logged_db.rows("select task_id, extra from log")
    assert task == "a"
    assert extra.startswith("spared by dagstop: task instance marked failed by ")
    assert extra.endswith("on h 0 processes, 0 containers, 2 spared (another?[31m?Airflow's)")
    if shape != "1.10.0":
        assert logged_db.rows("select map_index, try_number from log") == [(-1, 1)]


def test_each_host_once_and_again_when_there_is_more(logged_db: AirflowDatabase) -> None:
    logged_db.set_run("failed")
    for host, count in (("h", 1), ("h", 1), ("other", 1), ("h", 2)):
        report(logged_db, "stopped", host, processes=[_PROCESS] * count)
    report(logged_db, "nothing_found", "third")
    ends = [extra[extra.index("; on ") :] for (extra,) in logged_db.rows("select extra from log order by id")]
    assert ends == [
        "; on h 1 process, 0 containers",
        "; on other 1 process, 0 containers",
        "; on h 2 processes, 0 containers",
    ]


@one_server
def test_the_worst_is_told_and_what_is_not_the_runs_is_not(logged_db: AirflowDatabase) -> None:
    logged_db.set_run("failed")
    logged_db.rows("select dagstop.heartbeat('busy still', gen_random_uuid(), '1', '{}')")  # it stays open
    spared = [{"why": "it asks to be spared"}, {"why": "another's", "whose": "another Airflow's"}]
    report(logged_db, "spared", "one", processes=[_PROCESS], spared=spared)
    report(logged_db, "not_found", "two", not_found=["a", "b"])
    report(logged_db, "not_found", "three", containers=[{}], not_found=["a"])
    report(logged_db, "could_not_look", "four", could_not_look=["the environment of uid 50000"])
    report(logged_db, "stopped", "five", processes=[_PROCESS], spared=spared[1:])
    said = [extra for (extra,) in logged_db.rows("select extra from log order by id")]
    assert [text.partition(" by dagstop")[0] for text in said] == [
        "stopped, except for what was spared",
        "not found",
        "stopped, except for what was not found",
        "not looked for",
        "stopped",
    ]
    assert [text.partition("; on ")[2].partition("container")[2].lstrip("s") for text in said] == [
        ", 1 spared (it asks to be spared)",
        ", not found: a, b",
        ", not found: a",
        ", could not look: the environment of uid 50000",
        "",
    ]


@one_server
def test_of_an_order_that_others_closed_only_what_was_done_since_is_told(logged_db: AirflowDatabase) -> None:
    logged_db.set_run("failed")
    report(logged_db, "stopped", processes=[_PROCESS])
    assert logged_db.one("select closed_at is not null from dagstop.stop_order")
    report(logged_db, "spared", "renamed", spared=[{"why": "x"}])
    report(logged_db, "not_found", "new", not_found=["a"])
    assert logged_db.one("select count(*) from log") == 1
    report(logged_db, "stopped", "late", processes=[_PROCESS])
    assert logged_db.one("select count(*) from log") == 2


def test_no_log_table_or_not_wanted(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.set_run("failed")
    report(airflow_db, "stopped", processes=[_PROCESS])
    airflow_db.rows("create table log (id serial, event varchar(30))")  # nor a shape that nobody knows
    report(airflow_db, "stopped", "other", processes=[_PROCESS])
    assert [place for place, _ in airflow_db.faults()] == ["audit"]
    airflow_db.rows("update dagstop.setting set value = 'off' where name = 'airflow_log'")
    airflow_db.rows("delete from dagstop.fault")
    report(airflow_db, "stopped", "third", processes=[_PROCESS])
    assert airflow_db.faults() == []
    assert airflow_db.one("select count(*) from dagstop.report where outcome = 'stopped'") == 3


def test_a_report_is_written_though_a_migration_holds_the_table(logged_db: AirflowDatabase) -> None:
    logged_db.set_run("failed")
    with logged_db.transaction() as cursor:
        cursor.execute("lock table log in access exclusive mode")
        report(logged_db, "stopped", processes=[_PROCESS])
    assert logged_db.rows("select from log") == []
    assert logged_db.one("select outcome from dagstop.report") == "stopped"
    assert [place for place, _ in logged_db.faults()] == ["audit"]


@one_server
def test_observing_writes_nothing_of_airflows_and_a_protected_dag_is_told_of(
    logged_db: AirflowDatabase,
) -> None:
    for name, value, written in (("observe_only", "on", 0), ("protected", "dag", 1)):
        set_setting(logged_db, name, value)
        logged_db.set_run("failed")
        report(logged_db, "spared", spared=[{"why": f"{name}: it would die"}])
        assert logged_db.one("select count(*) from log") == written
        logged_db.set_run("running")
        set_setting(logged_db, name, "off" if name == "observe_only" else "")
    logged_db.rows("delete from log")
    set_setting(logged_db, "observe_only", "on")
    logged_db.set_run("failed")
    set_setting(logged_db, "observe_only", "off")  # what was only observed stays so
    report(logged_db, "spared", spared=[{"why": "x"}])
    assert logged_db.rows("select from log") == [] and logged_db.faults() == []


@one_server
def test_what_was_deleted_is_called_so(logged_db: AirflowDatabase, shape: str) -> None:
    set_setting(logged_db, "also_stop_on", "deleted")
    logged_db.rows("delete from dag_run")
    report(logged_db, "stopped", processes=[_PROCESS])
    assert logged_db.one("select extra from log").startswith("stopped by dagstop: DAG run deleted by ")

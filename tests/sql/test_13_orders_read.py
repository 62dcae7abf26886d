"""13_orders_read.sql: what the listeners and the commands are shown."""

from __future__ import annotations

import json
from typing import Any

from dagstop import sql
from tests.support.airflow_tables import FIRST_DATE, NO_PROCESS, AirflowDatabase
from tests.support.queries import call, report


def open_orders(db: AirflowDatabase, host: str = "h", ids: Any = None, limit: int = 2000) -> Any:
    return call(db, "open_orders", host=host, ids=ids, max_orders=limit)


def test_an_order_with_targets_and_present_rows(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.add_task("done", "success")
    airflow_db.set_run("failed")
    (order,) = open_orders(airflow_db)
    assert (order["kind"], order["dag_id"], order["run_id"]) == ("run", "dag", "run")
    assert order["logical_date"] == FIRST_DATE
    assert order["settle_seconds"] == 10
    assert order["db_now"] >= order["created_at"]
    (target,) = order["targets"]
    assert {key: target[key] for key in ("task_id", "map_index", "pid", "hostname")} == {
        "task_id": "a", "map_index": -1, "pid": NO_PROCESS, "hostname": "worker",
    }  # fmt: skip
    assert target["state_before"] == "running" and target["released_at"] is None
    assert [(row["task_id"], row["state"]) for row in order["present"]] == [
        ("a", "failed"), ("done", "success"),
    ]  # fmt: skip


def test_a_task_order_shows_that_task_only(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running(tasks=("a", "b"))
    airflow_db.set_task("a", "failed")
    (order,) = open_orders(airflow_db)
    assert [row["task_id"] for row in order["present"]] == ["a"]


def test_an_order_is_open_for_a_host_until_its_final_report(airflow_db: AirflowDatabase) -> None:
    for number in range(3):
        airflow_db.add_running(f"run{number}", ("a",), number)
    airflow_db.rows("update dag_run set state = 'failed'")
    first, second, third = [order["id"] for order in open_orders(airflow_db)]
    report(airflow_db, first, "h", "stopped")
    report(airflow_db, second, "h", None)
    report(airflow_db, third, "elsewhere", "stopped")
    assert [order["id"] for order in open_orders(airflow_db)] == [second, third]
    assert [order["id"] for order in open_orders(airflow_db, limit=1)] == [second]
    assert [order["id"] for order in open_orders(airflow_db, ids=[first])] == [first]
    airflow_db.rows("update dagstop.stop_order set created_at = now() - interval '2 days'")
    assert open_orders(airflow_db) == []


def test_a_doorbell_means_the_orders_that_are_not_closed(airflow_db: AirflowDatabase) -> None:
    for number in range(3):
        airflow_db.add_running(f"run{number}", ("a",), number)
    airflow_db.rows("update dag_run set state = 'failed'")
    first, second, third = [order["id"] for order in open_orders(airflow_db)]
    report(airflow_db, first, "elsewhere", "stopped")  # no other listener lives: this closes it
    report(airflow_db, second, "h", "stopped")
    rung = call(airflow_db, "rung_orders", host="h", max_orders=9)
    assert [order["id"] for order in rung] == [third]
    assert rung == [{**open_orders(airflow_db)[1], "db_now": rung[0]["db_now"]}]
    assert [order["id"] for order in open_orders(airflow_db)] == [first, third]


def test_what_a_fetch_costs_does_not_grow_with_the_orders_of_the_day(airflow_db: AirflowDatabase) -> None:
    airflow_db.rows(
        "insert into dagstop.stop_order (kind, airflow_schema, dag_id, run_id, closed_at)"
        " select 'run', 'public', 'dag', 'run' || n, now() from generate_series(1, 300) n"
    )
    airflow_db.rows("analyze dagstop.stop_order")
    with airflow_db.connect() as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("set track_functions = 'all'")
        for name in ("open_orders", "rung_orders"):
            cursor.execute(sql.queries()[name], {"host": "h", "ids": None, "max_orders": 10})
        cursor.execute("select calls from pg_stat_xact_user_functions where funcname = 'seconds_of'")
        assert cursor.fetchall() <= [(10,)]


def test_orders_come_even_where_airflows_tables_cannot_be_read(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.set_run("failed")
    airflow_db.rows("drop table task_instance")
    (order,) = open_orders(airflow_db)
    assert order["present"] is None and len(order["targets"]) == 1
    open_orders(airflow_db)
    assert [place for place, _ in airflow_db.faults()] == ["open_orders"]


def test_the_order_that_would_be(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running(tasks=("a", "b"))
    (run,) = call(airflow_db, "would_be_order", dag_id="dag", run_id="run", task_id=None)
    assert (run["id"], run["kind"], run["state_before"]) == (None, "run", "running")
    assert [target["task_id"] for target in run["targets"]] == ["a", "b"]
    assert run["targets"][0]["state_before"] == "running"
    (task,) = call(airflow_db, "would_be_order", dag_id="dag", run_id="run", task_id="b")
    assert (task["kind"], [row["task_id"] for row in task["present"]]) == ("task", ["b"])
    assert call(airflow_db, "would_be_order", dag_id="dag", run_id="no", task_id=None) == []
    airflow_db.set_run("failed")
    assert {*run, "begun"} == set(open_orders(airflow_db)[0])  # what a host had begun is its own


def test_states_by_run_by_date_and_by_uuid(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running(tasks=("a", "b"))
    date = FIRST_DATE.isoformat()
    keys = [
        {"dag_id": "dag", "run_id": "run", "task_id": "a"},
        {"dag_id": "dag", "logical_date": date, "task_id": "b", "map_index": None},
        {"dag_id": "dag", "run_id": "run", "task_id": "unknown"},
    ]
    found = call(airflow_db, "task_states", ti_ids=["not a uuid"], keys=json.dumps(keys))
    assert sorted(
        (row["task_id"], row["run_id"], row["logical_date"], row["state"], row["run_state"]) for row in found
    ) == [(task, "run", FIRST_DATE, "running", "running") for task in ("a", "b")]
    if airflow_db.has_uuid:
        uuid = airflow_db.one("select id::text from task_instance where task_id = 'a'")
        (row,) = call(airflow_db, "task_states", ti_ids=[uuid], keys=json.dumps(keys[:1]))
        assert (row["ti_id"], row["task_id"], row["pid"]) == (uuid, "a", NO_PROCESS)

"""07_orders.sql: an order for every way of turning failed."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from tests.support.airflow_tables import FIRST_DATE, NO_PROCESS, AirflowDatabase
from tests.support.marks import one_server


def test_a_failed_run_writes_who_did_it(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    with airflow_db.connect(application_name="by hand") as connection:
        connection.cursor().execute("update dag_run set state = 'failed'")
        backend = connection.get_backend_pid()
    assert airflow_db.one(
        "select kind, airflow_schema, dag_id, run_id, logical_date, task_id, map_index, self_reported,"
        " cascaded, session_user_name, application_name, host(client_addr), backend_pid, state_before"
        " from dagstop.stop_order"
    ) == ("run", "public", "dag", "run", FIRST_DATE, None, None, False,
          True, "postgres", "by hand", "127.0.0.1", backend, "running")  # fmt: skip


def test_a_failed_task_is_an_order_of_its_own(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running(tasks=("a", "b"))
    airflow_db.set_task("a", "failed")
    assert airflow_db.one(
        "select kind, dag_id, run_id, logical_date, task_id, map_index, self_reported, state_before"
        " from dagstop.stop_order"
    ) == ("task", "dag", "run", FIRST_DATE, "a", -1, False, "running")
    task, index, try_number, host, pid, operator, before, released = airflow_db.one(
        "select task_id, map_index, try_number, hostname, pid, operator, state_before, released_at"
        " from dagstop.stop_target"
    )
    assert (task, index, try_number, host, pid) == ("a", -1, 1, "worker", NO_PROCESS)
    assert (operator, before, released) == ("BashOperator", "running", None)
    job, uuid = airflow_db.one("select job_id, ti_id from dagstop.stop_target")
    assert (job is None, uuid is not None) == (airflow_db.has_uuid, airflow_db.has_uuid)
    assert airflow_db.states() == {"a": "failed", "b": "running"}


def test_airflow_itself_sets_the_end_with_the_state(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.rows("update task_instance set state = 'failed', end_date = now()")
    assert airflow_db.one("select self_reported from dagstop.stop_order") is True


@one_server
def test_whatever_a_failed_task_was_before_it_is_an_order(airflow_db: AirflowDatabase) -> None:
    """What runs of it may not show in its state: a process that has not said so yet, or one that was left."""
    states = (None, "scheduled", "queued", "up_for_retry", "up_for_reschedule", "deferred", "success")
    airflow_db.add_run()
    for state in states:
        airflow_db.add_task(f"was {state}", state)
    airflow_db.rows("update task_instance set state = 'failed'")
    assert set(airflow_db.rows("select task_id from dagstop.stop_order")) == {
        (f"was {state}",) for state in states
    }
    assert airflow_db.faults() == []


@one_server
@pytest.mark.parametrize("table", ["dag_run", "task_instance"])
def test_dagstop_stop_sets_the_end_and_is_not_the_tasks_own_process(
    airflow_db: AirflowDatabase, table: str
) -> None:
    for application in ("airflow", "dagstop stop"):
        airflow_db.begin_again(["run"])
        with airflow_db.connect(application_name=application) as connection:
            connection.cursor().execute(f"update {table} set state = 'failed', end_date = now()")
        by_itself = airflow_db.rows("select distinct self_reported from dagstop.stop_order")
        assert by_itself == [(application == "airflow",)]


def test_an_end_that_is_set_with_the_state_stays(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.rows("update task_instance set state = 'failed', end_date = '2026-01-02 03:04:05+00'")
    assert airflow_db.one("select end_date = '2026-01-02 03:04:05+00' from task_instance")


def test_other_changes_write_no_order(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.set_run("success")
    airflow_db.set_task("a", "success")
    airflow_db.rows("update dag_run set state = 'failed' where false")
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 0


def test_failed_again_is_no_new_order(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.set_run("failed")
    airflow_db.set_run("failed")
    airflow_db.set_task("a", "failed")
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 1


@pytest.mark.parametrize(
    "shape", ["1.10.0"], indirect=True
)  # from 2.2 on Airflow's own foreign key forbids it
def test_a_task_without_a_run_is_an_order_too(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_task("backfilled")
    airflow_db.set_task("backfilled", "failed")
    assert airflow_db.one("select run_id, logical_date from dagstop.stop_order") == (
        None, FIRST_DATE,
    )  # fmt: skip
    airflow_db.set_task("backfilled", "running")
    assert airflow_db.states() == {"backfilled": "failed"}


def test_through_a_socket_there_is_no_address(airflow_db: AirflowDatabase, server: object) -> None:
    airflow_db.add_running()
    name = airflow_db.url.rsplit("/", 1)[1]
    socket_db = AirflowDatabase(server.socket_url(name), airflow_db.shape)  # type: ignore[attr-defined]
    socket_db.set_run("failed")
    assert airflow_db.one("select client_addr from dagstop.stop_order") is None
    assert os.path.exists(server.socket_dir)  # type: ignore[attr-defined]


def test_a_task_is_an_order_while_a_migration_holds_dag_run(airflow_db: AirflowDatabase) -> None:
    """We hold the row in task_instance that the migration may want next: somebody has to give way."""
    airflow_db.add_running("run", ("a",))
    with airflow_db.transaction() as migration:
        migration.execute("lock table dag_run in access exclusive mode")
        airflow_db.set_task("a", "failed")
    (order,) = airflow_db.rows("select kind, dag_id, task_id from dagstop.stop_order")
    assert order == ("task", "dag", "a")
    assert airflow_db.states() == {"a": "failed"}
    assert [place for place, _ in airflow_db.faults()] == ["order_task"]


def test_a_task_is_of_its_own_dags_run(airflow_db: AirflowDatabase) -> None:
    """Runs of other DAGs have the same run_id, or the same date."""
    later = FIRST_DATE + timedelta(hours=1)
    airflow_db.add_run("dag0", "run", date=later)
    airflow_db.add_run("dag1", "another", date=FIRST_DATE)
    airflow_db.add_run("dag", "another", date=later)
    airflow_db.add_running()
    airflow_db.set_task("a", "failed")
    assert airflow_db.rows("select dag_id, run_id, logical_date from dagstop.stop_order") == [
        ("dag", "run", FIRST_DATE)
    ]

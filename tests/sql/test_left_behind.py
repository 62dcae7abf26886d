"""What the chores do for orders whose cascade was left behind: for these orders only, and only where it still applies."""

from __future__ import annotations

from datetime import timedelta

import psycopg2
import pytest

from tests.support.airflow_tables import FIRST_DATE, AirflowDatabase
from tests.support.marks import one_server, shape_1_10, shape_2
from tests.support.settings import set_setting

pytestmark = one_server
PENDING = "select dag_id, run_id from dagstop.stop_order where not cascaded order by id"
DATES = "select logical_date from dagstop.stop_order order by id"


def leave_behind(db: AirflowDatabase, statement: str = "update dag_run set state = 'failed'") -> None:
    """The orders are written; their cascade meets tables that are not as they should be, for a moment."""
    db.rows("alter table task_instance rename column state to was")
    db.rows(statement)
    db.rows("alter table task_instance rename column was to state")


def hurry(db: AirflowDatabase, statement: str) -> None:
    """In a session that has waited for locks already, and waits no more."""
    with db.connect() as connection, connection.cursor() as cursor:
        cursor.execute("set dagstop.waits_since = '0'")
        cursor.execute(statement)


def test_a_cleared_run_is_left_alone_beside_others_that_are_still_failed(airflow_db: AirflowDatabase) -> None:
    """One of the same DAG, and one of another DAG with the same run_id."""
    airflow_db.add_running()
    airflow_db.add_running("other", ("b",), 1)
    airflow_db.add_run("dag2", "run")
    airflow_db.add_task("c", dag_id="dag2")
    leave_behind(airflow_db)
    assert len(airflow_db.rows(PENDING)) == 3
    airflow_db.rows("update dag_run set state = 'queued' where dag_id = 'dag' and run_id = 'run'")
    airflow_db.beat()
    assert airflow_db.rows(PENDING) == []
    assert airflow_db.states() == {"a": "running", "b": "failed", "c": "failed"}


def test_an_order_keeps_its_date_when_another_gets_one(airflow_db: AirflowDatabase) -> None:
    """The first run was deleted since, and begun again with another date."""
    airflow_db.add_running()
    airflow_db.set_run("failed")
    again = FIRST_DATE + timedelta(hours=1)
    airflow_db.rows(f"update dag_run set state = 'running', {airflow_db.date_column} = %s", (again,))
    airflow_db.add_run("dag0", "other", date=FIRST_DATE)
    airflow_db.add_running("other", ("b",), 1)
    airflow_db.add_run("dag2", "other", date=FIRST_DATE)
    airflow_db.rows("set session_replication_role = replica; update dag_run set state = 'failed'")
    airflow_db.rows("select dagstop.stop_again('dag', 'other')")
    assert airflow_db.rows(DATES) == [(FIRST_DATE,), (FIRST_DATE + timedelta(days=1),)]


def test_stopping_a_run_again_touches_no_other_order(airflow_db: AirflowDatabase) -> None:
    """`dagstop stop` must not wait for what the chores have left: that may be 100,000 task instances."""
    for number, run in enumerate(("run", "cleared", "asked")):
        airflow_db.add_running(run, (f"of {run}",), number)
    leave_behind(airflow_db)
    airflow_db.rows("update dag_run set state = 'queued' where run_id = 'cleared'")
    airflow_db.rows("select dagstop.stop_again('dag', 'asked')")
    assert airflow_db.states() == {"of run": "running", "of cleared": "running", "of asked": "failed"}
    assert airflow_db.rows(PENDING) == [("dag", "run"), ("dag", "cleared"), ("dag", "asked")]


@shape_1_10
def test_a_run_of_another_name_at_the_same_date_is_another_run(airflow_db: AirflowDatabase) -> None:
    """The run was deleted and begun again; beside it is one without a run_id, which is found by its date."""
    airflow_db.add_running()
    airflow_db.add_running("nameless", ("b",), 1)
    airflow_db.rows("update dag_run set run_id = null where run_id = 'nameless'")
    leave_behind(airflow_db)
    airflow_db.rows("update dag_run set run_id = 'again' where run_id = 'run'")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "running", "b": "failed"}
    assert airflow_db.rows(PENDING) == []


@shape_1_10
def test_of_nameless_runs_only_the_one_of_that_date_counts(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.add_running("other", ("b",), 1)
    airflow_db.rows("update dag_run set run_id = null")
    leave_behind(airflow_db)
    airflow_db.rows("update dag_run set state = 'queued' where execution_date = %s", (FIRST_DATE,))
    airflow_db.beat()
    assert airflow_db.states() == {"a": "running", "b": "failed"}
    assert airflow_db.rows(PENDING) == []


@shape_1_10
def test_a_deleted_run_fails_what_it_left_once_that_is_free(airflow_db: AirflowDatabase) -> None:
    """Airflow 1.10 has no foreign key; another run of the DAG, and one of that name in another DAG, are there still."""
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running()
    airflow_db.add_running("other", ("b",), 1)
    airflow_db.add_run("dag2", "run")
    airflow_db.add_task("c", dag_id="dag2")
    with airflow_db.transaction() as other:
        other.execute("select from task_instance where task_id = 'a' for update")
        hurry(airflow_db, "delete from dag_run where dag_id = 'dag' and run_id = 'run'")
        assert airflow_db.rows(PENDING) == [("dag", "run")]
        hurry(airflow_db, "call dagstop.do_chores()")
        assert airflow_db.rows(PENDING) == [("dag", "run")]
    airflow_db.rows("select dagstop.complete_orders('{}', 'public')")  # of none
    assert airflow_db.rows(PENDING) == [("dag", "run")]
    airflow_db.beat()
    assert airflow_db.rows(PENDING) == []
    assert airflow_db.states() == {"a": "failed", "b": "running", "c": "running"}


@shape_1_10
def test_a_run_that_was_deleted_and_created_again_runs_on(airflow_db: AirflowDatabase) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running()
    with airflow_db.transaction() as other:
        other.execute("select from task_instance for update")
        hurry(airflow_db, "delete from dag_run")
        assert airflow_db.rows(PENDING) == [("dag", "run")]
    airflow_db.add_run()
    airflow_db.beat()
    assert airflow_db.states() == {"a": "running"}
    assert airflow_db.rows(PENDING) == []


def test_a_run_that_is_left_behind_leaves_earlier_ones_as_they_are(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.add_running("other", ("b",), 1)
    airflow_db.set_run("failed")
    with airflow_db.transaction() as person:
        person.execute("select from task_instance where task_id = 'b' for update")
        hurry(airflow_db, "update dag_run set state = 'failed' where run_id = 'other'")
    assert airflow_db.rows(PENDING) == [("dag", "other")]


def test_a_reference_to_a_run_does_not_hold_up_the_chores(airflow_db: AirflowDatabase) -> None:
    """Airflow 2.2 and later lock the key of the run for each task instance that they add."""
    airflow_db.add_running()
    leave_behind(airflow_db)
    with airflow_db.transaction() as airflow:
        airflow.execute("select from dag_run for key share")
        hurry(airflow_db, "call dagstop.do_chores()")
        assert airflow_db.states() == {"a": "failed"}


def test_a_run_that_somebody_has_does_not_hold_up_the_others(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.add_running("other", ("b",), 1)
    leave_behind(airflow_db)
    with airflow_db.transaction() as person:
        person.execute("update dag_run set end_date = now() where run_id = 'run'")
        hurry(airflow_db, "call dagstop.do_chores()")
        assert airflow_db.states() == {"a": "running", "b": "failed"}
        assert airflow_db.rows(PENDING) == [("dag", "run")]
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed", "b": "failed"}


@pytest.mark.parametrize("still", [True, False])
def test_what_was_protected_then_is_not_left_for_ever(airflow_db: AirflowDatabase, still: bool) -> None:
    """Beside a run of another DAG, whose cascade met the error."""
    set_setting(airflow_db, "protected", "dag")
    airflow_db.add_running()
    airflow_db.add_run("dag2", "run")
    airflow_db.add_task("b", dag_id="dag2")
    leave_behind(airflow_db)
    assert len(airflow_db.rows(PENDING)) == 2
    if not still:
        set_setting(airflow_db, "protected", "")
    airflow_db.beat()
    assert airflow_db.rows(PENDING) == []
    assert airflow_db.states() == {"a": "running" if still else "failed", "b": "failed"}


@shape_2
def test_who_completes_an_order_tries_for_the_runs_and_does_not_wait(airflow_db: AirflowDatabase) -> None:
    """EXCLUSIVE lets others read, and lets nobody lock a row."""
    airflow_db.add_running()
    leave_behind(airflow_db)
    complete = "select dagstop.complete_orders(array(select id from dagstop.stop_order), 'public')"
    with airflow_db.transaction() as other:
        other.execute("lock table dag_run in exclusive mode")
        with pytest.raises(psycopg2.errors.LockNotAvailable, match="could not obtain lock"):
            hurry(airflow_db, f"set lock_timeout = '5s'; {complete}")
    airflow_db.beat()
    assert airflow_db.rows(PENDING) == [] and airflow_db.states() == {"a": "failed"}


@shape_1_10
def test_what_a_protected_run_left_when_it_was_deleted_runs_on(airflow_db: AirflowDatabase) -> None:
    """Beside a run of another DAG, whose cascade met the error."""
    set_setting(airflow_db, "also_stop_on", "deleted")
    set_setting(airflow_db, "protected", "dag")
    airflow_db.add_running()
    airflow_db.add_run("dag2", "run")
    airflow_db.add_task("b", dag_id="dag2")
    airflow_db.rows(
        "create function of_others() returns trigger language plpgsql as"
        " $$ begin raise exception 'a trigger of others'; end $$;"
        " create trigger of_others before update on task_instance for each row execute function of_others()"
    )
    airflow_db.rows("delete from dag_run")
    assert len(airflow_db.rows(PENDING)) == 2
    airflow_db.rows("drop trigger of_others on task_instance")
    airflow_db.beat()
    assert airflow_db.rows(PENDING) == []
    assert airflow_db.states() == {"a": "running", "b": "failed"}

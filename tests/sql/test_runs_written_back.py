"""A dying task of Airflow 2 writes its run back as it was when the task began; 11_fence.sql puts that right."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import one_server
from tests.support.settings import set_setting

pytestmark = [one_server, pytest.mark.parametrize("shape", ["2.11.2", "3.3.2"], indirect=True)]
# what SQLAlchemy merges of a copy; tests/e2e/test_dying_task.py has it from real Airflows
OLD_COPY = (
    "update dag_run set state = 'running', end_date = null, last_scheduling_decision = '2024-01-01 00:00:01Z'"
    " where run_id = 'run'"
)
RUN = "select state, end_date is null from dag_run where run_id = 'run'"
ORDERS = "select run_id from dagstop.stop_order order by id"


@pytest.fixture
def db(airflow_db: AirflowDatabase) -> AirflowDatabase:
    """A run that was failed, as the web interface does it, after a scheduler had looked at it twice."""
    airflow_db.add_running()
    airflow_db.rows("update dag_run set last_scheduling_decision = '2024-01-01 00:00:02Z'")
    airflow_db.rows("update dag_run set state = 'failed', end_date = clock_timestamp()")
    return airflow_db


def test_it_stays_failed_and_that_is_no_new_order(db: AirflowDatabase) -> None:
    with db.connect() as connection, connection.cursor() as cursor:
        cursor.execute(OLD_COPY)
        assert cursor.rowcount == 1  # SQLAlchemy counts
    assert db.one(RUN) == ("failed", False)
    assert db.rows(ORDERS) == [("run",)]
    assert db.rows("select dag_id, run_id, task_id, map_index, wanted_state from dagstop.refused_write") == [
        ("dag", "run", None, None, "running")
    ]
    assert db.faults() == []


def test_so_it_is_for_each_of_its_tasks(db: AirflowDatabase) -> None:
    """Two that began between the same two looks have the same copy."""
    looked_at = "select last_scheduling_decision from dag_run"
    before = db.one(looked_at)
    for _ in range(2):
        db.rows(OLD_COPY)
        assert db.one(RUN) == ("failed", False)
        assert db.one(looked_at) == before
    assert db.one("select count(*) from dagstop.refused_write") == 2
    assert db.rows(ORDERS) == [("run",)]


def test_also_once_its_order_is_closed(db: AirflowDatabase) -> None:
    db.rows("update dagstop.stop_order set closed_at = now()")
    db.rows(OLD_COPY)
    assert db.one(RUN) == ("failed", False)


@pytest.mark.parametrize(
    "looked_at",
    [
        "last_scheduling_decision",  # a person sets it running
        "null",  # a clear
        "clock_timestamp()",
    ],
)
def test_what_people_set_running_runs(db: AirflowDatabase, looked_at: str) -> None:
    db.rows(f"update dag_run set state = 'running', end_date = null, last_scheduling_decision = {looked_at}")
    assert db.one(RUN) == ("running", True)
    assert db.rows("select from dagstop.refused_write") == []
    db.set_run("failed")
    assert db.rows(ORDERS) == [("run",), ("run",)]


@pytest.mark.parametrize(
    "change",
    [
        "update dagstop.stop_order set created_at = now() - interval '601 seconds'",
        "update dagstop.stop_order set hands_off = 'protected DAG'",
        "delete from dagstop.stop_order",
    ],
)
def test_what_is_not_being_stopped_is_left_to_airflow(db: AirflowDatabase, change: str) -> None:
    db.rows(change)
    db.rows(OLD_COPY)
    assert db.one(RUN) == ("running", True)
    assert db.faults() == []


def test_the_order_of_another_run_does_not_hold_this_one(db: AirflowDatabase) -> None:
    db.add_running("other", ("b",), 1)
    db.set_run("failed", "other")
    db.rows("delete from dagstop.stop_order where run_id = 'run'")
    db.rows(OLD_COPY)
    assert db.one(RUN) == ("running", True)


def test_who_only_observes_puts_nothing_back(db: AirflowDatabase) -> None:
    set_setting(db, "observe_only", "on")
    db.rows(OLD_COPY)
    assert db.one(RUN) == ("running", True)


def test_a_bypass_passes(db: AirflowDatabase) -> None:
    with db.transaction() as cursor:
        cursor.execute("select set_config('dagstop.bypass', txid_current()::text, true)")
        cursor.execute(OLD_COPY)
    assert db.one(RUN) == ("running", True)


def test_what_turns_failed_beside_it_is_ordered(db: AirflowDatabase) -> None:
    """In the same statement, by another's trigger on what is put back, and by the same run later in the transaction."""
    for number, name in enumerate(("beside", "by trigger"), 1):
        db.add_running(name, number=number)
    db.rows(
        """
        create function follow() returns trigger language plpgsql as $$
        begin
            update dag_run set state = 'failed' where run_id = 'by trigger' and state = 'running';
            return null;
        end
        $$;
        create trigger follow after update of state on dag_run for each row
        when (old.state = 'running' and new.state = 'failed' and new.run_id = 'run')
        execute function follow()
        """
    )
    with db.transaction() as cursor:
        cursor.execute(
            "update dag_run set state = case run_id when 'run' then 'running' else 'failed' end,"
            " last_scheduling_decision = '2024-01-01 00:00:01Z' where run_id in ('run', 'beside')"
        )
        assert sorted(db_rows(cursor, ORDERS)) == [("beside",), ("by trigger",), ("run",)]
        cursor.execute("update dag_run set state = 'running' where run_id = 'run'")
        cursor.execute("update dag_run set state = 'failed' where run_id = 'run'")
    assert sorted(db.rows(ORDERS)) == [("beside",), ("by trigger",), ("run",), ("run",)]
    assert db.rows("select from task_instance where state <> 'failed'") == []
    assert db.faults() == []


def db_rows(cursor: Any, query: str) -> list[tuple[Any, ...]]:
    cursor.execute(query)
    return list(cursor.fetchall())


def test_a_fault_lets_the_write_pass(db: AirflowDatabase) -> None:
    """Another session has what the row refers to; the check of its foreign key would wait for that session."""
    db.rows(
        "create table log_template (id integer primary key); insert into log_template values (1);"
        "update dag_run set log_template_id = 1;"
        "alter table dag_run add foreign key (log_template_id) references log_template"
    )
    with db.transaction() as other:
        other.execute("select from log_template for update")
        db.rows(OLD_COPY)
        assert db.one(RUN) == ("running", True)
    ((place, message),) = db.rows("select place, message from dagstop.fault")
    assert (place, message) == ("fence_run", "another session has what the run refers to")


def test_an_index_that_a_dba_builds_holds_up_no_write(db: AirflowDatabase) -> None:
    """SHARE lets others read, and lets nobody write."""
    with db.transaction() as dba:
        dba.execute("lock table dagstop.refused_write in share mode")
        db.rows(f"set dagstop.waits_since = '0'; set statement_timeout = '15s'; {OLD_COPY}")
        assert db.one(RUN) == ("running", True)
    assert [place for place, _ in db.faults()] == ["fence_run"]

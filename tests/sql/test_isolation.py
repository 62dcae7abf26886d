"""What a transaction that fails runs costs all other sessions, and what it does under each isolation level."""

from __future__ import annotations

import psycopg2
import pytest

from tests.support.airflow_tables import AirflowDatabase

LEVELS = ("read committed", "repeatable read", "serializable")


def transactions_since(db: AirflowDatabase, earlier: int) -> int:
    """How many transaction numbers were given out in between; two of them to ask."""
    return int(db.one("select txid_current()")) - earlier - 1


@pytest.mark.parametrize("level", LEVELS)
def test_a_run_is_failed_under_each_level(airflow_db: AirflowDatabase, level: str) -> None:
    airflow_db.add_running()
    with airflow_db.transaction() as cursor:
        cursor.execute(f"set transaction isolation level {level}")
        cursor.execute("update dag_run set state = 'failed'")
    assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.one("select count(*) from dagstop.stop_order where cascaded") == 1
    assert airflow_db.faults() == []


@pytest.mark.parametrize("level", LEVELS[1:])
def test_what_is_to_be_tried_again_is_raised(airflow_db: AirflowDatabase, level: str) -> None:
    """Another session has changed the task instance since the snapshot: only a new transaction can fail it."""
    airflow_db.add_running()
    with airflow_db.connect() as connection, connection.cursor() as cursor:
        connection.set_session(isolation_level=level.upper(), autocommit=False)
        cursor.execute("select from dag_run")
        airflow_db.rows("update task_instance set pid = 1")
        with pytest.raises(psycopg2.errors.SerializationFailure):
            cursor.execute("update dag_run set state = 'failed'")
        connection.rollback()
        assert airflow_db.faults() == []
        cursor.execute("update dag_run set state = 'failed'")
        connection.commit()
    assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.faults() == []


def test_failing_runs_reads_nothing_that_others_write(airflow_db: AirflowDatabase) -> None:
    """Else each two sessions that fail runs at once are in conflict under SERIALIZABLE."""
    airflow_db.add_running("run0", ("a",), 0)
    airflow_db.rows("analyze dag_run, task_instance")
    with airflow_db.transaction() as cursor:
        cursor.execute("set transaction isolation level serializable")
        cursor.execute("update dag_run set state = 'failed'")
        cursor.execute(
            "select distinct c.relname from pg_locks l join pg_class c on c.oid = l.relation"
            " where l.mode = 'SIReadLock' and c.relnamespace = 'dagstop'::regnamespace"
        )
        assert {name for (name,) in cursor.fetchall()} <= {"setting", "setting_pkey"}
    assert airflow_db.states() == {"a": "failed"}


def test_a_thousand_runs_take_a_few_subtransactions(airflow_db: AirflowDatabase) -> None:
    """Each has a number, and with more than 64 all other sessions look them up on disk."""
    airflow_db.add_runs(1000)
    earlier = int(airflow_db.one("select txid_current()"))
    airflow_db.rows("update dag_run set state = 'failed'")
    assert transactions_since(airflow_db, earlier) <= 20  # of which autovacuum takes some
    assert airflow_db.one("select count(distinct run_id) from dagstop.stop_order where cascaded") == 1000
    assert airflow_db.faults() == []


def test_task_instances_take_a_subtransaction_each(airflow_db: AirflowDatabase) -> None:
    """A limit, see docs/limits.md; not one more for each, whatever was stopped before."""
    airflow_db.add_running(tasks=[f"t{number}" for number in range(100)])
    for statement in (
        "update task_instance set state = 'failed', end_date = now()",
        "update task_instance set state = 'up_for_retry'",
        "update task_instance set state = null",
    ):
        earlier = int(airflow_db.one("select txid_current()"))
        airflow_db.rows(statement)
        assert 100 < transactions_since(airflow_db, earlier) <= 120  # of which autovacuum takes some
    assert airflow_db.faults() == []

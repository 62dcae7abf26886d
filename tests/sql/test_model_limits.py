"""The counterexamples of tests/model on a real Postgres: what docs/limits.md accepts is so."""

from __future__ import annotations

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import shape_1_10, shape_2

DIES = (
    "update task_instance set state = 'up_for_retry', end_date = clock_timestamp(),"
    " duration = extract(epoch from clock_timestamp() - start_date)"
)


def report(db: AirflowDatabase) -> None:
    """All that a live host has to say of the open orders."""
    db.beat()
    db.rows(
        "select dagstop.write_report(o.id, 'host', 'nothing_found', null, null, '{}')"
        " from dagstop.stop_order o"
    )
    db.rows("call dagstop.do_chores()")
    assert db.one("select bool_and(closed_at is not null) from dagstop.stop_order")


@pytest.mark.parametrize("shape", ["1.10.0", "2.11.2"], indirect=True)  # 3.x refuses it itself
def test_the_fence_does_not_guard_success(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.set_task("a", "success")
    airflow_db.set_run("failed")
    airflow_db.rows(DIES)
    assert airflow_db.states() == {"a": "up_for_retry"}


def test_a_retry_between_cascade_and_commit_stays(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_run()
    airflow_db.add_task("a", "failed")
    with airflow_db.transaction() as cursor:
        cursor.execute("update dag_run set state = 'failed'")
        airflow_db.set_task("a", "up_for_retry")
    airflow_db.beat()
    assert airflow_db.one("select cascaded from dagstop.stop_order") is True
    assert airflow_db.states() == {"a": "up_for_retry"}


@shape_2
def test_a_task_that_began_before_a_late_cascade_writes_once_more(
    airflow_db: AirflowDatabase,
) -> None:
    airflow_db.add_run()
    airflow_db.add_task("a", "queued")
    with airflow_db.transaction() as holder:
        holder.execute("select from task_instance for update")
        airflow_db.set_run("failed")  # leaves its cascade to the chores
    # a live host has looked and found nothing; then the queued task begins
    airflow_db.rows(
        "insert into dagstop.report (order_id, host, outcome) select id, 'host', 'nothing_found'"
        " from dagstop.stop_order"
    )
    airflow_db.rows("update task_instance set state = 'running', start_date = clock_timestamp()")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.one("select closed_at is not null from dagstop.stop_order")
    airflow_db.rows(DIES)
    assert airflow_db.states() == {"a": "up_for_retry"}


@shape_1_10
@pytest.mark.parametrize(("before", "stays"), [("queued", "failed"), (None, "running")])
def test_a_message_whose_row_was_not_queued_any_more(
    airflow_db: AirflowDatabase, before: str | None, stays: str
) -> None:
    airflow_db.add_run()
    airflow_db.add_task("a", before)
    airflow_db.set_run("failed")
    report(airflow_db)
    airflow_db.rows("update task_instance set state = 'running', start_date = clock_timestamp()")
    assert airflow_db.states() == {"a": stays}


@shape_1_10
def test_what_a_scheduler_had_decided_is_written_after_the_order_is_closed(
    airflow_db: AirflowDatabase,
) -> None:
    airflow_db.add_run()
    airflow_db.add_task("a", None)
    airflow_db.set_run("failed")
    report(airflow_db)
    airflow_db.set_task("a", "scheduled")
    assert airflow_db.states() == {"a": "scheduled"}


@pytest.mark.parametrize("shape", ["2.11.2", "3.3.2"], indirect=True)
def test_what_could_not_be_put_back_is_not_put_back_in_a_later_try(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.set_run("failed")
    with airflow_db.transaction() as scheduler:
        scheduler.execute("select from dag_run for update")
        airflow_db.rows(DIES)
        assert airflow_db.states() == {"a": "up_for_retry"}
    airflow_db.set_task("a", None)  # cleared; it runs, and is to be tried once more
    airflow_db.set_run("running")
    airflow_db.set_task("a", "running")
    airflow_db.rows(DIES)
    airflow_db.beat()
    assert airflow_db.states() == {"a": "up_for_retry"}

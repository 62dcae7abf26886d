"""06_fence.sql: what a dying or late process wants, and what people want."""

from __future__ import annotations

import pytest

from tests.support.airflow_tables import AirflowDatabase

REFUSED = (
    "up_for_retry", "running", "queued", "scheduled", "deferred", "up_for_reschedule",
    "awaiting_input",
)  # fmt: skip
PASSES = (
    None, "success", "skipped", "removed", "upstream_failed", "shutdown", "restarting", "failed",
)  # fmt: skip


def stopped(db: AirflowDatabase) -> None:
    db.add_running()
    db.set_run("failed")


@pytest.mark.parametrize("wanted", REFUSED)
def test_revival_is_refused_and_recorded(airflow_db: AirflowDatabase, wanted: str) -> None:
    stopped(airflow_db)
    with airflow_db.connect() as connection, connection.cursor() as cursor:
        cursor.execute("update task_instance set state = %s, try_number = 2", (wanted,))
        assert cursor.rowcount == 1  # SQLAlchemy counts
    assert airflow_db.one("select state, try_number from task_instance") == ("failed", 2)
    assert airflow_db.one(
        "select dag_id, run_id, task_id, map_index, wanted_state from dagstop.refused_write"
    ) == ("dag", "run", "a", -1, wanted)
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 1  # it did not fail anew


@pytest.mark.parametrize("shape", ["2.11.2", "3.3.2"], indirect=True)  # no mapped tasks in 1.10
def test_of_mapped_tasks_only_the_stopped_one_is_refused(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_run()
    for index in (0, 1):
        airflow_db.add_task("a", "running" if index else "failed", map_index=index)
    airflow_db.set_run("failed")
    airflow_db.rows("update task_instance set state = 'queued'")
    assert airflow_db.rows("select map_index, state from task_instance order by 1") == [
        (0, "queued"), (1, "failed"),
    ]  # fmt: skip


@pytest.mark.parametrize("wanted", PASSES)
def test_what_people_do_passes(airflow_db: AirflowDatabase, wanted: str | None) -> None:
    stopped(airflow_db)
    airflow_db.set_task("a", wanted)
    assert airflow_db.states() == {"a": wanted}
    released = airflow_db.one("select released_at is not null from dagstop.stop_target")
    assert released is (wanted != "failed")
    assert airflow_db.one("select count(*) from dagstop.refused_write") == 0


def test_a_clear_opens_the_fence(airflow_db: AirflowDatabase) -> None:
    stopped(airflow_db)
    airflow_db.set_task("a", None)
    airflow_db.set_task("a", "running")
    airflow_db.set_task("a", "failed")
    airflow_db.rows("update dagstop.stop_order set closed_at = now() where kind = 'task'")
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": "up_for_retry"}


def test_rows_may_be_deleted(airflow_db: AirflowDatabase) -> None:
    stopped(airflow_db)
    airflow_db.rows("delete from task_instance")
    airflow_db.rows("delete from dag_run")
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 1


def test_a_session_may_bypass_it(airflow_db: AirflowDatabase) -> None:
    stopped(airflow_db)
    with airflow_db.connect() as connection, connection.cursor() as cursor:
        cursor.execute("set dagstop.bypass = 'on'")
        cursor.execute("update task_instance set state = 'running'")
    assert airflow_db.states() == {"a": "running"}


def test_it_ends_with_its_time(airflow_db: AirflowDatabase) -> None:
    stopped(airflow_db)
    airflow_db.rows("update dagstop.stop_order set created_at = now() - interval '601 seconds'")
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": "up_for_retry"}


def test_it_ends_with_its_order_but_not_for_what_was_queued(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.add_task("late", "queued")
    airflow_db.set_run("failed")
    airflow_db.rows("update dagstop.stop_order set closed_at = now()")
    airflow_db.rows("update task_instance set state = 'running'")
    assert airflow_db.states() == {"a": "running", "late": "failed"}


def test_what_dagstop_did_not_stop_is_not_fenced(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_run()
    airflow_db.add_task("earlier", "failed")
    airflow_db.set_run("failed")
    airflow_db.set_task("earlier", "up_for_retry")
    assert airflow_db.states() == {"earlier": "up_for_retry"}


@pytest.mark.parametrize("shape", ["2.11.2", "3.3.2"], indirect=True)  # no mapped tasks in 1.10
def test_one_mapped_task_is_fenced_and_its_sibling_not(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_run()
    airflow_db.add_task("m", map_index=0)
    airflow_db.add_task("m", "failed", map_index=1)
    airflow_db.rows("update task_instance set state = 'failed' where map_index = 0")
    airflow_db.rows("update task_instance set state = 'up_for_retry'")
    assert airflow_db.rows("select map_index, state from task_instance order by 1") == [
        (0, "failed"), (1, "up_for_retry"),
    ]  # fmt: skip


def test_a_fault_lets_the_write_pass(airflow_db: AirflowDatabase) -> None:
    stopped(airflow_db)
    airflow_db.rows("drop table dagstop.setting")
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": "up_for_retry"}
    assert ("fence", 'relation "dagstop.setting" does not exist') in airflow_db.faults()

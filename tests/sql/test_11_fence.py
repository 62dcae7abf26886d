"""11_fence.sql: what a dying or late process wants, and what people want."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import one_server, shape_1_10, shape_2, shape_3
from tests.support.settings import set_setting

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
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 1  # it did not fail again


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


@pytest.mark.parametrize("state", ["skipped", "removed"])
def test_what_also_stops_is_fenced_too(airflow_db: AirflowDatabase, state: str) -> None:
    set_setting(airflow_db, "also_stop_on", "skipped, removed")
    airflow_db.add_running()
    airflow_db.set_task("a", state)
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": state}
    assert airflow_db.one("select wanted_state from dagstop.refused_write") == "up_for_retry"
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 1
    airflow_db.set_task("a", None)  # a clear
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": "up_for_retry"}


def test_what_the_web_interface_skipped_is_not_fenced_and_no_other_order_is_released(
    airflow_db: AirflowDatabase,
) -> None:
    airflow_db.add_running()
    airflow_db.rows("update task_instance set end_date = now()")
    airflow_db.set_task("a", "skipped")  # as a dagrun_timeout does
    airflow_db.set_run("failed")
    assert airflow_db.one("select state_before from dagstop.stop_target") == "skipped"
    airflow_db.set_task("a", "failed")  # by its own process
    assert airflow_db.states() == {"a": "failed"}
    released = "select count(*) from dagstop.stop_target t join dagstop.stop_order o on o.id = t.order_id"
    assert airflow_db.one(f"{released} where o.kind = 'run' and t.released_at is not null") == 0


def test_rows_may_be_deleted(airflow_db: AirflowDatabase) -> None:
    stopped(airflow_db)
    airflow_db.rows("delete from task_instance")
    airflow_db.rows("delete from dag_run")
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 1


@one_server
def test_a_revival_is_refused_whatever_start_the_row_has_by_then(airflow_db: AirflowDatabase) -> None:
    """Of a success alone the start says whose it is."""
    stopped(airflow_db)
    airflow_db.rows("update task_instance set start_date = clock_timestamp()")
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": "failed"}


def test_it_ends_with_its_time(airflow_db: AirflowDatabase) -> None:
    stopped(airflow_db)
    airflow_db.rows("update dagstop.stop_order set created_at = now() - interval '601 seconds'")
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": "up_for_retry"}


def closed(db: AirflowDatabase) -> None:
    """One task instance that ran when its run failed and one that was queued; nothing of them lives."""
    db.add_running()
    db.add_task("late", "queued")
    db.set_run("failed")
    db.rows("update dagstop.stop_order set closed_at = now()")


def test_it_ends_with_its_order_but_not_for_1_10_s_late_message(airflow_db: AirflowDatabase) -> None:
    closed(airflow_db)
    airflow_db.rows("update task_instance set state = 'running', start_date = clock_timestamp()")
    late = "failed" if airflow_db.shape == "1.10.0" else "running"  # later releases refuse it themselves
    assert airflow_db.states() == {"a": "running", "late": late}
    airflow_db.rows("update task_instance set state = 'up_for_retry', end_date = clock_timestamp()")
    assert airflow_db.states()["late"] == ("failed" if airflow_db.shape == "1.10.0" else "up_for_retry")


@shape_1_10
@pytest.mark.parametrize("open_still", [True, False])
def test_a_late_message_that_finds_no_slot_is_refused_and_a_clear_is_not(
    airflow_db: AirflowDatabase, open_still: bool
) -> None:
    closed(airflow_db)
    if open_still:
        airflow_db.rows("update dagstop.stop_order set closed_at = null")
    # models.py of 1.10.0, line 1521; the clear is line 202
    airflow_db.rows(
        "update task_instance set state = null, start_date = clock_timestamp(), queued_dttm = clock_timestamp(),"
        " hostname = 'worker', job_id = 8 where task_id = 'late'"
    )
    assert airflow_db.states() == {"a": "failed", "late": "failed"}
    assert airflow_db.rows("select task_id, wanted_state from dagstop.refused_write") == [("late", None)]
    airflow_db.rows("update task_instance set state = null, max_tries = 3")
    assert airflow_db.states() == {"a": None, "late": None}


@pytest.mark.parametrize("by_hand", ["up_for_retry", "running", "scheduled", "queued"])
def test_once_closed_what_was_queued_runs_again_when_people_want_it(
    airflow_db: AirflowDatabase, by_hand: str
) -> None:
    closed(airflow_db)
    # the web interface of 1.10 sets the state alone, a backfill's scheduled comes with dates
    dates = (
        ", start_date = clock_timestamp(), end_date = clock_timestamp()"
        if by_hand in ("scheduled", "queued")
        else ""
    )
    airflow_db.rows(f"update task_instance set state = '{by_hand}'{dates}")
    assert airflow_db.states() == {"a": by_hand, "late": by_hand}
    airflow_db.rows("update task_instance set state = 'running', start_date = clock_timestamp()")
    assert airflow_db.states() == {"a": "running", "late": "running"}
    assert airflow_db.one("select count(*) from dagstop.refused_write") == 0


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
    ((place, message),) = airflow_db.faults()
    assert place == "fence" and message.endswith('relation "dagstop.setting" does not exist')


ENDED = "end_date = clock_timestamp(), duration = coalesce(duration, 0) + 1.5"
"""What a task's own process writes besides its state; see taskinstance.py, _run_raw_task, of 1.10.0 to 2.11."""
BY_HAND = {
    # api/common/mark_tasks.py and the task instances page (1.10.0: www; 1.10.1 on: www_rbac too); then 2.3 on
    "1.10.0": ("", ", start_date = clock_timestamp(), end_date = clock_timestamp()"),
    "2.11.2": (
        ", end_date = coalesce(end_date, clock_timestamp()), updated_at = clock_timestamp(),"
        " duration = extract(epoch from coalesce(end_date, clock_timestamp()) - start_date)",
    ),
    "3.3.2": (
        ", end_date = coalesce(end_date, clock_timestamp()), updated_at = clock_timestamp(),"
        " duration = extract(epoch from coalesce(end_date, clock_timestamp()) - start_date)",
        f", {ENDED}",  # its tasks have no access to the database: whatever comes is a person's
    ),
}


def fail(db: AirflowDatabase, kind: str) -> None:
    db.add_running()
    if kind == "run":
        db.set_run("failed")
    else:
        db.set_task("a", "failed")


@pytest.mark.parametrize("kind", ["run", "task"])
@pytest.mark.parametrize("shape", ["1.10.0", "2.11.2"], indirect=True)
def test_the_dying_process_own_success_is_refused(airflow_db: AirflowDatabase, kind: str) -> None:
    fail(airflow_db, kind)
    airflow_db.rows(f"update task_instance set state = 'success', {ENDED}")
    assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.one("select wanted_state, pending from dagstop.refused_write") == ("success", False)
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 1
    assert airflow_db.one("select end_date is not null from task_instance")


@pytest.mark.parametrize("kind", ["run", "task"])
def test_success_marked_by_hand_passes(airflow_db: AirflowDatabase, kind: str) -> None:
    fail(airflow_db, kind)
    for written in BY_HAND[airflow_db.shape]:
        airflow_db.rows("update task_instance set state = 'failed'")
        airflow_db.rows(f"update task_instance set state = 'success'{written}")
        assert airflow_db.states() == {"a": "success"}, written
    assert airflow_db.one("select count(*) from dagstop.refused_write") == 0


@pytest.mark.parametrize("kind", ["run", "task"])
@pytest.mark.parametrize("typed", ["", ", end_date = now()", ", end_date = now(), duration = 7"])
def test_success_typed_in_psql_passes(airflow_db: AirflowDatabase, kind: str, typed: str) -> None:
    fail(airflow_db, kind)
    airflow_db.rows(f"update task_instance set state = 'success'{typed}")
    assert airflow_db.states() == {"a": "success"}


@shape_2
def test_airflow_2_0_to_2_2_writes_the_same_by_hand_and_by_itself(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.rows("alter table task_instance drop column map_index cascade")
    airflow_db.set_task("a", "failed")
    airflow_db.rows(f"update task_instance set state = 'success', {ENDED}")
    assert airflow_db.states() == {"a": "success"} and airflow_db.faults() == []


@pytest.mark.parametrize("shape", ["1.10.0", "2.11.2"], indirect=True)
def test_another_try_s_success_passes(airflow_db: AirflowDatabase) -> None:
    fail(airflow_db, "task")
    airflow_db.rows("update task_instance set start_date = clock_timestamp()")
    airflow_db.rows(f"update task_instance set state = 'success', {ENDED}")
    assert airflow_db.states() == {"a": "success"}


@pytest.mark.parametrize("shape", ["1.10.0", "2.11.2"], indirect=True)
def test_a_success_long_after_the_order_passes(airflow_db: AirflowDatabase) -> None:
    fail(airflow_db, "task")
    airflow_db.rows("update dagstop.stop_order set closed_at = now()")
    airflow_db.rows(f"update task_instance set state = 'success', {ENDED}")
    assert airflow_db.states() == {"a": "success"}


@pytest.mark.parametrize("shape", ["1.10.0", "2.11.2"], indirect=True)
def test_a_task_failed_by_sql_has_an_end(airflow_db: AirflowDatabase) -> None:
    fail(airflow_db, "task")
    assert airflow_db.one("select end_date > start_date, duration > 3500 from task_instance") == (True, True)
    assert airflow_db.one("select self_reported from dagstop.stop_order") is False
    assert airflow_db.faults() == []


@one_server
@shape_3
def test_a_task_of_airflow_3_that_is_failed_by_sql_has_no_end_of_ours(airflow_db: AirflowDatabase) -> None:
    """No process of Airflow 3 writes its own end, so none is needed to tell them from people."""
    fail(airflow_db, "task")
    assert airflow_db.one("select end_date, duration from task_instance") == (None, None)
    assert airflow_db.faults() == []


# what a row had and what was written besides `success`; a task's own process sets end and duration, and keeps the start
WRITTEN = [
    ({"end_date": 2, "duration": 2}, True),
    ({"end_date": None, "duration": 2}, False),  # the state alone, and no end
    ({"end_date": 1, "duration": 2}, False),  # people keep an end that is there
    ({"end_date": 2, "duration": 1}, False),
    ({"end_date": 2, "duration": 2, "start_date": 2}, False),  # 1.10's web interface sets all three
]
OF_RELEASE = {
    "1.10": ({}, True), "2.0 to 2.2": ({"queued_by_job_id": None}, False),
    "2.3 to 2.11": ({"queued_by_job_id": None, "map_index": -1}, True),
    "3": ({"queued_by_job_id": None, "map_index": -1, "id": "x"}, False),
}  # fmt: skip


@shape_2
def test_whose_success_it_is_shows_in_what_was_written_with_it(airflow_db: AirflowDatabase) -> None:
    moment = "2026-01-0{} 00:00:00+00"

    def row(columns: dict[str, Any], **more: Any) -> str:
        facts = {"state": "failed", "start_date": 1, "end_date": 1, "duration": 1, **columns, **more}
        dates = {name: moment.format(facts[name]) for name in ("start_date", "end_date") if facts[name]}
        return json.dumps({**facts, **dates})

    late = "select dagstop.is_late_success(%s, %s)"
    for release, (columns, own) in OF_RELEASE.items():
        for written, expected in WRITTEN:
            pair = (row(columns), row(columns, state="success", **written))
            assert airflow_db.one(late, pair) is (own and expected), (release, written)
    # no end before: a person of 2.3 on would set one, too
    without = (
        row(OF_RELEASE["2.3 to 2.11"][0], end_date=None),
        row(OF_RELEASE["2.3 to 2.11"][0], end_date=2, duration=2),
    )
    assert airflow_db.one(late, without) is False


@shape_2
def test_only_the_runner_of_1_10_without_a_slot_takes_start_and_queue_anew(
    airflow_db: AirflowDatabase,
) -> None:
    asked = "select dagstop.is_late_without_slot(%s, %s)"
    before = {"start_date": "1", "queued_dttm": "1"}
    for changed, late in (({"start_date": "2", "queued_dttm": "2"}, True), ({"start_date": "2"}, False),
                          ({"queued_dttm": "2"}, False), ({}, False)):  # fmt: skip
        for release in ({}, {"queued_by_job_id": None}):
            pair = (json.dumps({**before, **release}), json.dumps({**before, **release, **changed}))
            assert airflow_db.one(asked, pair) is (late and not release), (changed, release)

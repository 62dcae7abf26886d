"""09_cascade.sql: a failed run takes its unfinished task instances with it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.airflow_tables import FIRST_DATE, NO_PROCESS, AirflowDatabase
from tests.support.marks import one_server, shape_1_10, shape_2, shape_3
from tests.testbed.postgres import rows

UNFINISHED = (
    None, "scheduled", "queued", "running", "restarting", "shutdown", "up_for_retry",
    "up_for_reschedule", "deferred", "sensing", "awaiting_input", "of_tomorrow",
)  # fmt: skip
FINISHED = ("success", "failed", "skipped", "upstream_failed", "removed")


def test_the_unfinished_fail_and_the_finished_keep_their_result(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_run()
    for state in UNFINISHED + FINISHED:
        airflow_db.add_task(f"was_{state}", state)
    airflow_db.set_run("failed")
    assert airflow_db.states() == {
        **{f"was_{state}": "failed" for state in UNFINISHED},
        **{f"was_{state}": state for state in FINISHED},
    }
    targets = airflow_db.rows("select task_id, state_before from dagstop.stop_target")
    assert dict(targets) == {f"was_{state}": state for state in UNFINISHED}
    assert airflow_db.faults() == []
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 1


def test_a_target_of_a_run_names_the_very_try(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.set_run("failed")
    job, named = airflow_db.one("select job_id, ti_id is not null from dagstop.stop_target")
    assert (job, named) == (None if airflow_db.has_uuid else 7, airflow_db.has_uuid)


def test_the_setting_all_takes_the_finished_too(airflow_db: AirflowDatabase) -> None:
    airflow_db.rows("update dagstop.setting set value = 'all' where name = 'cascade'")
    airflow_db.add_run()
    for state in ("success", "skipped", "removed", "running"):
        airflow_db.add_task(state, state)
    airflow_db.set_run("failed")
    assert airflow_db.states() == {
        "success": "failed", "skipped": "failed", "removed": "removed", "running": "failed",
    }  # fmt: skip


@one_server
def test_the_setting_all_leaves_what_had_failed_as_it_was(airflow_db: AirflowDatabase) -> None:
    airflow_db.rows("update dagstop.setting set value = 'all' where name = 'cascade'")
    airflow_db.add_running()
    airflow_db.add_task("earlier", "failed", start_date=FIRST_DATE, end_date=FIRST_DATE)
    airflow_db.set_run("failed")
    assert airflow_db.rows("select task_id from dagstop.stop_target") == [("a",)]
    assert airflow_db.one("select end_date from task_instance where task_id = 'earlier'") == FIRST_DATE


def test_end_and_duration_are_set_as_airflow_sets_them(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.add_task("retry", "up_for_retry", start_date=FIRST_DATE,
                        end_date=FIRST_DATE + timedelta(seconds=5), duration=5)  # fmt: skip
    airflow_db.add_task("never", None)
    airflow_db.set_run("failed")
    found = {
        task: (ended, duration)
        for task, ended, duration in airflow_db.rows(
            "select task_id, end_date > now() - interval '1 min', round(duration) from task_instance"
        )
    }
    assert found["a"][0] is True and 3600 <= found["a"][1] < 3700
    assert found["retry"] == (False, 5)
    assert found["never"] == (True, None)
    if airflow_db.shape != "1.10.0":
        assert airflow_db.one("select bool_and(updated_at is not null) from task_instance") is True


@one_server
def test_an_end_before_the_start_is_an_earlier_trys(airflow_db: AirflowDatabase) -> None:
    later = FIRST_DATE + timedelta(hours=1)
    airflow_db.add_run()
    airflow_db.add_task("earlier", "up_for_retry", start_date=later, end_date=FIRST_DATE)
    airflow_db.add_task("its own", "up_for_retry", start_date=FIRST_DATE, end_date=later)
    airflow_db.set_run("failed")
    kept = "select task_id from task_instance where end_date < now() - interval '1 h'"
    assert airflow_db.rows(kept) == [("its own",)]


def test_what_is_under_way_ends_now_whatever_an_earlier_try_left(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_run()
    for state in UNFINISHED:
        airflow_db.add_task(
            f"was {state}", state, start_date=FIRST_DATE, end_date=FIRST_DATE + timedelta(seconds=5)
        )
    airflow_db.set_run("failed")
    now = airflow_db.rows("select task_id from task_instance where end_date > now() - interval '1 min'")
    under_way = ("running", "restarting", "shutdown", "deferred", "sensing", "awaiting_input")
    assert {task for (task,) in now} == {f"was {state}" for state in under_way}


def test_other_runs_are_left_alone(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running("run", ("a",), 0)
    airflow_db.add_running("other", ("b",), 1)
    airflow_db.set_run("failed")
    assert airflow_db.states() == {"a": "failed", "b": "running"}


@one_server
def test_a_run_of_that_name_in_another_dag_is_another_run(airflow_db: AirflowDatabase) -> None:
    """And so is another one of the DAG. A scheduler has both; nothing of them is waited for, locked or noted."""
    airflow_db.add_running()
    airflow_db.add_running("other", ("b",), 1)
    airflow_db.add_run("dag2")
    airflow_db.add_task("c", dag_id="dag2")
    with airflow_db.transaction() as scheduler:
        scheduler.execute("select from task_instance where task_id <> 'a' for update")
        airflow_db.rows(
            "set statement_timeout = '15s';"
            " update dag_run set state = 'failed' where dag_id = 'dag' and run_id = 'run'"
        )
    assert airflow_db.states() == {"a": "failed", "b": "running", "c": "running"}
    assert airflow_db.rows("select task_id from dagstop.stop_target") == [("a",)]
    assert airflow_db.faults() == []


def test_a_run_with_nothing_left_is_an_order_with_those_whose_process_may_live(
    airflow_db: AirflowDatabase,
) -> None:
    airflow_db.add_run()
    airflow_db.add_task("just_ended", "skipped", pid=99)
    airflow_db.add_task("long_ended", "success", pid=98, end_date=FIRST_DATE)
    airflow_db.add_task("never_ran", "skipped")
    airflow_db.rows("update task_instance set end_date = now() where task_id <> 'long_ended'")
    airflow_db.set_run("failed")
    assert airflow_db.one("select cascaded from dagstop.stop_order") is True
    assert airflow_db.rows("select task_id, pid, state_before from dagstop.stop_target") == [
        ("just_ended", 99, "skipped")
    ]


def test_a_clean_up_task_fails_with_its_run_and_cannot_be_scheduled_while_the_order_is_open(
    airflow_db: AirflowDatabase,
) -> None:
    """trigger_rule=all_done is not in any table: to Postgres such a task has not run yet."""
    airflow_db.add_running()
    airflow_db.add_task("clean_up", None)
    airflow_db.set_run("failed")
    assert airflow_db.states() == {"a": "failed", "clean_up": "failed"}
    airflow_db.set_task("clean_up", "scheduled")
    assert airflow_db.states()["clean_up"] == "failed"
    airflow_db.set_task("clean_up", None)  # cleared by hand, it runs
    airflow_db.set_task("clean_up", "scheduled")
    assert airflow_db.states()["clean_up"] == "scheduled"


@pytest.mark.parametrize("count", [50, 1200])
def test_many_runs_in_one_update(airflow_db: AirflowDatabase, count: int) -> None:
    airflow_db.add_runs(count)
    for number in range(3):
        airflow_db.add_running(f"run{number}", ("a", "b"), 1000 + number)
    airflow_db.rows("update dag_run set state = 'failed'")
    assert airflow_db.one("select count(*) from dagstop.stop_order where cascaded") == count + 3
    assert airflow_db.one("select count(*) from dagstop.stop_target") == 6
    assert set(airflow_db.states().values()) == {"failed"}
    dates = (
        "select count(*) from dagstop.stop_order o join dag_run r using (dag_id, run_id) "
        f"where o.logical_date = r.{airflow_db.date_column}"
    )
    assert airflow_db.one(dates) == count + 3


def test_a_mass_of_runs_is_no_change_of_the_keys_that_it_sets_anew(airflow_db: AirflowDatabase) -> None:
    count = 1001
    airflow_db.add_runs(count)
    for number in (0, count - 1):
        date = FIRST_DATE + timedelta(hours=number)
        airflow_db.add_task(f"t{number}", run_id=f"run{number:04}", date=date, hostname="worker")
    key, generated = "hostname", "unixname"
    airflow_db.rows(
        f"alter table task_instance drop column {generated}, add column {generated} text generated always as (task_id) stored;"
        f"create index of_strangers_1 on task_instance ({key}); create index of_strangers_2 on task_instance ({generated});"
        "create index of_strangers_3 on task_instance (lower(task_id)); create index of_strangers_4 on task_instance (operator);"
        "create index of_strangers_5 on task_instance (pool, duration);"
        "alter table task_instance add column numbered bigint generated always as identity;"
        "create index of_strangers_6 on task_instance (numbered);"
        "create index of_strangers_7 on task_instance (end_date);"
        "create index of_strangers_8 on task_instance (duration, pool);"
        "create function noted() returns trigger language plpgsql as"
        " $$ begin raise exception 'fired for %', tg_argv[0]; end $$;"
        f"create trigger strange before update of {key} on task_instance for each row execute function noted('{key}')"
    )
    if airflow_db.shape != "1.10.0":
        airflow_db.rows("create index of_strangers_9 on task_instance (updated_at)")
    said = airflow_db.one("select dagstop.keys_set_anew('public')")
    assert (
        f"{key} =" not in said
        and f"{generated} =" not in said
        and "state =" not in said
        and "pool =" not in said
        and "numbered =" not in said
    )
    assert ", operator = t.operator" in said and (
        ", dag_id = t.dag_id" in said or ", task_id = t.task_id" in said
    )
    whole = "select task_id, to_jsonb(t) - array['state', 'end_date', 'duration', 'updated_at'] from task_instance t order by 1"
    before = airflow_db.rows(whole)
    airflow_db.rows("update dag_run set state = 'failed'")
    assert set(airflow_db.states().values()) == {"failed"}
    assert airflow_db.rows(whole) == before
    assert airflow_db.faults() == []


@pytest.mark.parametrize("shape", ["2.11.2", "3.3.2"], indirect=True)  # no mapped tasks in 1.10
def test_mapped_tasks_are_all_stopped(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_run()
    for index in range(3):
        airflow_db.add_task("mapped", map_index=index)
    airflow_db.set_run("failed")
    assert airflow_db.rows("select map_index from dagstop.stop_target order by 1") == [
        (0,), (1,), (2,),
    ]  # fmt: skip


@shape_3  # only Airflow 3 has such runs
def test_a_run_without_a_logical_date(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_run(date=None)
    airflow_db.add_task("a")
    airflow_db.set_run("failed")
    assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.one("select logical_date, cascaded from dagstop.stop_order") == (None, True)


def test_a_rolled_back_savepoint_leaves_nothing(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running("run", ("a",), 0)
    airflow_db.add_running("other", ("b",), 1)
    with airflow_db.transaction() as cursor:
        cursor.execute("savepoint s")
        cursor.execute("update dag_run set state = 'failed' where run_id = 'run'")
        cursor.execute("rollback to savepoint s")
        cursor.execute("update dag_run set state = 'failed' where run_id = 'other'")
    assert airflow_db.states() == {"a": "running", "b": "failed"}
    assert airflow_db.rows("select run_id, cascaded from dagstop.stop_order") == [("other", True)]


def test_a_direct_failure_after_a_cascade_in_the_same_transaction(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running("run", ("a",), 0)
    airflow_db.add_running("other", ("b",), 1)
    with airflow_db.transaction() as cursor:
        cursor.execute("update dag_run set state = 'failed' where run_id = 'run'")
        cursor.execute("update task_instance set state = 'failed' where task_id = 'b'")
    assert airflow_db.rows("select kind, run_id from dagstop.stop_order order by id") == [
        ("run", "run"), ("task", "other"),
    ]  # fmt: skip


def test_a_role_that_may_only_update_dag_run_cascades(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.rows("drop role if exists dba; create role dba login")
    airflow_db.rows("grant select, update on dag_run to dba")
    rows(airflow_db.user_url("dba"), "update dag_run set state = 'failed'")
    assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.one("select session_user_name from dagstop.stop_order") == "dba"


BREAKS = {
    "column": "alter table task_instance rename column task_id to task",
    "target": "drop table dagstop.stop_target cascade",
    "order": "drop table dagstop.stop_order cascade",
    "fault": "drop table dagstop.fault cascade; drop table dagstop.stop_target cascade",
    "helper": "drop function dagstop.cascade_orders(dagstop.stop_order[], text, boolean)",
    "recorder": "drop function dagstop.record_fault(text, text, text, jsonb); "
    "drop table dagstop.stop_order cascade",
    "setting": "drop table dagstop.setting",
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_fault_never_fails_the_statement(airflow_db: AirflowDatabase, broken: str) -> None:
    airflow_db.add_running()
    airflow_db.rows(BREAKS[broken])
    with airflow_db.connect() as connection, connection.cursor() as cursor:
        cursor.execute("update dag_run set state = 'failed'")
        assert any("dagstop" in notice and "WARNING" in notice for notice in connection.notices)
        cursor.execute("select current_setting('dagstop.cascading', true)")
        assert cursor.fetchone()[0] in (None, "")
        cursor.execute("update task_instance set state = 'failed'")
        cursor.execute("update task_instance set state = 'running'")
        cursor.execute("update task_instance set state = null")
    assert airflow_db.one("select state from dag_run") == "failed"
    if broken in ("column", "target", "helper", "setting"):
        assert airflow_db.one("select count(*) from dagstop.fault") > 0


@pytest.mark.parametrize("granted", [None, "task_instance"])
def test_revoked_rights_of_the_owner_are_a_fault_only(
    airflow_db: AirflowDatabase, granted: str | None
) -> None:
    """Whether the run failed indeed cannot be seen: then nothing is failed with it, whatever may be written."""
    airflow_db.rows("drop role if exists weak; create role weak login")
    airflow_db.add_running()
    # it owns all of dagstop, as the tables' owner does, and has no right on the tables any more
    airflow_db.rows("""
        do $$
        declare
            statement text;
        begin
            for statement in
                select format('alter table dagstop.%I owner to weak', relname) from pg_class
                where relnamespace = 'dagstop'::regnamespace and relkind in ('r', 'v')
                union all
                select format('alter routine %s owner to weak', oid::regprocedure) from pg_proc
                where pronamespace = 'dagstop'::regnamespace
                union all
                select 'alter schema dagstop owner to weak'
            loop
                execute statement;
            end loop;
        end
        $$
    """)
    if granted is not None:
        airflow_db.rows(f"grant usage on schema public to weak; grant select, update on {granted} to weak")
    airflow_db.set_run("failed")
    assert airflow_db.states() == {"a": "running"}
    assert airflow_db.one("select cascaded from dagstop.stop_order") is False


def test_what_a_fault_left_is_done_at_the_next_heartbeat(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.rows("alter table task_instance rename column state to was")
    airflow_db.set_run("failed")
    assert airflow_db.one("select cascaded, logical_date from dagstop.stop_order") == (
        False, FIRST_DATE,
    )  # fmt: skip
    airflow_db.rows("alter table task_instance rename column was to state")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.one("select cascaded from dagstop.stop_order") is True
    assert airflow_db.rows("select task_id, pid from dagstop.stop_target") == [("a", NO_PROCESS)]
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 1


def test_a_run_cleared_since_is_not_failed_by_the_heartbeat(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.rows("alter table task_instance rename column state to was")
    airflow_db.set_run("failed")
    airflow_db.rows("alter table task_instance rename column was to state")
    airflow_db.set_run("queued")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "running"}
    assert airflow_db.one("select cascaded from dagstop.stop_order") is True


@one_server
@shape_1_10
def test_a_run_without_run_id_that_another_trigger_writes_again_is_stopped(
    airflow_db: AirflowDatabase,
) -> None:
    airflow_db.add_running()
    airflow_db.rows("update dag_run set run_id = null")
    airflow_db.rows(
        "create function note_end() returns trigger language plpgsql as"
        " $$ begin update dag_run set end_date = now() where id = new.id; return null; end $$;"
        " create trigger note_end after update of state on dag_run for each row execute function note_end()"
    )
    airflow_db.rows("update dag_run set state = 'failed'")
    assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.one("select run_id, logical_date, cascaded from dagstop.stop_order") == (
        None,
        FIRST_DATE,
        True,
    )
    assert airflow_db.faults() == []


@shape_2  # that migration meets Airflow 2 only
def test_airflow_3_renames_the_date_under_our_feet(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running("run", ("a",), 0)
    airflow_db.add_running("other", ("b",), 1)
    with airflow_db.connect() as connection, connection.cursor() as cursor:
        cursor.execute("update dag_run set state = 'failed' where run_id = 'run'")
        airflow_db.rows("alter table dag_run rename column execution_date to logical_date")
        cursor.execute("update dag_run set state = 'failed' where run_id = 'other'")
    assert airflow_db.states() == {"a": "failed", "b": "failed"}
    assert airflow_db.faults() == []

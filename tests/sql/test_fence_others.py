"""The fence is about the rows that an order stopped: what has part of their names is neither held nor let go."""

from __future__ import annotations

import select
from datetime import timedelta
from typing import Any

import pytest

from tests.support.airflow_tables import FIRST_DATE, NO_PROCESS, AirflowDatabase
from tests.support.marks import one_server, shape_1_10, shape_2, shape_3
from tests.support.settings import set_setting

pytestmark = one_server
LATER = FIRST_DATE + timedelta(hours=1)
RUNNING = {"pid": NO_PROCESS, "start_date": FIRST_DATE, "job_id": 7}
OURS = "hostname = 'ours'"
ENDED = "end_date = clock_timestamp(), duration = coalesce(duration, 0) + 1.5"  # as a task's own process writes it


def hurry(db: AirflowDatabase, statement: str) -> None:
    """In a session that has waited for locks already, and waits no more."""
    with db.connect() as connection, connection.cursor() as cursor:
        cursor.execute("set dagstop.waits_since = '0'")
        cursor.execute(statement)


def add(db: AirflowDatabase, dag: str, run: str, date: Any, state: str, host: str) -> None:
    db.add_run(dag, run, "running", date)
    db.add_task("a", state, dag, run, date=date, hostname=host, **RUNNING)


def stop_others(db: AirflowDatabase, kind: str, nameless: bool) -> None:
    """Orders about the same run and task in another DAG, and about the same task in another run; ours failed before."""
    add(db, "dag2", "run", FIRST_DATE, "running", "others")
    add(db, "dag", "other", LATER, "running", "others")
    add(db, "dag", "run", FIRST_DATE, "failed", "ours")
    if nameless:
        db.rows("update dag_run set run_id = null")
    if kind == "run":
        db.rows(
            f"update dag_run set state = 'failed' where dag_id = 'dag2' or {db.date_column} = %s", (LATER,)
        )
    else:
        db.rows("update task_instance set state = 'failed' where hostname = 'others'")
    assert db.one("select count(*) from dagstop.stop_target") == 2


@pytest.mark.parametrize("kind", ["run", "task"])
@pytest.mark.parametrize("nameless", [False, True], ids=["with run_id", "without"])
def test_the_order_of_another_row_neither_holds_this_one_nor_is_lifted_with_it(
    airflow_db: AirflowDatabase, kind: str, nameless: bool
) -> None:
    if nameless and not airflow_db.by_date:
        return  # only Airflow 1.10 has runs without run_id
    stop_others(airflow_db, kind, nameless)
    for state in ("up_for_retry", "failed", None):
        airflow_db.rows(f"update task_instance set state = %s where {OURS}", (state,))
        assert airflow_db.rows(f"select state from task_instance where {OURS}") == [(state,)]
    released = "select count(*) from dagstop.stop_target t where released_at is not null and task_id = 'a'"
    others = "(select o.id from dagstop.stop_order o where o.dag_id = 'dag2' or o.logical_date = '2024-01-01 01:00:00+00')"
    assert airflow_db.one(f"{released} and order_id in {others}") == 0
    airflow_db.rows("update task_instance set state = 'up_for_retry' where hostname = 'others'")
    assert airflow_db.rows("select distinct state from task_instance where hostname = 'others'") == [
        ("failed",)
    ]


def test_a_clear_of_one_task_lifts_nothing_of_the_others(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running(tasks=("a", "b"))
    if not airflow_db.by_date:
        airflow_db.add_task("a", map_index=1)
    airflow_db.set_run("failed")
    one = "task_id = 'a'" if airflow_db.by_date else "task_id = 'a' and map_index = -1"
    airflow_db.rows(f"update task_instance set state = null where {one}")
    airflow_db.rows(f"update task_instance set state = 'up_for_retry' where not ({one})")
    assert airflow_db.rows(f"select distinct state from task_instance where not ({one})") == [("failed",)]
    lifted = airflow_db.rows(f"select {one} from dagstop.stop_target where released_at is not null")
    assert lifted == [(True,)]


def test_what_was_cleared_keeps_the_time_of_the_first_clear(airflow_db: AirflowDatabase) -> None:
    """What began between two clears is another try; the hosts tell it by that time."""
    airflow_db.add_running()
    airflow_db.set_run("failed")
    cleared = "select t.released_at from dagstop.stop_target t join dagstop.stop_order o on o.id = t.order_id where o.kind = 'run'"
    airflow_db.set_task("a", None)
    first = airflow_db.one(cleared)
    for state in ("running", "failed", None):
        airflow_db.set_task("a", state)
    assert airflow_db.one(cleared) == first


def test_an_order_of_another_airflow_in_this_database_fences_nothing_here(
    airflow_db: AirflowDatabase,
) -> None:
    """Its tables were in another schema when dagstop wrote it."""
    airflow_db.add_running(tasks=("a", "b"))
    airflow_db.set_task("b", "failed")
    airflow_db.set_run("failed")
    airflow_db.rows("update dagstop.stop_order set airflow_schema = 'elsewhere'")
    airflow_db.rows("update task_instance set state = 'up_for_retry'")
    assert airflow_db.states() == {"a": "up_for_retry", "b": "up_for_retry"}


@shape_1_10
def test_a_nameless_order_of_another_airflow_fences_nothing_here(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running(tasks=("a", "b"))
    airflow_db.rows("update dag_run set run_id = null")
    airflow_db.set_task("b", "failed")
    airflow_db.rows("update dag_run set state = 'failed'")
    airflow_db.rows("update dagstop.stop_order set airflow_schema = 'elsewhere'")
    airflow_db.rows("update task_instance set state = 'up_for_retry'")
    assert airflow_db.states() == {"a": "up_for_retry", "b": "up_for_retry"}


@shape_1_10
@pytest.mark.parametrize("kind", ["run", "task"])
def test_what_a_skip_stopped_is_not_held_in_failed(airflow_db: AirflowDatabase, kind: str) -> None:
    """Of runs without a run_id; an order holds a row only in the state that it stopped it with."""
    set_setting(airflow_db, "also_stop_on", "skipped")
    airflow_db.add_running()
    airflow_db.rows("update dag_run set run_id = null")
    if kind == "task":
        airflow_db.set_task("a", "skipped")
        airflow_db.rows("set session_replication_role = replica; update task_instance set state = 'failed'")
    else:
        airflow_db.rows("update dag_run set state = 'failed'")
        airflow_db.rows("set session_replication_role = replica; update task_instance set state = 'skipped'")
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": "up_for_retry"}


def test_a_closed_order_does_not_hold_what_a_later_one_did_not_stop(airflow_db: AirflowDatabase) -> None:
    """The run was set running again, and failed again; this task instance had long ended by then."""
    airflow_db.add_running(tasks=("a",))
    airflow_db.set_run("failed")
    airflow_db.rows("update dagstop.stop_order set closed_at = now()")
    airflow_db.rows("update task_instance set end_date = %s", (FIRST_DATE,))
    airflow_db.set_run("running")
    airflow_db.set_run("failed")
    assert airflow_db.one("select count(*) from dagstop.stop_target") == 1
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": "up_for_retry"}


@shape_1_10
@pytest.mark.parametrize("state", ["queued", "scheduled"])
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_a_late_queue_message_neither_runs_nor_succeeds(
    airflow_db: AirflowDatabase, state: str, closed: bool
) -> None:
    """1.10 runs it whatever the row says; its start is another than that of the row which was stopped."""
    airflow_db.add_running()
    airflow_db.set_task("a", state)
    airflow_db.set_run("failed")
    if closed:
        airflow_db.rows("update dagstop.stop_order set closed_at = now()")
    airflow_db.rows("update task_instance set state = 'running', start_date = clock_timestamp()")
    assert airflow_db.states() == {"a": "failed"}
    airflow_db.rows(f"update task_instance set state = 'success', {ENDED}")
    assert airflow_db.states() == {"a": "failed"}


def hold_back(db: AirflowDatabase) -> None:
    """Two writes, refused by orders of two states, that could not be reverted: a scheduler had the runs."""
    set_setting(db, "also_stop_on", "skipped")
    db.add_running("run", ("a",))
    db.add_running("run2", ("b",), 1)
    db.set_run("failed", "run")
    db.set_task("b", "skipped")
    with db.transaction() as scheduler:
        scheduler.execute("select from dag_run for update")
        hurry(db, "update task_instance set state = 'up_for_retry'")
    assert db.rows("select pending from dagstop.refused_write") == [(True,), (True,)]


@shape_2
def test_each_is_put_back_to_the_state_that_stopped_it(airflow_db: AirflowDatabase) -> None:
    hold_back(airflow_db)
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed", "b": "skipped"}
    assert airflow_db.rows("select pending from dagstop.refused_write") == [(False,), (False,)]


@shape_2
@pytest.mark.parametrize("held", ["task_instance", "dagstop.refused_write"])
def test_one_that_somebody_has_waits_and_the_other_does_not(airflow_db: AirflowDatabase, held: str) -> None:
    """A scheduler has the row, or another listener is at it."""
    hold_back(airflow_db)
    with airflow_db.transaction() as other:
        other.execute(f"select from {held} where task_id = 'a' for no key update")
        hurry(airflow_db, "call dagstop.do_chores()")
        assert airflow_db.states() == {"a": "up_for_retry", "b": "skipped"}
        assert airflow_db.rows("select task_id from dagstop.refused_write where pending") == [("a",)]
    assert airflow_db.faults() == []
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed", "b": "skipped"}


@shape_2
def test_a_write_that_could_not_be_reverted_wakes_the_listeners(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.set_run("failed")
    with airflow_db.connect() as listener, airflow_db.transaction() as scheduler:
        listener.cursor().execute("listen dagstop")
        scheduler.execute("select from dag_run for update")
        hurry(airflow_db, "update task_instance set state = 'up_for_retry'")
        assert airflow_db.one("select pending from dagstop.refused_write") is True
        assert select.select([listener], [], [], 20) != ([], [], [])
        listener.poll()
        assert [notice.channel for notice in listener.notifies] == ["dagstop"]


@shape_2
def test_after_a_minute_it_stays_as_it_is(airflow_db: AirflowDatabase) -> None:
    """Somebody may rely on it by then."""
    hold_back(airflow_db)
    airflow_db.rows("update dagstop.refused_write set at = at - interval '61 seconds' where task_id = 'a'")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "up_for_retry", "b": "skipped"}


@shape_2
def test_a_storm_of_refused_writes_starves_none_that_waits(airflow_db: AirflowDatabase) -> None:
    hold_back(airflow_db)
    airflow_db.rows(
        "insert into dagstop.refused_write (order_id, dag_id, run_id, task_id, map_index, wanted_state, pending, at)"
        " select 1, 'dag', 'run', 'a', -1, 'queued', false, now() - interval '20 seconds' from generate_series(1, 1000)"
    )
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed", "b": "skipped"}


@pytest.mark.parametrize("kind", ["run", "task"])
@pytest.mark.parametrize("nameless", [False, True], ids=["with run_id", "without"])
def test_what_no_host_carries_out_any_more_is_not_fenced(
    airflow_db: AirflowDatabase, kind: str, nameless: bool
) -> None:
    """Whatever fence_seconds says: an order is too old for the hosts after order_seconds."""
    set_setting(airflow_db, "fence_seconds", "100000000")
    airflow_db.add_running()
    if nameless and airflow_db.by_date:
        airflow_db.rows("update dag_run set run_id = null")
    airflow_db.rows(f"update {'dag_run' if kind == 'run' else 'task_instance'} set state = 'failed'")
    airflow_db.rows("update dagstop.stop_order set created_at = created_at - interval '1 year'")
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": "up_for_retry"}


# a later try that has come to the same state differs in one of these
CHANGED = {
    "try_number": "2", "max_tries": "5", "job_id": "8",
    "start_date": "clock_timestamp()", "end_date": "clock_timestamp()", "state": "'queued'",
}  # fmt: skip


@shape_2
@pytest.mark.parametrize("column", CHANGED)
def test_what_has_changed_since_is_not_put_back(airflow_db: AirflowDatabase, column: str) -> None:
    hold_back(airflow_db)
    airflow_db.rows("set session_replication_role = replica;"
                    f" update task_instance set {column} = {CHANGED[column]} where task_id = 'a'")  # fmt: skip
    before = airflow_db.states()["a"]
    airflow_db.beat()
    assert airflow_db.states() == {"a": before, "b": "skipped"}


@shape_3
def test_another_uuid_in_the_same_state_is_not_put_back(airflow_db: AirflowDatabase) -> None:
    """Airflow 3 gives each try its own; nothing else need differ."""
    hold_back(airflow_db)
    airflow_db.rows(
        "set session_replication_role = replica;"
        " update task_instance set id = gen_random_uuid() where task_id = 'a'"
    )
    airflow_db.beat()
    assert airflow_db.states() == {"a": "up_for_retry", "b": "skipped"}


LOCKED = ("setting", "stop_order", "stop_target", "refused_write", "fault", "unwritten_order")


@shape_2
@pytest.mark.parametrize("table", LOCKED)
def test_an_index_that_a_dba_builds_holds_up_no_statement(airflow_db: AirflowDatabase, table: str) -> None:
    """SHARE lets us read, and lets nobody write."""
    set_setting(airflow_db, "also_stop_on", "deleted")
    airflow_db.add_running("run", ("a", "late", "clear", "gone"))
    airflow_db.add_running("run2", ("b",), 1)
    for task in ("late", "clear"):
        airflow_db.set_task(task, "failed")
    with airflow_db.transaction() as dba:
        dba.execute(f"lock table dagstop.{table} in share mode")
        for statement in (
            "update task_instance set state = 'failed' where task_id = 'a'",
            "update task_instance set state = 'up_for_retry' where task_id = 'late'",
            "update task_instance set state = null where task_id = 'clear'",
            "delete from task_instance where task_id = 'gone'",
            "update dag_run set state = 'failed' where run_id = 'run2'",
        ):
            hurry(airflow_db, f"set statement_timeout = '15s'; {statement}")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed", "late": "failed", "clear": None, "b": "failed"}
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 5


@shape_2
def test_an_index_that_a_dba_builds_on_task_instance_holds_up_no_chores(airflow_db: AirflowDatabase) -> None:
    """What is to be put back waits, and no session for it."""
    hold_back(airflow_db)
    with airflow_db.transaction() as dba:
        dba.execute("lock table task_instance in share mode")
        with airflow_db.connect() as listener, listener.cursor() as cursor:
            for statement in ("set dagstop.waits_since = '0'", "set statement_timeout = '10s'"):
                cursor.execute(statement)
            cursor.execute("call dagstop.do_chores()")
        assert airflow_db.states() == {"a": "up_for_retry", "b": "up_for_retry"}
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed", "b": "skipped"}


@shape_1_10
def test_orders_are_of_the_very_run_and_of_the_state_that_it_turned_to(airflow_db: AirflowDatabase) -> None:
    """A run may have no run_id, and come at the date of one that had one and was deleted."""
    airflow_db.add_running()
    airflow_db.set_task("a", "failed")
    airflow_db.set_run("failed")
    row = "jsonb_build_object('dag_id', 'dag', 'task_id', 'a', 'execution_date', %s)"

    def orders(run_id: str | None, state: str) -> int:
        call = f"select cardinality(dagstop.orders_of_task('public', {row}, %s, %s))"
        return int(airflow_db.one(call, (FIRST_DATE, run_id, state)))

    assert orders("run", "failed") == 2
    assert orders("run", "skipped") == orders(None, "failed") == orders("other", "failed") == 0


@shape_1_10
def test_a_run_of_another_dag_at_the_same_date_lifts_nothing(airflow_db: AirflowDatabase) -> None:
    """Task instances of Airflow 1.10 know the date of their run only."""
    add(airflow_db, "dag2", "other", FIRST_DATE, "running", "others")
    add(airflow_db, "dag", "run", FIRST_DATE, "running", "ours")
    airflow_db.rows("update dag_run set state = 'failed' where dag_id = 'dag'")
    airflow_db.rows(f"update task_instance set state = 'up_for_retry' where {OURS}")
    assert airflow_db.rows(f"select state from task_instance where {OURS}") == [("failed",)]
    assert airflow_db.rows("select run_id, wanted_state from dagstop.refused_write") == [
        ("run", "up_for_retry")
    ]

"""An order that is written late is about the rows that it names, and holds up nobody.

Beside them stand rows that share part of their names: the same run and task in another DAG, the same task in another
run, another task and another map index of the run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from tests.support.airflow_tables import FIRST_DATE, NO_PROCESS, AirflowDatabase
from tests.support.marks import one_server, shape_2, shape_3
from tests.support.settings import set_setting
from tests.support.watch import wait_until

pytestmark = one_server
ORDERS = "select kind, dag_id, run_id, logical_date, task_id, map_index from dagstop.stop_order order by id"
TARGETS = (
    "select task_id, map_index, state_before, released_at is not null from dagstop.stop_target order by 1, 2"
)
KEPT = "select count(*) from dagstop.unwritten_order where id > 0"
FAIL_THE_RUN = "update dag_run set state = 'failed' where dag_id = 'dag' and run_id = 'run'"
OURS = "dag_id = 'dag' and task_id = 'a' and hostname = 'ours'"
STATES = "select state from task_instance where hostname {} 'ours' order by dag_id, task_id"
FINAL = ("success", "failed", "skipped", "upstream_failed", "removed")
LATER = FIRST_DATE + timedelta(hours=1)


def add_others(db: AirflowDatabase, state: str, ended: str = "success") -> None:
    """Older than the rows that are meant, so that a look for too little finds these first."""
    running = {"hostname": "others", "pid": NO_PROCESS, "start_date": FIRST_DATE}
    for dag, run, date in (("dag2", "run", LATER), ("dag3", "run3", FIRST_DATE), ("dag", "other", LATER)):
        db.add_run(dag, run, state, date)
        db.add_task("a", state, dag, run, date=date, **running)
    db.add_run()
    db.add_task("0", ended, **running, end_date=FIRST_DATE)
    if not db.by_date:
        db.add_task("a", ended, map_index=0, **running, end_date=FIRST_DATE)
    db.add_task(
        "a", hostname="ours", pid=NO_PROCESS, job_id=7, start_date=FIRST_DATE, operator="BashOperator"
    )


def lose(db: AirflowDatabase, *statements: str) -> None:
    """Type them while a DBA builds an index on dagstop's orders: none can be written."""
    with db.transaction() as dba:
        dba.execute("lock table dagstop.stop_order in access exclusive mode")
        for statement in statements:
            hurry(db, statement)
    assert db.rows(ORDERS) == [] and db.one(KEPT) == len(statements)


def hurry(db: AirflowDatabase, statement: str) -> None:
    """In a session that has waited for locks already, and waits no more."""
    with db.connect() as connection, connection.cursor() as cursor:
        cursor.execute("set dagstop.waits_since = '0'")
        cursor.execute(statement)


def ours_and_others(db: AirflowDatabase) -> tuple[object, set[object]]:
    """The state of the task instance that is meant, and those of all others."""
    return db.one(STATES.format("=")), {state for (state,) in db.rows(STATES.format("<>"))}


@pytest.mark.parametrize("what", ["run", "task", "deleted"])
def test_an_order_that_is_written_late_is_about_its_own_rows(airflow_db: AirflowDatabase, what: str) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted")
    add_others(airflow_db, "running")
    statement = {
        "run": FAIL_THE_RUN,
        "task": f"update task_instance set state = 'failed' where {OURS}",
        "deleted": f"delete from task_instance where {OURS}",
    }[what]
    lose(airflow_db, statement)
    airflow_db.beat()
    assert airflow_db.one(KEPT) == 0
    named = (None, None) if what == "run" else ("a", -1)
    kind = "run" if what == "run" else "task"
    assert airflow_db.rows(ORDERS) == [(kind, "dag", "run", FIRST_DATE, *named)]
    assert airflow_db.rows(TARGETS) == [("a", -1, "running", what == "deleted")]
    if what != "deleted":
        assert ours_and_others(airflow_db)[0] == "failed"
    others = {state for (state,) in airflow_db.rows(STATES.format("<>"))}
    assert others == {"running", "success"}
    assert {
        state
        for (state,) in airflow_db.rows("select state from dag_run where run_id <> 'run' or dag_id <> 'dag'")
    } == {"running"}


@pytest.mark.parametrize("what", ["run", "task"])
def test_what_was_cleared_meanwhile_is_not_stopped_for_others_that_are_failed(
    airflow_db: AirflowDatabase, what: str
) -> None:
    add_others(airflow_db, "failed", "failed")
    if what == "run":
        lose(airflow_db, FAIL_THE_RUN)
        airflow_db.rows("update dag_run set state = 'queued' where dag_id = 'dag' and run_id = 'run'")
    else:
        lose(airflow_db, f"update task_instance set state = 'failed' where {OURS}")
        airflow_db.rows(f"update task_instance set state = null where {OURS}")
    airflow_db.beat()
    assert airflow_db.rows(ORDERS) == [] and airflow_db.one(KEPT) == 0


def test_a_late_write_that_could_not_be_judged_is_about_its_own_rows(airflow_db: AirflowDatabase) -> None:
    add_others(airflow_db, "running")
    airflow_db.rows(FAIL_THE_RUN)
    with airflow_db.transaction() as dba:
        dba.execute("lock table dagstop.stop_order in access exclusive mode")
        hurry(airflow_db, f"update task_instance set state = 'up_for_retry' where {OURS}")
    airflow_db.beat()
    assert ours_and_others(airflow_db) == ("failed", {"running", "success"})
    assert airflow_db.one(KEPT) == 0


def test_what_is_noted_of_a_run_is_what_may_live(airflow_db: AirflowDatabase) -> None:
    """As the cascade would have done it: the unfinished, and what ended a moment ago and has a process."""
    airflow_db.add_run()
    unfinished = (None, "scheduled", "queued", "running", "up_for_retry", "deferred", "of_tomorrow")
    for state in unfinished:
        airflow_db.add_task(f"was {state}", state)
    for state in FINAL:
        airflow_db.add_task(f"long {state}", state, pid=NO_PROCESS, end_date=FIRST_DATE)
        airflow_db.add_task(f"never {state}", state)
    airflow_db.add_task("just ended", "success", pid=NO_PROCESS)
    airflow_db.rows(
        "update task_instance set end_date = now() where task_id like 'just%' or task_id like 'never%'"
    )
    lose(airflow_db, "update dag_run set state = 'failed'")
    kept = airflow_db.one("select targets from dagstop.unwritten_order where id > 0")
    assert {target["task_id"] for target in kept} == {f"was {state}" for state in unfinished} | {"just ended"}


def test_what_ended_by_itself_meanwhile_keeps_its_end(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running(tasks=FINAL)
    lose(airflow_db, "update dag_run set state = 'failed'")
    for state in FINAL:
        airflow_db.rows("update task_instance set state = %s where task_id = %s", (state, state))
    before = airflow_db.rows("select to_jsonb(t) from task_instance t order by task_id")
    airflow_db.beat()
    assert airflow_db.rows("select to_jsonb(t) from task_instance t order by task_id") == before
    run = "select t.task_id, t.released_at from dagstop.stop_target t join dagstop.stop_order o on o.id = t.order_id"
    assert dict(airflow_db.rows(f"{run} where o.kind = 'run'")) == dict.fromkeys(FINAL)


@pytest.mark.parametrize("shape", ["2.11.2", "3.3.2"], indirect=True)
def test_what_fails_late_shows_when(airflow_db: AirflowDatabase) -> None:
    """Airflow's pages and its API ask for what changed since."""
    airflow_db.add_running()
    airflow_db.rows("update task_instance set updated_at = start_date")
    lose(airflow_db, "update dag_run set state = 'failed'")
    airflow_db.beat()
    assert airflow_db.one(
        "select state = 'failed' and updated_at = end_date or updated_at > start_date from task_instance"
    )


@shape_3
@pytest.mark.parametrize("state", ["running", "queued", "deferred", "up_for_reschedule", "awaiting_input"])
def test_with_a_uuid_the_same_try_is_known_in_whatever_state(airflow_db: AirflowDatabase, state: str) -> None:
    airflow_db.add_running()
    airflow_db.set_task("a", state)
    lose(airflow_db, "update dag_run set state = 'failed'")
    airflow_db.rows("update task_instance set state = 'running', start_date = now(), pid = 3")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed"}


@shape_3
@pytest.mark.parametrize("state", [None, "scheduled", "up_for_retry"])
def test_a_try_that_had_not_begun_may_be_another_one_under_the_same_uuid(
    airflow_db: AirflowDatabase, state: str | None
) -> None:
    """A clear by SQL keeps the uuid."""
    airflow_db.add_running()
    airflow_db.set_task("a", state)
    lose(airflow_db, "update dag_run set state = 'failed'")
    airflow_db.rows("update task_instance set state = 'running', start_date = now(), pid = 3")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "running"}


# of a row without a uuid: the state that was kept, the row's state now, whether it began or was queued again, the same try?
TRIES = [
    ("running", "running", None, True),
    ("running", "up_for_retry", None, True),
    ("running", "running", "start_date", False),
    ("running", "running", "job_id", False),
    ("scheduled", "running", None, False),
    ("queued", "running", None, False),
    ("queued", "queued", None, True),
    ("queued", "queued", "queued_dttm", False),
    ("running", "queued", None, False),
    ("running", None, None, False),
    ("running", "scheduled", None, False),
    ("running", "restarting", None, False),
]


@shape_2
def test_the_same_try_without_a_uuid(airflow_db: AirflowDatabase) -> None:
    for before, now, changed, expected in TRIES:
        row = "jsonb_build_object('state', %s, 'start_date', 1, 'queued_dttm', 1, 'job_id', 1)"
        again = f" || jsonb_build_object('{changed}', 2)" if changed else ""
        asked = f"select dagstop.same_try({row} || '{{\"version\": 1}}', {row}{again}, '2')"
        assert airflow_db.one(asked, (before, now)) is expected, (before, now, changed)
        assert airflow_db.one(asked.replace("'2')", "'1')"), (before, now)), "nobody has touched the row"


@contextmanager
def chores(db: AirflowDatabase) -> Iterator[None]:
    """They run while the block does, which begins once they have ended or wait for a lock."""
    thread = threading.Thread(target=db.rows, args=("call dagstop.do_chores()",), daemon=True)
    thread.start()
    waits = "select count(*) > 0 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    tries = waits.replace("wait_event_type = 'Lock'", "wait_event = 'PgSleep'")
    wait_until(
        lambda: not thread.is_alive() or db.one(waits) or db.one(tries),
        60,
        lambda: "the chores neither end nor wait",
    )
    yield
    thread.join(60)
    assert not thread.is_alive()


WAITING = {
    "a person has the run and wants its task instances": (
        "run", "update dag_run set end_date = now()", "lock table task_instance in access exclusive mode",
    ),
    "the web interface has a task instance and wants the run": (
        "run", "update task_instance set pid = 1", "update dag_run set end_date = now()",
    ),
    "somebody has the task instance and wants its table": (
        "task", "update task_instance set pid = 1", "lock table task_instance in access exclusive mode",
    ),
    "a migration has the runs and wants the task instances": (
        "run", "lock table dag_run in exclusive mode", "lock table task_instance in access exclusive mode",
    ),
    "somebody builds an index on the task instances and wants the run": (
        "run", "lock table task_instance in share mode", "update dag_run set end_date = now()",
    ),
    "somebody has a row that the fence was to judge": (
        "fence", "update task_instance set pid = 1", "lock table task_instance in access exclusive mode",
    ),
}  # fmt: skip


@shape_2
@pytest.mark.parametrize("what", WAITING)
def test_the_chores_are_no_side_of_a_deadlock(airflow_db: AirflowDatabase, what: str) -> None:
    kind, held, wanted = WAITING[what]
    airflow_db.add_running()
    if kind == "fence":
        airflow_db.set_run("failed")
        with airflow_db.transaction() as dba:
            dba.execute("lock table dagstop.stop_order in access exclusive mode")
            hurry(airflow_db, "update task_instance set state = 'up_for_retry'")
    else:
        lose(airflow_db, f"update {'dag_run' if kind == 'run' else 'task_instance'} set state = 'failed'")
    with airflow_db.transaction() as airflow:
        airflow.execute("set deadlock_timeout = '1ms'")
        airflow.execute(held)
        with chores(airflow_db):
            airflow.execute(wanted)  # raises if it is the victim
            airflow.connection.commit()
    airflow_db.beat()
    if kind != "fence":  # that row is another one now, which may be a person's
        assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.one(KEPT) == 0


@shape_2
@pytest.mark.parametrize("table", ["dag_run", "task_instance"])
def test_a_reference_to_a_row_does_not_hold_up_the_chores(airflow_db: AirflowDatabase, table: str) -> None:
    airflow_db.add_running()
    airflow_db.add_running("other", ("b",), 1)
    lose(airflow_db, "update dag_run set state = 'failed' where run_id = 'run'",
         "update task_instance set state = 'failed' where task_id = 'b'")  # fmt: skip
    with airflow_db.transaction() as airflow:
        airflow.execute(f"select from {table} for key share")
        hurry(airflow_db, "call dagstop.do_chores()")
        assert airflow_db.one(KEPT) == 0
    assert airflow_db.states() == {"a": "failed", "b": "failed"}


@shape_2
@pytest.mark.parametrize("what", ["run", "task"])
def test_who_clears_at_that_moment_is_waited_for(airflow_db: AirflowDatabase, what: str) -> None:
    """The clear is not committed yet, and may be rolled back: nothing is decided before."""
    airflow_db.add_running()
    table = "dag_run" if what == "run" else "task_instance"
    lose(airflow_db, f"update {table} set state = 'failed'")
    for ends in ("rollback", "commit"):
        with airflow_db.transaction() as person:
            person.execute(f"update {table} set state = {'null' if what == 'task' else repr('queued')}")
            hurry(airflow_db, "call dagstop.do_chores()")
            assert airflow_db.rows(ORDERS) == [] and airflow_db.one(KEPT) == 1
            person.execute(ends)
        if ends == "rollback":
            continue
        airflow_db.beat()
    assert airflow_db.rows(ORDERS) == [] and airflow_db.one(KEPT) == 0


@shape_2
@pytest.mark.parametrize("what", ["run", "fence"])
def test_what_a_row_refers_to_is_waited_for_too(airflow_db: AirflowDatabase, what: str) -> None:
    """A scheduler has the trigger of a deferred task; the foreign key check of our update would wait for it."""
    airflow_db.add_running()
    airflow_db.rows(
        "create table trigger (id integer primary key); insert into trigger values (5);"
        " alter table task_instance add foreign key (trigger_id) references trigger (id);"
        " update task_instance set trigger_id = 5"
    )
    if what == "fence":
        airflow_db.set_run("failed")
        with airflow_db.transaction() as dba:
            dba.execute("lock table dagstop.stop_order in access exclusive mode")
            hurry(airflow_db, "update task_instance set state = 'up_for_retry'")
    else:
        lose(airflow_db, "update dag_run set state = 'failed'")
    with airflow_db.transaction() as scheduler:
        scheduler.execute("select from trigger for update")
        hurry(airflow_db, "call dagstop.do_chores()")
        assert airflow_db.one(KEPT) == 1
        assert airflow_db.one("select count(*) from dagstop.refused_write") == 0
    airflow_db.beat()
    assert airflow_db.one(KEPT) == 0 and airflow_db.states() == {"a": "failed"}
    assert airflow_db.one("select count(*) from dagstop.refused_write") == (what == "fence")


def test_a_clear_from_before_the_order_lifts_nothing_of_it(airflow_db: AirflowDatabase) -> None:
    """The task instance had failed by itself and was cleared while nobody could judge that; then its run was failed."""
    airflow_db.add_running()
    airflow_db.rows("set session_replication_role = replica; update task_instance set state = 'failed'")
    with airflow_db.transaction() as dba:
        dba.execute("lock table dagstop.stop_order in access exclusive mode")
        hurry(airflow_db, "update task_instance set state = null")
    assert airflow_db.one(KEPT) == 1
    airflow_db.rows(FAIL_THE_RUN)
    airflow_db.beat()
    assert airflow_db.rows(TARGETS) == [("a", -1, None, False)] and airflow_db.one(KEPT) == 0
    airflow_db.set_task("a", "up_for_retry")
    assert airflow_db.states() == {"a": "failed"}


@pytest.mark.parametrize("why", ["observe_only", "bypass"])
def test_a_late_write_that_was_allowed_or_is_only_observed_stays(
    airflow_db: AirflowDatabase, why: str
) -> None:
    airflow_db.add_running()
    airflow_db.rows(FAIL_THE_RUN)
    with airflow_db.transaction() as dba:
        dba.execute("lock table dagstop.stop_order in access exclusive mode")
        allowed = (
            "select set_config('dagstop.bypass', txid_current()::text, true);" if why == "bypass" else ""
        )
        hurry(airflow_db, f"{allowed} update task_instance set state = 'up_for_retry'")
    assert airflow_db.one(KEPT) == 1
    if why == "observe_only":
        set_setting(airflow_db, "observe_only", "on")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "up_for_retry"} and airflow_db.one(KEPT) == 0


@shape_2
def test_who_gets_a_table_of_ours_when_a_cascade_fails_holds_up_nobody(airflow_db: AirflowDatabase) -> None:
    """The error lets go what the cascade has locked; a DBA who waited for it to build an index comes first."""
    airflow_db.rows(
        "create sequence tries; create or replace function dagstop.may_wait() returns boolean language sql as"
        " $$ select current_setting('dagstop.waits_since', true) is distinct from '0' and nextval('public.tries') < 3 $$"
    )
    airflow_db.add_running()
    airflow_db.rows(
        "create function fail_late() returns trigger language plpgsql as"
        " $$ begin perform pg_advisory_xact_lock(1); raise exception 'a trigger of others'; end $$;"
        " create trigger fail_late before update on task_instance for each row execute function fail_late()"
    )
    person_is_done = threading.Event()

    def build() -> None:
        with airflow_db.transaction() as dba:
            dba.execute("lock table dagstop.stop_order in share mode")
            person_is_done.wait(60)

    fail = "set statement_timeout = '60s'; update dag_run set state = 'failed'"
    person = threading.Thread(target=airflow_db.rows, args=(fail,), daemon=True)
    dba = threading.Thread(target=build, daemon=True)
    with airflow_db.transaction() as gate:
        gate.execute("select pg_advisory_xact_lock(1)")
        person.start()
        airflow_db.wait_until("select count(*) > 0 from pg_locks where locktype = 'advisory' and not granted")
        dba.start()
        airflow_db.wait_until(
            "select count(*) > 0 from pg_locks where relation = 'dagstop.stop_order'::regclass and not granted"
        )
    person.join(30)
    person_is_done.set()
    dba.join(30)
    assert not person.is_alive() and not dba.is_alive()
    assert airflow_db.one("select state from dag_run") == "failed" and airflow_db.states() == {"a": "running"}
    assert airflow_db.rows(ORDERS) == [] and airflow_db.one(KEPT) == 1
    assert (
        airflow_db.one("select last_value from tries") == 3
    )  # it tries for it, since it has not waited before
    ((place, message),) = airflow_db.faults()
    assert place == "cascade_statement" and "the next heartbeat makes it good" in message
    airflow_db.rows("drop trigger fail_late on task_instance")
    airflow_db.beat()
    assert airflow_db.states() == {"a": "failed"} and airflow_db.one(KEPT) == 0
    assert [row[:3] for row in airflow_db.rows(ORDERS)] == [("run", "dag", "run")]

"""No Airflow session is ever one side of a deadlock with dagstop: it tries, and never waits.

The sessions that stand for Airflow's here look for a deadlock at once (deadlock_timeout), not after
a second, so that one is found whenever there is one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from dagstop.install import install, uninstall
from tests.support.airflow_tables import FIRST_DATE, AirflowDatabase
from tests.support.marks import one_server, shape_2
from tests.support.watch import wait_until

pytestmark = one_server  # each waits a second
PENDING = "select run_id from dagstop.stop_order where not cascaded order by 1"
GAVE_WAY = "another session held task instances of the run; the next heartbeat fails them"
INSTALLER_HAS_THE_RUNS = (
    "select count(*) > 0 from pg_locks"
    " where relation = 'dag_run'::regclass and mode = 'AccessExclusiveLock' and granted"
)
HOLDS_THE_RUN = (
    # its trigger sleeps between two tries
    "select count(*) > 0 from pg_stat_activity where query like 'update dag_run%' and wait_event = 'PgSleep'"
    " and datname = current_database()"
)


@pytest.fixture
def airflow(airflow_db: AirflowDatabase) -> Iterator[Any]:
    """An Airflow session, in a transaction that is committed at the end."""
    with session(airflow_db) as cursor:
        yield cursor


@contextmanager
def session(db: AirflowDatabase) -> Iterator[Any]:
    with db.transaction() as cursor:
        cursor.execute("set deadlock_timeout = '1ms'")
        yield cursor


@contextmanager
def somebody_fails_the_run(db: AirflowDatabase) -> Iterator[None]:
    """While the block runs; by then the run's row is his."""
    errors: list[Exception] = []

    def fail() -> None:
        try:
            db.set_run("failed")
        except Exception as exc:
            errors.append(exc)

    person = threading.Thread(target=fail, daemon=True)
    person.start()
    wait_until(lambda: db.one(HOLDS_THE_RUN), 5, lambda: "the cascade does not try")
    yield
    person.join(20)
    assert not person.is_alive() and errors == []


def completed(db: AirflowDatabase) -> None:
    """The next heartbeat does what was left."""
    assert db.rows(PENDING) == [("run",)]
    assert {message for _, message in db.faults()} == {GAVE_WAY}
    db.beat("host")
    assert db.rows(PENDING) == []
    assert set(db.states().values()) == {"failed"}


def test_the_web_interface_has_a_task_instance_and_wants_the_run(
    airflow_db: AirflowDatabase, airflow: Any
) -> None:
    airflow_db.add_running(tasks=("a", "b"))
    airflow.execute("update task_instance set state = 'queued' where task_id = 'a'")
    with somebody_fails_the_run(airflow_db):
        airflow.execute("update dag_run set end_date = now()")  # raises if it is the victim
        airflow.connection.commit()
    completed(airflow_db)


def test_a_migration_has_the_task_instances_and_wants_the_runs(
    airflow_db: AirflowDatabase, airflow: Any
) -> None:
    airflow_db.add_running()
    airflow.execute("alter table task_instance add column of_tomorrow integer")
    with somebody_fails_the_run(airflow_db):
        airflow.execute("alter table dag_run add column of_tomorrow integer")
        airflow.connection.commit()
    completed(airflow_db)


def test_a_migration_has_the_runs_and_wants_the_task_instances(
    airflow_db: AirflowDatabase, airflow: Any
) -> None:
    airflow_db.add_running()
    airflow.execute("alter table dag_run add column of_tomorrow integer")
    person = threading.Thread(target=airflow_db.set_task, args=("a", "failed"), daemon=True)
    person.start()
    airflow.execute("alter table task_instance add column of_tomorrow integer")
    airflow.connection.commit()
    person.join(20)
    assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.one("select count(*) from dagstop.stop_order where task_id = 'a'") == 1


def test_who_holds_a_row_for_a_moment_is_waited_out(airflow_db: AirflowDatabase, airflow: Any) -> None:
    airflow_db.add_running()
    airflow.execute("update task_instance set pid = 1")
    with somebody_fails_the_run(airflow_db):
        airflow.connection.commit()
    assert airflow_db.faults() == [] and airflow_db.rows(PENDING) == []
    assert airflow_db.states() == {"a": "failed"}


@shape_2
def test_a_scheduler_has_what_is_not_scheduled_yet(airflow_db: AirflowDatabase, airflow: Any) -> None:
    airflow_db.add_running()
    airflow_db.add_task("next", None)
    airflow.execute("select from task_instance where state is null for update")
    with airflow_db.connect() as connection, connection.cursor() as person:
        person.execute("set dagstop.waits_since = '0'; set statement_timeout = '15s'")
        person.execute("update dag_run set state = 'failed'")
    airflow.connection.commit()
    completed(airflow_db)


@shape_2
def test_who_builds_an_index_on_the_task_instances_is_waited_out_too(
    airflow_db: AirflowDatabase, airflow: Any
) -> None:
    """SHARE lets us lock the rows and not write them: an UPDATE would wait, with the run in its hands."""
    airflow_db.add_running()
    airflow.execute("lock table task_instance in share mode")
    with somebody_fails_the_run(airflow_db):
        airflow.connection.commit()
    assert airflow_db.faults() == [] and airflow_db.states() == {"a": "failed"}


def test_a_reference_to_a_task_instance_is_no_obstacle(airflow_db: AirflowDatabase, airflow: Any) -> None:
    """What Airflow writes about a task (an XCom, say) locks the key of its row only."""
    airflow_db.add_running()
    airflow.execute("select from task_instance for key share")
    airflow_db.set_run("failed")
    assert airflow_db.faults() == [] and airflow_db.states() == {"a": "failed"}


def test_columns_that_a_migration_drops_while_the_cascade_tries(
    airflow_db: AirflowDatabase, airflow: Any
) -> None:
    airflow_db.add_running()
    airflow.execute(
        "alter table task_instance drop column if exists job_id, drop column if exists updated_at"
    )
    with somebody_fails_the_run(airflow_db):
        airflow.connection.commit()
    assert airflow_db.faults() == []
    assert airflow_db.states() == {"a": "failed"}


def test_of_a_mass_of_runs_only_the_held_ones_wait(airflow_db: AirflowDatabase, airflow: Any) -> None:
    airflow_db.add_runs(1100)
    for number in (3, 1090):
        date = FIRST_DATE + number * timedelta(hours=1)
        airflow_db.add_task(f"t{number}", run_id=f"run{number:04}", date=date)
    airflow.execute("update task_instance set pid = 1 where task_id = 't1090'")
    airflow_db.rows("update dag_run set state = 'failed'")
    assert airflow_db.states() == {"t3": "failed", "t1090": "running"}
    assert airflow_db.rows(PENDING) == [(f"run{number:04}",) for number in range(1000, 1100)]
    assert airflow_db.beat("host") == [(True, 1, 100)]  # still held, and nothing waits
    assert airflow_db.states()["t1090"] == "running"
    airflow.connection.commit()
    airflow_db.beat("host")
    assert airflow_db.states()["t1090"] == "failed" and airflow_db.rows(PENDING) == []


def test_the_heartbeat_leaves_a_run_that_somebody_has(airflow_db: AirflowDatabase, airflow: Any) -> None:
    airflow_db.add_running()
    with session(airflow_db) as other:
        other.execute("update task_instance set pid = 1")
        airflow_db.set_run("failed")
    airflow.execute("update dag_run set end_date = now()")
    airflow_db.beat("host")
    assert airflow_db.rows(PENDING) == [("run",)]
    airflow.connection.commit()
    completed(airflow_db)


@pytest.mark.parametrize("change", [install, uninstall])
def test_neither_is_an_install(airflow_db: AirflowDatabase, airflow: Any, change: Callable[..., Any]) -> None:
    airflow_db.add_running()
    airflow_db.rows("alter table dag_run disable trigger dagstop_order")  # something to heal
    airflow.execute("update task_instance set pid = 1")
    installer = threading.Thread(target=change, args=(airflow_db.url,), daemon=True)
    installer.start()
    wait_until(lambda: airflow_db.one(INSTALLER_HAS_THE_RUNS), 5, lambda: "the install has not begun")
    airflow.execute("update dag_run set end_date = now()")  # raises if it is the victim
    airflow.connection.commit()
    installer.join(30)
    assert not installer.is_alive()
    done = change(airflow_db.url, waits=())
    assert done is False if change is uninstall else not done.changed


@pytest.mark.parametrize("shape", ["2.11.2", "3.3.2"], indirect=True)  # 1.10 has no foreign key
@pytest.mark.parametrize("wanted", ["up_for_retry", "queued"])
def test_a_scheduler_has_the_run_and_wants_what_the_dying_process_writes(
    airflow_db: AirflowDatabase, airflow: Any, wanted: str
) -> None:
    """What is put back is written twice by one transaction: Postgres checks its foreign key each time."""
    airflow_db.add_running()
    airflow_db.set_run("failed")
    airflow.execute("select from dag_run for update")
    dying = threading.Thread(target=airflow_db.set_task, args=("a", wanted), daemon=True)
    dying.start()
    writes = "select count(*) > 0 from pg_stat_activity where query like 'update task_instance%' and wait_event = 'PgSleep'"
    wait_until(lambda: airflow_db.one(writes), 20, lambda: "the fence does not try")
    airflow.execute("update task_instance set pid = 2")  # raises if it is the victim
    airflow.connection.commit()
    dying.join(20)
    assert not dying.is_alive()
    assert airflow_db.states() == {"a": wanted}  # it gave way
    assert airflow_db.one("select pending from dagstop.refused_write")
    assert airflow_db.one("select not cascaded from dagstop.open_orders('host')")  # hurries the heartbeat
    airflow_db.beat("host")
    assert airflow_db.states() == {"a": "failed"}
    assert airflow_db.one("select pending from dagstop.refused_write") is False
    assert airflow_db.one("select count(*) from dagstop.stop_order") == 1


@pytest.mark.parametrize("shape", ["2.11.2", "3.3.2"], indirect=True)
def test_what_was_cleared_before_it_was_put_back_stays(airflow_db: AirflowDatabase, airflow: Any) -> None:
    airflow_db.add_running()
    airflow_db.set_run("failed")
    airflow.execute("select from dag_run for update")
    airflow_db.set_task("a", "up_for_retry")
    airflow_db.set_task("a", None)
    airflow.connection.commit()
    airflow_db.beat("host")
    assert airflow_db.states() == {"a": None}
    assert airflow_db.one("select pending from dagstop.refused_write") is False


@shape_2
def test_a_scheduler_has_the_run_whose_tasks_a_person_fails(
    airflow_db: AirflowDatabase, airflow: Any
) -> None:
    """Their end is written by a second update, for which many rows together wait a second at most."""
    airflow_db.add_running(tasks=[f"t{number}" for number in range(20)])
    airflow.execute("select from dag_run for update")
    began = time.monotonic()
    person = threading.Thread(
        target=airflow_db.rows, args=("update task_instance set state = 'failed'",), daemon=True
    )
    person.start()
    airflow.execute("update task_instance set pid = 2")
    airflow.connection.commit()
    person.join(20)
    assert not person.is_alive() and time.monotonic() - began < 15
    assert set(airflow_db.states().values()) == {"failed"}
    assert airflow_db.one("select count(*) from dagstop.stop_order where kind = 'task'") == 20


# what the client does, and what another Airflow session has meanwhile
IN_A_HURRY = {
    "cascade": ("update dag_run set state = 'failed'", "update task_instance set pid = 1"),
    "order": ("update task_instance set state = 'failed'", "lock table dag_run in access exclusive mode"),
    "fence": ("update task_instance set state = 'up_for_retry'", "select from dag_run for update"),
}


@shape_2
@pytest.mark.parametrize("what", IN_A_HURRY)
@pytest.mark.parametrize("limit", ["statement_timeout", "transaction_timeout"])
def test_a_client_with_little_time_has_its_statement(
    airflow_db: AirflowDatabase, airflow: Any, what: str, limit: str
) -> None:
    """Its limit is shorter than the second for which dagstop tries."""
    if (
        limit == "transaction_timeout"
        and airflow_db.one("select current_setting('transaction_timeout', true)") is None
    ):
        limit = "statement_timeout"  # Postgres 16 and older have only this one
    statement, held = IN_A_HURRY[what]
    airflow_db.add_running(tasks=("a", "b"))
    if what == "fence":
        airflow_db.set_run("failed")
    airflow.execute(held)
    with airflow_db.connect() as connection, connection.cursor() as client:
        client.execute(f"set {limit} = '800ms'")
        client.execute(statement)
    airflow.connection.commit()
    states = {"cascade": {"running"}, "order": {"failed"}, "fence": {"up_for_retry"}}
    assert set(airflow_db.states().values()) == states[what]
    airflow_db.beat("host")
    assert set(airflow_db.states().values()) == {"failed"}


@shape_2
def test_many_rows_wait_for_one_second_together(airflow_db: AirflowDatabase, airflow: Any) -> None:
    """A migration has the runs while a person fails tasks: each order looks for the date of its run."""
    airflow_db.add_running(tasks=[f"t{number}" for number in range(30)])
    airflow.execute("lock table dag_run in access exclusive mode")
    began = time.monotonic()
    airflow_db.rows("update task_instance set state = 'failed'")
    assert time.monotonic() - began < 15
    airflow.connection.commit()
    assert airflow_db.one("select count(*) from dagstop.stop_order where kind = 'task'") == 30


@pytest.fixture
def parent_db(airflow_db: AirflowDatabase) -> AirflowDatabase:
    """A task instance that waits for a trigger, as a deferred one of Airflow's does."""
    airflow_db.add_running(tasks=("a", "b"), number=-1)
    airflow_db.rows(
        "create table trigger (id integer primary key); insert into trigger values (5);"
        " alter table task_instance add column my_trigger integer references trigger on delete cascade;"
        " update task_instance set my_trigger = 5 where task_id = 'a'"
    )
    return airflow_db


@pytest.mark.parametrize("order", ["it waits for us first", "we would wait for it first"])
@pytest.mark.parametrize("runs", [1, 1100], ids=["a run", "a mass of runs"])
def test_what_was_written_before_is_checked_again(
    parent_db: AirflowDatabase, airflow: Any, order: str, runs: int
) -> None:
    """One transaction writes a task instance and fails its run; another deletes what the task instance refers to."""
    if runs > 1:
        parent_db.add_runs(runs)
    deleting: list[Exception] = []

    def delete() -> None:
        try:
            if order == "it waits for us first":
                airflow.execute("delete from trigger")
            else:
                airflow.execute("update task_instance set pid = 3 where task_id = 'a'")
            airflow.connection.commit()
        except Exception as exc:
            deleting.append(exc)

    deleter = threading.Thread(target=delete, daemon=True)
    with session(parent_db) as person:
        person.execute(
            "savepoint s; update task_instance set pid = 1 where task_id = 'a'; release savepoint s"
        )
        if order == "it waits for us first":
            deleter.start()
            parent_db.wait_until("select count(*) > 0 from pg_locks where not granted")
        else:
            airflow.execute("select from trigger for update")
            trying = (
                "select count(*) > 0 from pg_stat_activity where query like 'update dag_run%'"
                " and wait_event in ('PgSleep', 'transactionid', 'tuple')"
            )

            def when_we_try() -> None:
                parent_db.wait_until(trying)
                delete()

            deleter = threading.Thread(target=when_we_try, daemon=True)
            deleter.start()
        person.execute("update dag_run set state = 'failed'")
    deleter.join(20)
    assert not deleter.is_alive() and deleting == []
    assert {message for _, message in parent_db.faults()} == {GAVE_WAY}
    assert ("run",) in parent_db.rows(PENDING)
    parent_db.beat("host")
    assert set(parent_db.states().values()) == {"failed"}
    assert parent_db.rows(PENDING) == []


def test_what_was_written_before_and_refers_to_what_nobody_has_fails_at_once(
    parent_db: AirflowDatabase,
) -> None:
    with session(parent_db) as person:
        person.execute("update task_instance set pid = 1")
        person.execute("update dag_run set state = 'failed'")
    assert parent_db.faults() == []
    assert set(parent_db.states().values()) == {"failed"}


def test_what_was_written_before_and_refers_to_what_somebody_writes_fails_at_once(
    parent_db: AirflowDatabase, airflow: Any
) -> None:
    """A triggerer writes to the triggers that it has, and keeps their keys: it is not waited for."""
    parent_db.rows("alter table trigger add column triggerer_id integer")
    airflow.execute("update trigger set triggerer_id = 1")
    with session(parent_db) as person:
        person.execute("update task_instance set pid = 1")
        person.execute("update dag_run set state = 'failed'")
    assert parent_db.faults() == []
    assert set(parent_db.states().values()) == {"failed"}


def test_what_an_earlier_transaction_wrote_needs_nothing_of_what_it_refers_to(
    parent_db: AirflowDatabase, airflow: Any
) -> None:
    """A session of Airflow's writes one thing after another; a migration has what they refer to."""
    with session(parent_db) as person:
        for pid in (1, 2):  # Postgres' own count may still name the second
            person.execute("update task_instance set pid = %s", (pid,))
            person.connection.commit()
        airflow.execute("lock table trigger in exclusive mode")
        person.execute("update dag_run set state = 'failed'")
    assert parent_db.faults() == []
    assert set(parent_db.states().values()) == {"failed"}


# what another session has, and which task instance the person wrote before: the check of its reference is not waited for
GIVES_WAY = {
    "the table of what it refers to": "lock table trigger in exclusive mode",
    "what it refers to, though it is not scheduled yet": "select from trigger for update",
}
GOES_ON = {
    "what another task instance refers to": ("select from trigger for update", "b", "running"),
    "what nothing refers to": ("select from trigger where id = 6 for update", "a", "running"),
    "what one refers to that has ended": ("select from trigger for update", "a", "success"),
}


@shape_2
@pytest.mark.parametrize("held", GIVES_WAY)
def test_what_was_written_before_waits_for_nothing_it_refers_to(
    parent_db: AirflowDatabase, airflow: Any, held: str
) -> None:
    state = None if "scheduled" in held else "running"
    airflow.execute(GIVES_WAY[held])
    with session(parent_db) as person:
        person.execute("set dagstop.waits_since = '0'; set statement_timeout = '15s'")
        person.execute("update task_instance set state = %s where task_id = 'a'", (state,))
        person.execute("update dag_run set state = 'failed'")
    airflow.connection.commit()
    completed(parent_db)


@shape_2
@pytest.mark.parametrize("held", GOES_ON)
def test_what_is_not_checked_again_is_not_given_way_to(
    parent_db: AirflowDatabase, airflow: Any, held: str
) -> None:
    statement, written, state = GOES_ON[held]
    parent_db.rows("insert into trigger values (6)")
    airflow.execute(statement)
    with session(parent_db) as person:
        person.execute("set dagstop.waits_since = '0'; set statement_timeout = '15s'")
        person.execute("update task_instance set state = %s where task_id = %s", (state, written))
        person.execute("update task_instance set pid = 1 where task_id = 'b'")
        person.execute("update dag_run set state = 'failed'")
    assert parent_db.faults() == [] and parent_db.rows(PENDING) == []
    assert parent_db.states() == {
        "a": state if written == "a" and state == "success" else "failed",
        "b": "failed",
    }


@shape_2
def test_who_has_waited_for_a_second_does_not_wait_again_after_the_error(airflow_db: AirflowDatabase) -> None:
    """A DBA has dagstop's table. The time is up at the third try; what says so is undone with the try."""
    airflow_db.rows(
        "create sequence tries; create or replace function dagstop.may_wait() returns boolean language sql as"
        " $$ select current_setting('dagstop.waits_since', true) is distinct from '0' and nextval('public.tries') < 3 $$"
    )
    airflow_db.add_running()
    with airflow_db.transaction() as dba:
        dba.execute("lock table dagstop.stop_order in access exclusive mode")
        airflow_db.rows("set statement_timeout = '15s'; update dag_run set state = 'failed'")
    assert airflow_db.one("select last_value from tries") == 3
    assert airflow_db.one("select count(*) from dagstop.unwritten_order where id > 0") == 1

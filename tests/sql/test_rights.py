"""Who may do what: Airflow's role, a DBA with nothing but UPDATE on dag_run, the listener's, a stranger."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import timedelta

import psycopg2
import pytest

from dagstop.database.connection import connect, query
from tests.support.airflow_tables import FIRST_DATE, AirflowDatabase
from tests.support.listener import dagstop
from tests.support.marks import one_server
from tests.testbed.postgres import rows

ROLES = ("r_airflow", "r_dba", "r_listener", "r_stranger")
SECRETS = (
    "stop_order", "stop_target", "report", "listener", "fault", "refused_write", "setting", "history",
    "open_order", "host_role",
)  # fmt: skip
NOBODY_MAY = {
    "write an order": "insert into dagstop.stop_order (kind, airflow_schema, dag_id) values ('run', 'public', 'd')",
    "change an order": "update dagstop.stop_order set closed_at = now()",
    "remove an order": "delete from dagstop.stop_order",
    "write a target": "insert into dagstop.stop_target (order_id, task_id, map_index) values (1, 't', -1)",
    "write a report": "insert into dagstop.report (order_id, host) values (1, 'h')",
    "write a setting": "update dagstop.setting set value = 'all'",
    "forge a listener": "insert into dagstop.listener (host, listener_id, version) values ('h', gen_random_uuid(), '1')",
    "cascade": "select dagstop.cascade(array[]::dagstop.stop_order[], 'public')",
    "complete": "select dagstop.complete_orders('{1}', 'public')",
    "close": "select dagstop.close_orders('{1}')",
    "take a host's name": "update dagstop.host_role set role_name = session_user",
    "give a host's name away": "delete from dagstop.host_role",
    "speak for a host": "select dagstop.speak_for('h')",
    "put back": "select dagstop.set_again('public', '{}', '')",
    "record a fault": "select dagstop.record_fault('p', 'c', 'm', '{}')",
    "prune": "select dagstop.prune()",
    "add to the schema": "create table dagstop.mine (id int)",
    "replace a function": "create or replace function dagstop.ring() returns void language sql as 'select'",
    "drop a trigger": "drop trigger dagstop_order on dag_run",
    "disable triggers": "alter table dag_run disable trigger all",
    "fire an order from a table of its own": (
        "create temp table dag_run (dag_id text, run_id text, state text, end_date timestamptz);"
        " create trigger t after insert on dag_run for each row execute function dagstop.order_run()"
    ),
    "switch the triggers off": "set session_replication_role = replica",
}
ONLY_THE_LISTENER_MAY = {
    "read orders": "select * from dagstop.open_orders('h')",
    "report": "select dagstop.write_report(1, 'h', 'stopped', null, null, '{}')",
    "beat": "select * from dagstop.heartbeat('h', gen_random_uuid(), '1', '{}')",
    "retire": "select dagstop.retire('h', gen_random_uuid())",
    "ask for states": "select * from dagstop.task_states(null, null)",
    "explain": "select * from dagstop.would_be_order('dag', 'run')",
    "see the triggers": "select * from dagstop.trigger_health()",
    "see the hosts": "select * from dagstop.task_hosts()",
    "see the hosts that are gone": "select * from dagstop.gone_hosts()",
    "forget a host": "select dagstop.forget_host('h')",
    **{f"read {table}": f"select * from dagstop.{table}" for table in SECRETS},
}
ON_AIRFLOWS_TABLES = {
    "select * from dag_run": {"r_airflow", "r_dba"},
    "select * from task_instance": {"r_airflow"},
    "update dag_run set state = 'failed'": {"r_airflow", "r_dba"},
    "update task_instance set state = 'failed'": {"r_airflow"},
    "delete from task_instance": {"r_airflow"},
    "delete from dag_run": {"r_airflow"},
}


@pytest.fixture
def db(airflow_db: AirflowDatabase) -> Iterator[AirflowDatabase]:
    """A running run, and the four roles; Airflow's does not own its tables here."""
    for role in ROLES:
        airflow_db.rows(f"create role {role} login")
    airflow_db.rows("grant dagstop_listener to r_listener")
    airflow_db.rows("grant select, insert, update, delete on all tables in schema public to r_airflow")
    airflow_db.rows("grant select, update on dag_run to r_dba")
    airflow_db.add_running()
    yield airflow_db
    for role in ROLES:
        airflow_db.rows(f"drop owned by {role} cascade; drop role {role}")


def may(db: AirflowDatabase, role: str, statement: str) -> bool:
    """Whether a role may; what it does is undone."""
    connection = psycopg2.connect(db.user_url(role))
    try:
        connection.cursor().execute(statement)
    except psycopg2.errors.InsufficientPrivilege:
        return False
    finally:
        connection.close()
    return True


@one_server
def test_each_role_may_do_its_own_and_no_more(db: AirflowDatabase) -> None:
    allowed: list[tuple[str, set[str]]] = [
        *((statement, set()) for statement in NOBODY_MAY.values()),
        *((statement, {"r_listener"}) for statement in ONLY_THE_LISTENER_MAY.values()),
        *ON_AIRFLOWS_TABLES.items(),
    ]
    for statement, wanted in allowed:
        assert {role for role in ROLES if may(db, role, statement)} == wanted, statement


@one_server
@pytest.mark.parametrize("role", ["r_airflow", "r_dba"])
def test_who_may_update_only_stops_with_no_right_on_the_schema(db: AirflowDatabase, role: str) -> None:
    rows(db.user_url(role), "update dag_run set state = 'failed'")
    assert db.states() == {"a": "failed"}
    assert db.one("select session_user_name, cascaded from dagstop.stop_order") == (role, True)
    assert db.faults() == []


HIJACK = """
    create schema evil authorization r_dba;
    create function evil.now() returns timestamptz language plpgsql as $$ begin raise 'hijacked'; end $$;
    create function evil.to_jsonb(anyelement) returns jsonb language plpgsql as $$ begin raise 'hijacked'; end $$;
    create function evil.same(text, text) returns boolean language plpgsql as $$ begin raise 'hijacked'; end $$;
    create operator evil.= (leftarg = text, rightarg = text, function = evil.same);
    create operator evil.<> (leftarg = text, rightarg = text, function = evil.same);
    grant usage on schema evil to public;
"""


@one_server
def test_neither_operators_nor_temporary_tables_stand_in_for_ours(db: AirflowDatabase) -> None:
    db.rows(HIJACK)
    with psycopg2.connect(db.user_url("r_dba")) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "create temp table stop_order (id int); create temp table setting (name text, value text)"
        )
        cursor.execute("create temp table task_instance (id int)")
        cursor.execute("set search_path = pg_temp, evil, pg_catalog, public")
        cursor.execute("update public.dag_run set state = 'failed' where run_id operator(pg_catalog.=) 'run'")
    connection.close()
    assert db.states() == {"a": "failed"}
    assert db.faults() == []


BEAT = "select * from dagstop.heartbeat('{0}', gen_random_uuid(), '1', '{{}}')"
IN_A_HOSTS_NAME = (
    BEAT,
    "select dagstop.write_report(1, '{0}', 'stopped', null, null, '{{}}')",
    "select dagstop.retire('{0}', gen_random_uuid())",
)


@one_server
def test_a_host_is_its_first_listeners(db: AirflowDatabase) -> None:
    for role in ("r_second", "r_joint"):
        db.rows(f"drop role if exists {role}; create role {role} login in role dagstop_listener")
    try:
        db.rows("grant r_listener to r_joint")
        rows(db.user_url("r_listener"), BEAT.format("h''s"))
        for statement in IN_A_HOSTS_NAME:
            own, other = statement.format("second"), statement.format("h''s")
            assert may(db, "r_second", own) and not may(db, "r_second", other)
            assert may(db, "r_joint", other) and may(db, "postgres", other)
        with pytest.raises(
            psycopg2.Error, match="host 'h''s' belongs to the listener of role r_listener"
        ) as seen:
            rows(db.user_url("r_second"), BEAT.format("h''s"))
        assert seen.value.diag.message_hint == (
            "log in as that role, or delete from dagstop.host_role where host = 'h''s'"
        )
        assert db.rows("select host, listener_id from dagstop.listener where host = 'second'") == []
        # what it ends with leaves the name its own
        rows(db.user_url("r_listener"), "select dagstop.retire('h''s', listener_id) from dagstop.listener")
        assert not may(db, "r_second", BEAT.format("h''s"))
        db.rows(str(seen.value.diag.message_hint).partition(", or ")[2])
        assert may(db, "r_second", BEAT.format("h''s"))
    finally:
        db.rows("drop role r_second; drop role r_joint")


@one_server
def test_a_hosts_name_outlives_no_role_and_no_keeping(db: AirflowDatabase) -> None:
    db.rows("drop role if exists r_gone; create role r_gone login in role dagstop_listener")
    rows(db.user_url("r_gone"), BEAT.format("h"))
    db.rows("drop role r_gone")
    rows(db.user_url("r_listener"), BEAT.format("h"))
    rows(db.user_url("r_listener"), BEAT.format("old"))
    db.rows("update dagstop.host_role set seen_on = current_date - 100")
    rows(db.user_url("r_listener"), BEAT.format("old"))
    rows(db.user_url("r_listener"), "call dagstop.do_chores()")
    assert db.rows("select host, seen_on = current_date from dagstop.host_role") == [("old", True)]


@one_server
@pytest.mark.parametrize("task", [(), ("--task-id", "a")], ids=["run", "task"])
def test_who_types_stop_calls_no_operator_of_a_strangers(db: AirflowDatabase, task: tuple[str, ...]) -> None:
    """An operator for exactly varchar in schema public, where before Postgres 15 everybody may make one."""
    db.rows(
        "create function same(varchar, varchar) returns boolean language plpgsql as"
        " $$ begin raise 'hijacked as %', current_user; end $$;"
        " create operator public.= (leftarg = varchar, rightarg = varchar, function = same);"
        " create operator public.<> (leftarg = varchar, rightarg = varchar, function = same)"
    )
    with pytest.raises(psycopg2.Error, match="hijacked as postgres"):  # it is a trap indeed
        db.rows("select from dag_run where run_id = 'run'")
    dagstop("stop", "dag", "run", *task, "--database-url", db.url)
    assert set(db.rows("select state::text from task_instance")) == {("failed",)}
    with contextlib.closing(connect(db.url, "test")) as connection:
        for name in ("task_hosts", "running_in_failed_runs", "listeners", "recent_faults"):
            query(connection, name)


@one_server
def test_who_may_write_some_runs_orders_no_stop_of_others(db: AirflowDatabase) -> None:
    """Between row and statement the runs are noted in settings of the transaction, which a session may set itself."""
    db.add_running("mine", ("mine",), 1)
    db.rows(
        "alter table dag_run enable row level security; create policy p on dag_run to r_dba using (run_id = 'mine')"
    )
    date = db.one(f"select {db.date_column}::text from dag_run where run_id = 'run'")
    forged = (
        {"run_id": "run"}, {"run_id": None}, {"run_id": "nobody's"}, {"run_id": "mine"},
    )  # fmt: skip
    try:
        with psycopg2.connect(db.user_url("r_dba")) as connection:
            cursor = connection.cursor()
            for names in forged:
                for state in (None, "failed", "deleted", "running"):
                    note = {"dag_id": "dag", "logical_date": date, "state_after": state, **names}
                    cursor.execute("select set_config('dagstop.runs', %s, true)", (json.dumps(note),))
                    cursor.execute("update dag_run set state = 'running'")
        connection.close()
        assert {run for (run,) in db.rows("select run_id from dagstop.stop_order")} <= {"mine"}
        assert db.states()["a"] == "running"
        rows(db.user_url("r_dba"), "update dag_run set state = 'failed'")
        assert db.one("select count(*) from dagstop.stop_order where logical_date = %s", (date,)) == 0
        assert db.states() == {"a": "running", "mine": "failed"}
        assert db.faults() == []
    finally:
        db.rows("drop policy p on dag_run")


@one_server
def test_what_a_note_says_of_a_failed_run_has_to_fit_it(db: AirflowDatabase) -> None:
    """By its date alone, though it has a run_id; deleted, though it is there. What was cleared in it runs on."""
    db.set_run("failed")
    db.set_task("a", None)
    db.set_task("a", "running")
    date = db.one(f"select {db.date_column}::text from dag_run")
    notes = ({"run_id": None, "logical_date": date}, {"run_id": "run", "state_after": "deleted"})
    with psycopg2.connect(db.user_url("r_dba")) as connection:
        cursor = connection.cursor()
        for note in notes:
            cursor.execute(
                "select set_config('dagstop.runs', %s, true)", (json.dumps({"dag_id": "dag", **note}),)
            )
            cursor.execute("update dag_run set state = state")
    connection.close()
    assert db.one("select count(*) from dagstop.stop_order") == 1
    assert db.states() == {"a": "running"} and db.faults() == []


@one_server
def test_the_place_of_another_run_is_no_order_of_this_one(db: AirflowDatabase) -> None:
    """A note says where its run is, and a session may write there what it likes."""
    db.add_run("dag", "failed", date=FIRST_DATE + timedelta(days=1))
    db.rows("update dag_run set state = 'failed' where run_id = 'failed'")
    place = db.one("select ctid::text from dag_run where run_id = 'failed'")
    with psycopg2.connect(db.user_url("r_dba")) as connection:
        cursor = connection.cursor()
        note = {"place": place, "dag_id": "dag", "run_id": "run"}
        cursor.execute("select set_config('dagstop.runs', %s, true)", (json.dumps(note),))
        cursor.execute("update dag_run set state = state where false")
    connection.close()
    assert db.rows("select run_id from dagstop.stop_order") == [("failed",)]
    assert db.states() == {"a": "running"} and db.faults() == []

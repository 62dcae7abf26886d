"""A listener's session leaves its transaction open after any call: neither an order nor Airflow waits for it.

What role dagstop_listener may call is asked of the database, so that a new function is tested by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import shape_2
from tests.support.watch import wait_until
from tests.testbed.postgres import connect, rows

GHOST = "ghost"
CALLS = {
    "setting_of": "select dagstop.setting_of('cascade', '')",
    "known_settings": "select * from dagstop.known_settings()",
    "seconds_of": "select dagstop.seconds_of('live_seconds', 1)",
    "open_orders": "select * from dagstop.open_orders('{host}')",
    "rung_for": "select dagstop.rung_for('{host}', 10)",
    "would_be_order": "select * from dagstop.would_be_order('dag', 'run')",
    "task_states": 'select * from dagstop.task_states(null, \'[{{"dag_id": "dag", "run_id": "run", "task_id": "a"}}]\')',
    "write_report": "select dagstop.write_report(1, '{host}', 'stopped', now(), now(), '{{}}')",
    "heartbeat": "select * from dagstop.heartbeat('{host}', gen_random_uuid(), '1', '{{}}')",
    "retire": "select dagstop.retire('{host}', gen_random_uuid())",
    "trigger_health": "select * from dagstop.trigger_health()",
    "task_hosts": "select * from dagstop.task_hosts()",
    "running_in_failed_runs": "select * from dagstop.running_in_failed_runs()",
    "gone_hosts": "select * from dagstop.gone_hosts()",
    "forget_host": "select dagstop.forget_host('{host}')",
    "waits_for": "select dagstop.waits_for(o) from dagstop.stop_order o",
    "chore": "select dagstop.chore('complete')",
    "do_chores": "call dagstop.do_chores()",
}
MAY_CALL = """
    select distinct p.proname from pg_proc p cross join lateral aclexplode(p.proacl) a
    where p.pronamespace = 'dagstop'::regnamespace and a.grantee = 'dagstop_listener'::regrole
    order by 1
"""


@pytest.fixture
def listener_url(airflow_db: AirflowDatabase) -> Iterator[str]:
    airflow_db.rows("drop role if exists r_listener; create role r_listener login in role dagstop_listener")
    yield airflow_db.user_url("r_listener")
    airflow_db.rows("drop role r_listener")


@contextmanager
def left_open(url: str, statement: str) -> Iterator[None]:
    """A transaction in which that was called, as long as the block runs."""
    with connect(url) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        try:
            cursor.execute(statement)
        except psycopg2.Error:
            cursor.execute("rollback and chain")  # what one does who wants to keep the transaction
        yield


def test_every_function_of_a_listeners_is_tried(airflow_db: AirflowDatabase) -> None:
    assert {name for (name,) in airflow_db.rows(MAY_CALL)} == set(CALLS)


@shape_2
@pytest.mark.parametrize("name", CALLS)
def test_an_order_is_made_read_carried_out_and_closed(
    airflow_db: AirflowDatabase, listener_url: str, name: str
) -> None:
    airflow_db.add_running("held", ("h",), number=1)
    with airflow_db.transaction() as airflow:  # leaves an order without its cascade, and a host that reported
        airflow.execute("update task_instance set pid = 1")
        airflow_db.set_run("failed", "held")
    rows(listener_url, CALLS["write_report"].format(host="w2"))
    airflow_db.add_running("run", ("a",))
    with left_open(listener_url, CALLS[name].format(host=GHOST)):
        patient = f"{listener_url}?options=-cstatement_timeout%3D500ms"
        rows(
            airflow_db.url,
            "set lock_timeout = '100ms'; update dag_run set state = 'failed' where run_id = 'run'",
        )
        assert airflow_db.states()["a"] == "failed"
        rows(patient, CALLS["heartbeat"].format(host="w2"))
        orders = rows(patient, "select id, run_id from dagstop.open_orders('w2')")
        assert [run for _, run in orders] == ["run"]
        (order,) = [number for number, _ in orders]
        rows(patient, f"select dagstop.write_report({order}, 'w2', 'stopped', now(), now(), '{{}}')")
        rows(listener_url, "call dagstop.do_chores(%s::bigint[])", ([order],))
        assert airflow_db.one("select closed_at is not null from dagstop.stop_order where id = %s", (order,))
        rows(listener_url, "call dagstop.do_chores()")
        assert set(airflow_db.states().values()) == {"failed"}  # also what was left behind
        for table in ("dag_run", "task_instance"):  # a migration
            airflow_db.rows(f"begin; lock table {table} in access exclusive mode nowait; commit")
    assert airflow_db.one("select count(*) from dagstop.fault where sqlstate <> '55P03'") == 0


@shape_2
def test_chores_are_refused_where_their_locks_could_stay(
    airflow_db: AirflowDatabase, listener_url: str
) -> None:
    inner = "perform dagstop.chore('complete')"
    comment = "/* \\n PL/pgSQL function dagstop.do_chores(bigint[]) line 1 at PERFORM */"
    imitation = 'pg_temp."dagstop.do_chores(bigint[])"()'
    for statements in (
        ("begin; call dagstop.do_chores()",),
        ("begin; savepoint s; call dagstop.do_chores()",),
        ("select 1; call dagstop.do_chores()",),
        ("do $$ begin call dagstop.do_chores(); exception when others then raise; end $$",),
        ("select dagstop.chore('complete')",),
        ("begin; select dagstop.chore('complete')",),
        (f"do $$ begin commit; {inner}; perform pg_sleep(100); end $$",),
        (f"do $$ begin commit; execute E'select dagstop.chore(''prune'') {comment}'; end $$",),
        (
            f"create procedure {imitation} language plpgsql as $$ begin commit; {inner}; end $$",
            f"call {imitation}",
        ),
    ):
        with connect(listener_url) as connection, connection.cursor() as cursor:
            for statement in statements[:-1]:
                cursor.execute(statement)
            with pytest.raises(psycopg2.Error) as seen:
                cursor.execute(statements[-1])
        assert seen.value.pgcode in ("2D000", "25000"), (statements, seen.value)
    rows(listener_url, "call dagstop.do_chores()")


HUGE = {
    "write_report": (
        ("repeat('h', 256)", "'stopped'", "'{}'"), ("'h'", "repeat('o', 51)", "'{}'"), ("'h'", "'stopped'", "{large}"),
    ),
    "heartbeat": (("repeat('h', 256)", "'1'", "'{}'"), ("'h'", "repeat('v', 101)", "'{}'"), ("'h'", "'1'", "{large}")),
}  # fmt: skip
LARGE = "jsonb_build_object('a', repeat(md5(random()::text), 100000))"  # 3 MB


@shape_2
@pytest.mark.parametrize("name", HUGE)
def test_what_is_too_large_is_refused(airflow_db: AirflowDatabase, listener_url: str, name: str) -> None:
    airflow_db.add_running()
    airflow_db.set_run("failed")
    texts = {
        "write_report": "select dagstop.write_report(1, {}, {}, null, null, {})",
        "heartbeat": "select * from dagstop.heartbeat({}, gen_random_uuid(), {}, {})",
    }
    for values in HUGE[name]:
        with pytest.raises(psycopg2.errors.ProgramLimitExceeded):
            rows(listener_url, texts[name].format(*(value.replace("{large}", LARGE) for value in values)))
    for table in ("report", "listener", "host_role"):
        assert airflow_db.one(f"select count(*) from dagstop.{table}") == 0


@shape_2
def test_a_role_speaks_for_so_many_hosts(airflow_db: AirflowDatabase, listener_url: str) -> None:
    airflow_db.rows(
        "insert into dagstop.host_role (host, role_name) select 'h' || n, 'r_listener' from generate_series(1, 10000) n"
    )
    with pytest.raises(psycopg2.errors.ProgramLimitExceeded, match="speaks for 10000 hosts"):
        rows(listener_url, CALLS["heartbeat"].format(host=GHOST))
    rows(listener_url, CALLS["heartbeat"].format(host="h7"))
    airflow_db.beat(GHOST)  # of another role


@shape_2
def test_who_only_beats_keeps_no_order_open(airflow_db: AirflowDatabase, listener_url: str) -> None:
    airflow_db.add_running()
    airflow_db.set_run("failed")
    for host in ("ghost1", "ghost2", "at work"):
        rows(listener_url, CALLS["heartbeat"].format(host=host))
    rows(listener_url, CALLS["write_report"].format(host="w2"))
    airflow_db.beat("w2")
    waiting = "select waiting_for from dagstop.open_order"
    assert airflow_db.one(waiting) == ["at work", "ghost1", "ghost2"]  # a host may be slow
    rows(listener_url, "select dagstop.write_report(1, 'at work', null, now(), null, '{}')")
    airflow_db.rows("update dagstop.stop_order set created_at = created_at - interval '71 seconds'")
    assert airflow_db.one(waiting) == ["at work"]
    airflow_db.beat("w2")
    assert airflow_db.one(waiting) == ["at work"]
    rows(listener_url, CALLS["write_report"].format(host="at work"))
    airflow_db.beat("w2")
    assert airflow_db.rows(waiting) == []
    assert airflow_db.one("select closed_at is not null from dagstop.stop_order")
    # a host that was only slow reads it still, and is named as one that did not look
    assert airflow_db.one("select closed_without from dagstop.stop_order") == ["ghost1", "ghost2"]
    airflow_db.rows("update dagstop.listener set caught_up = true")
    for _ in range(2):
        assert rows(listener_url, "select id from dagstop.open_orders('ghost1')") == [(1,)]
    assert rows(listener_url, "select id from dagstop.open_orders('at work')") == []
    rows(listener_url, CALLS["write_report"].format(host="ghost1"))
    assert rows(listener_url, "select id from dagstop.open_orders('ghost1')") == []


@shape_2
def test_rows_that_cannot_be_failed_starve_no_other(airflow_db: AirflowDatabase) -> None:
    airflow_db.rows(
        "create function poisoned() returns trigger language plpgsql as $f$ begin"
        " if old.task_id like 'bad%' and new.state = 'failed' then raise 'poisoned'; end if; return new; end $f$;"
        " create trigger poisoned before update on task_instance for each row execute function poisoned()"
    )
    for number in range(120):
        airflow_db.add_running(f"run{number:03}", ("bad" if number < 110 else f"good{number}",), number)
    airflow_db.rows("update dag_run set state = 'failed'")
    assert airflow_db.one("select count(*) from dagstop.stop_order where not cascaded") == 120
    done = "select count(*) = 10 from task_instance where task_id like 'good%' and state = 'failed'"

    def beaten() -> bool:
        airflow_db.beat()
        return bool(airflow_db.one(done))

    wait_until(beaten, 30, lambda: "the sound runs are not failed")
    assert airflow_db.one("select count(*) from dagstop.stop_order where not cascaded") == 110
    airflow_db.rows("drop trigger poisoned on task_instance")
    wait_until(lambda: airflow_db.beat()[0][2] == 0, 30, lambda: "the others are not failed")


@pytest.mark.parametrize("shape", ["2.11.2", "1.10.0"], indirect=True)
@pytest.mark.parametrize("table", ["dag_run", "task_instance", "log"])
def test_a_heartbeat_and_the_chores_do_not_last_as_long_as_a_migration(
    airflow_db: AirflowDatabase, listener_url: str, table: str
) -> None:
    airflow_db.rows(
        "create table if not exists log (id serial, dttm timestamptz, event text, owner text, extra text, dag_id text, task_id text)"
    )
    airflow_db.add_running()
    with airflow_db.transaction() as airflow:
        airflow.execute("update task_instance set pid = 1")
        airflow_db.set_run("failed")
    done = threading.Event()

    def beat() -> None:
        rows(listener_url, CALLS["heartbeat"].format(host="w2"))
        rows(listener_url, "select * from dagstop.open_orders('w2')")
        rows(listener_url, CALLS["write_report"].format(host="w2"))
        rows(listener_url, "call dagstop.do_chores()")
        done.set()

    with airflow_db.transaction() as migration:
        migration.execute(f"alter table {table} add column of_tomorrow integer")
        threading.Thread(target=beat, daemon=True).start()
        assert done.wait(30)  # it would last until this block ends
    airflow_db.beat("w2")
    assert airflow_db.states() == {"a": "failed"}

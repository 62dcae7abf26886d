"""Whatever is typed, in whatever order: after each commit what dagstop promises of the database holds.

The model below is the oracle: what each row says, by the rules of the README alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.airflow_tables import SHAPES, AirflowDatabase
from tests.support.marks import one_server
from tests.testbed.postgres import Server, connect

RUNS = ("r0", "r1", "r2")
FINAL = {"success", "failed", "skipped", "upstream_failed", "removed"}
run_states = st.sampled_from(["failed"] * 3 + ["running", "queued", "success"])
task_states = st.sampled_from(
    [
        "failed",
        "failed",
        "up_for_retry",
        "running",
        "queued",
        "scheduled",
        "success",
        None,
        "skipped",
        "restarting",
    ]
)
some_runs = st.sets(st.sampled_from(RUNS), min_size=1).map(sorted)
some_tasks = st.sets(st.sampled_from([f"{run}.{n}" for run in RUNS for n in range(2)]), min_size=1).map(
    sorted
)
# with `replica` no trigger fires, by Postgres's own rule: a replication or a restore is at work
ways = st.sampled_from(["typed"] * 4 + ["replica"])
statements = (
    st.tuples(st.just("dag_run"), some_runs, run_states, ways)
    | st.tuples(st.just("task_instance"), some_tasks, task_states, ways)
    | st.tuples(st.sampled_from(["copied out and in"]), st.just([]), st.none(), st.just("typed"))
)
parts = st.tuples(
    st.sampled_from(["kept", "kept", "rolled back"]), st.lists(statements, min_size=1, max_size=3)
)
transactions = st.tuples(
    st.sampled_from(["commit", "commit", "commit", "fails later"]), st.lists(parts, min_size=1, max_size=3)
)


@pytest.fixture(scope="module", params=SHAPES)
def db(server: Server, request: pytest.FixtureRequest) -> Iterator[AirflowDatabase]:
    """One database for all examples: each begins by emptying it."""
    shape = str(request.param)
    url = server.create_database(template=f"full_{shape}")
    database = AirflowDatabase(url, shape)
    yield database
    server.drop_database(url)


def changed(cursor: Any, table: str, names: list[str], state: str | None) -> list[tuple[str, str | None]]:
    """The rows that a statement is about to turn, as (name, state before)."""
    column = "run_id" if table == "dag_run" else "task_id"
    cursor.execute(f"select {column}, state from {table} where {column} = any (%s) and state is distinct from %s",
                   (names, state))  # fmt: skip
    return list(cursor.fetchall())


def restore(cursor: Any) -> None:
    """Both tables, as pg_dump and pg_restore would bring them back."""
    saved = {table: io.StringIO() for table in ("dag_run", "task_instance")}
    for table, text in saved.items():
        cursor.copy_expert(f"copy {table} to stdout", text)
    cursor.execute("delete from task_instance; delete from dag_run")
    for table, text in saved.items():
        text.seek(0)
        cursor.copy_expert(f"copy {table} from stdin", text)


def unfinished(cursor: Any) -> dict[str, str | None]:
    """The task instances that are not finished, with their states."""
    cursor.execute("select task_id, state from task_instance")
    return {task: state for task, state in cursor.fetchall() if state not in FINAL}


def perform(cursor: Any, part: list[tuple[str, list[str], str | None, str]]) -> list[tuple[str, str]]:
    """Type the statements; the (kind, name) of the orders that they are the cause of."""
    causes = []
    for table, names, state, way in part:
        before = unfinished(cursor)
        if table == "copied out and in":
            restore(cursor)
            assert unfinished(cursor) == before
            continue
        turned = changed(cursor, table, names, state)
        column = "run_id" if table == "dag_run" else "task_id"
        if way == "replica":
            cursor.execute("set session_replication_role = replica")
        cursor.execute(f"update {table} set state = %s where {column} = any (%s)", (state, names))
        assert cursor.rowcount == len(names)  # SQLAlchemy counts
        if way == "replica":
            cursor.execute("set session_replication_role = origin")
            assert table != "dag_run" or unfinished(cursor) == before
        elif state == "failed":
            causes += [(table, name) for name, _ in turned]
            if table == "dag_run" and turned:
                failed = tuple(f"{name}." for name, _ in turned)
                assert {task for task in unfinished(cursor) if task.startswith(failed)} == set()
    return causes


def stop_what_is_left(cursor: Any) -> None:
    """`check` names every failed run of which a task runs, however it came to that; `stop` leaves nothing of it."""
    cursor.execute("select run_id from dag_run where state = 'failed'")
    failed = {run for (run,) in cursor.fetchall()}
    left = unfinished(cursor)
    cursor.execute("select run_id, tasks from dagstop.running_in_failed_runs()")
    running = [task.partition(".")[0] for task, state in left.items() if state == "running"]
    assert dict(cursor.fetchall()) == {run: running.count(run) for run in failed & set(running)}
    for run in sorted(failed):
        cursor.execute("select dagstop.stop_again('dag', %s)", (run,))
    assert {task.partition(".")[0] for task in unfinished(cursor)} & failed == set()
    assert {t: s for t, s in left.items() if t.partition(".")[0] not in failed} == unfinished(cursor)


@one_server
@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(transactions, min_size=1, max_size=3))
def test_every_cause_has_its_order_and_every_order_its_cause(db: AirflowDatabase, history: list[Any]) -> None:
    db.begin_again(RUNS)
    causes: list[tuple[str, str]] = []
    with connect(db.url) as connection, connection.cursor() as cursor:
        for end, transaction in history:
            cursor.execute("begin")
            under_way: list[tuple[str, str]] = []
            for fate, part in transaction:
                cursor.execute("savepoint s")
                made = perform(cursor, part)
                if fate == "kept":
                    under_way += made
                else:
                    cursor.execute("rollback to savepoint s")
            cursor.execute("commit" if end == "commit" else "rollback")
            causes += under_way if end == "commit" else []
            orders = db.rows(
                "select case kind when 'run' then 'dag_run' else 'task_instance' end, coalesce(task_id, run_id)"
                " from dagstop.stop_order"
            )
            assert sorted(orders) == sorted(causes)
            assert db.one("select count(*) from dagstop.stop_order where not cascaded") == 0
            assert (
                db.rows(
                    "select order_id from dagstop.stop_target where order_id not in (select id from dagstop.stop_order)"
                )
                == []
            )
            assert db.faults() == []
        stop_what_is_left(cursor)


@one_server
def test_an_upsert_is_an_update(db: AirflowDatabase) -> None:
    db.begin_again(RUNS)
    columns = ", ".join(name for (name,) in db.rows(
        "select attname from pg_attribute where attrelid = 'dag_run'::regclass and attnum > 0 and attname <> 'id'"
    ))  # fmt: skip
    db.rows(
        f"insert into dag_run ({columns}) select {columns} from dag_run where run_id = 'r0'"
        f" on conflict (dag_id, {'run_id' if not db.by_date else 'execution_date'}) do update set state = 'failed'"
    )
    assert db.one("select kind, run_id from dagstop.stop_order") == ("run", "r0")
    assert db.states()["r0.0"] == "failed"


@one_server
def test_rows_that_come_back_as_failed_are_no_order(db: AirflowDatabase) -> None:
    """A restore (COPY) tells what once was: nobody fails a run now, and nothing may die for it."""
    db.begin_again(RUNS)
    db.rows("set session_replication_role = replica; update dag_run set state = 'failed' where run_id = 'r0'")
    assert db.states()["r0.0"] == "running"
    with connect(db.url) as connection, connection.cursor() as cursor:
        restore(cursor)
    assert len(db.states()) == 6
    assert db.one("select count(*) from dagstop.stop_order") == 0
    assert db.faults() == []

"""Whatever a session has set (Airflow's, a listener's, an installer's), dagstop does the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from psycopg2.extras import Json

from dagstop.database.connection import connect, query
from dagstop.install import heal, install, install_script, uninstall
from tests.releases import OPEN_RUN, RELEASES, restore
from tests.support.airflow_tables import FIRST_DATE, AirflowDatabase
from tests.support.marks import one_server
from tests.testbed.postgres import Server

SETTINGS = {
    "how text is read": {
        "standard_conforming_strings": "off", "backslash_quote": "off", "escape_string_warning": "on",
        "array_nulls": "off", "transform_null_equals": "on", "xmloption": "document",
        "check_function_bodies": "off",
    },
    "how values are written": {
        "DateStyle": "'SQL, DMY'", "TimeZone": "'Asia/Kathmandu'", "IntervalStyle": "sql_standard",
        "extra_float_digits": "-15", "bytea_output": "escape", "quote_all_identifiers": "on",
        "lc_messages": "'C'",
    },
    "how it is planned": {
        "plan_cache_mode": "force_generic_plan", "jit": "on", "jit_above_cost": "0", "enable_seqscan": "off",
        "from_collapse_limit": "1", "work_mem": "'64kB'",
    },
    "planned at each call": {"plan_cache_mode": "force_custom_plan", "enable_indexscan": "off"},
    "how it runs": {
        "default_transaction_isolation": "serializable", "default_transaction_deferrable": "on",
        "row_security": "off", "search_path": "''", "synchronous_commit": "off",
    },
    "how long it may run": {
        "statement_timeout": "'20s'", "lock_timeout": "'10s'", "idle_in_transaction_session_timeout": "'20s'",
    },
}  # fmt: skip
STATUSES = "select distinct status from dagstop.trigger_health()"


@pytest.fixture(params=SETTINGS)
def hostile(server: Server, airflow_db: AirflowDatabase, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A database in which each new session has these; a function that does that for another one."""

    def make_hostile(db: AirflowDatabase) -> None:
        name = db.url.rsplit("/", 1)[1]
        for setting, value in SETTINGS[request.param].items():
            db.rows(f"alter database {name} set {setting} = {value}")

    make_hostile(airflow_db)
    yield make_hostile


def typed(server: Server, db: AirflowDatabase, statement: str) -> None:
    """In psql: psycopg2 would set the DateStyle that it needs."""
    server.psql(db.url, statement)


def fail(server: Server, db: AirflowDatabase, run: str) -> None:
    typed(server, db, f"update public.dag_run set state = 'failed' where run_id = '{run}'")
    assert db.rows("select place, message from dagstop.fault") == []


def states(db: AirflowDatabase, run: str) -> set[Any]:
    return set(
        db.rows("select distinct state from public.task_instance where task_id like %s", (f"{run}.%",))
    )


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The helpers of the tests name Airflow's tables without their schema."""
    for name in ("add_run", "add_task"):
        monkeypatch.setattr(AirflowDatabase, name, _with_path(getattr(AirflowDatabase, name)))


def _with_path(method: Any) -> Any:
    def inserted(self: AirflowDatabase, *args: Any, **more: Any) -> None:
        plain = AirflowDatabase(self.url + "?options=-csearch_path%3Dpublic", self.shape)
        method(plain, *args, **more)

    return inserted


@one_server
def test_cascade_fence_orders_reports_and_heartbeat(
    server: Server, airflow_db: AirflowDatabase, hostile: Any, path: None
) -> None:
    db = airflow_db
    db.add_running("run", ("run.a", "run.b"))
    db.add_running("again", ("again.a",), 1)
    later = FIRST_DATE + timedelta(days=2)
    db.add_run("p_d\\x", "kept", date=later)
    db.add_task("kept.a", dag_id="p_d\\x", run_id="kept", date=later)
    db.rows("update dagstop.setting set value = E'p_?\\\\*' where name = 'protected'")
    fail(server, db, "run")
    assert states(db, "run") == {("failed",)}

    # protected by a pattern with a backslash in it
    fail(server, db, "kept")
    assert states(db, "kept") == {("running",)}
    assert db.one("select hands_off from dagstop.stop_order where run_id = 'kept'") == "protected DAG"

    # what the dying processes write
    typed(server, db, "update public.task_instance set state = 'up_for_retry' where task_id = 'run.a'")
    typed(
        server, db,
        "update public.task_instance set state = 'success', end_date = end_date + interval '1 millisecond',"
        " duration = duration + 0.001 where task_id = 'run.b'",
    )  # fmt: skip
    late_success_is_known = not db.has_uuid
    assert db.rows("select place, message from dagstop.fault") == []
    wanted = {("failed",)} if late_success_is_known else {("failed",), ("success",)}
    assert states(db, "run") == wanted

    # a task alone, and a run that another session has
    typed(server, db, "update public.task_instance set state = 'failed' where task_id = 'again.a'")
    assert db.one("select kind, logical_date is not null from dagstop.stop_order where task_id = 'again.a'") == (
        "task", True,
    )  # fmt: skip

    with contextlib.closing(connect(db.url, "test")) as connection:
        orders = query(connection, "open_orders", host="host", ids=None, max_orders=100)
        assert [order["kind"] for order in orders] == ["run", "run", "task"]
        assert all(order["present"] for order in orders)
        for order in orders:
            query(connection, "write_report", order_id=order["id"], host="host", outcome="stopped",
                  first_signal_at=None, last_death_at=order["created_at"], detail=Json({}))  # fmt: skip
        query(connection, "running_in_failed_runs")
        query(connection, "task_hosts")
        query(
            connection,
            "task_states",
            ti_ids=None,
            keys=Json([{"dag_id": "dag", "run_id": "run", "task_id": "run.a"}]),
        )
        assert query(connection, "would_be_order", dag_id="dag", run_id="again", task_id=None)[0]["targets"]
    assert db.beat("host")[0][:2] == (True, 0)
    assert db.rows("select place, message from dagstop.fault") == []


@one_server
def test_a_heartbeat_completes_what_was_left(
    server: Server, airflow_db: AirflowDatabase, hostile: Any, path: None
) -> None:
    airflow_db.add_running("run", ("run.a",))
    with airflow_db.transaction() as cursor:
        cursor.execute("update public.task_instance set pid = 1")
        typed(server, airflow_db, "update public.dag_run set state = 'failed'")
    assert states(airflow_db, "run") == {("running",)}
    airflow_db.beat("host")
    assert {place for place, _ in airflow_db.faults()} == {"cascade_statement"}  # it gave way
    assert states(airflow_db, "run") == {("failed",)}


@one_server
def test_install_heal_upgrade_and_uninstall(
    server: Server, airflow_db: AirflowDatabase, hostile: Any, path: None
) -> None:
    url = airflow_db.url + "?options=-csearch_path%3Dpublic"
    assert not install(url).changed
    airflow_db.rows("alter table public.dag_run disable trigger dagstop_order")
    assert heal(url).changed
    assert airflow_db.rows(STATUSES) == [("installed",)]
    assert uninstall(url) and airflow_db.one("select to_regnamespace('dagstop')") is None
    assert install(url).changed
    assert airflow_db.rows(STATUSES) == [("installed",)]
    airflow_db.add_running("run", ("run.a",))
    fail(server, airflow_db, "run")
    assert states(airflow_db, "run") == {("failed",)}


@one_server
@pytest.mark.parametrize("release", RELEASES)
def test_an_upgrade_by_script(
    server: Server, shape: str, airflow_db: AirflowDatabase, hostile: Any, path: None, release: str
) -> None:
    old = restore(server, release, shape)
    try:
        hostile(old)
        server.psql(old.url, "set search_path = public;\n" + install_script())
        assert old.rows(STATUSES) == [("installed",)]
        assert old.rows("select from dagstop.stop_order where run_id = %s", (OPEN_RUN,)) is not None
        assert not install(old.url + "?options=-csearch_path%3Dpublic").changed
    finally:
        server.drop_database(old.url)

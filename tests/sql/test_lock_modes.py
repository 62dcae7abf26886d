"""Which tables are locked with Airflow's statements, and never so that another session could not write them."""

from __future__ import annotations

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import one_server
from tests.support.settings import set_setting

pytestmark = one_server
LOCKS = """
    select c.relname::text, l.mode from pg_locks l
    join pg_class c on c.oid = l.relation
    join pg_namespace n on n.oid = c.relnamespace
    where l.pid = pg_backend_pid() and c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema')
"""
LETS_OTHERS_WRITE = {"AccessShareLock", "RowShareLock", "RowExclusiveLock"}
READS = {"AccessShareLock", "RowShareLock"}


@pytest.mark.parametrize(
    "statement",
    [
        "update dag_run set state = 'failed'",
        "update task_instance set state = 'failed' where task_id = 'a'",
        "update task_instance set state = null where task_id = 'stopped'",
        "update task_instance set state = 'up_for_retry' where task_id = 'stopped'",
        "update task_instance set state = 'skipped' where task_id = 'a'",
        "delete from task_instance where task_id = 'a'",
        "delete from dag_run",
    ],
)
def test_other_sessions_can_write_meanwhile(airflow_db: AirflowDatabase, statement: str) -> None:
    set_setting(airflow_db, "also_stop_on", "deleted,skipped")
    airflow_db.add_running(tasks=("a", "b", "stopped"))
    airflow_db.set_task("stopped", "failed")
    before = airflow_db.one("select count(*) from dagstop.stop_order")
    with airflow_db.transaction() as session:
        session.execute(statement)
        session.execute(LOCKS)
        held: dict[str, set[str]] = {}
        for table, mode in session.fetchall():
            held.setdefault(table, set()).add(mode)
    assert {"stop_order", "setting"} <= held.keys()
    assert not set().union(*held.values()) - LETS_OTHERS_WRITE
    assert held["setting"] <= READS
    assert airflow_db.faults() == []
    if "stopped" not in statement:
        assert airflow_db.one("select count(*) from dagstop.stop_order") > before


def test_a_run_that_does_not_fail_touches_no_table_of_ours(airflow_db: AirflowDatabase) -> None:
    """Schedulers set the state of runs all the time."""
    airflow_db.add_running()
    with airflow_db.transaction() as session:
        for state in ("queued", "running", "success"):
            session.execute("update dag_run set state = %s", (state,))
        session.execute(LOCKS)
        assert {table for table, _ in session.fetchall()} == {"dag_run"}


@pytest.mark.parametrize("shape", ["2.11.2", "3.3.2"], indirect=True)
def test_other_sessions_can_write_while_a_run_is_put_back(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running()
    airflow_db.rows("update dag_run set last_scheduling_decision = now()")
    airflow_db.set_run("failed")
    with airflow_db.transaction() as session:
        session.execute(
            "update dag_run set state = 'running', last_scheduling_decision = '2024-01-01 00:00:00Z'"
        )
        session.execute(LOCKS)
        held = session.fetchall()
    assert {"stop_order", "setting", "refused_write"} <= {table for table, _ in held}
    assert {mode for _, mode in held} <= LETS_OTHERS_WRITE
    assert {mode for table, mode in held if table == "setting"} <= READS
    assert airflow_db.one("select state from dag_run") == "failed"


def test_chores_and_readers_let_others_write_too(airflow_db: AirflowDatabase) -> None:
    airflow_db.add_running(tasks=("a",))
    with airflow_db.transaction() as session:
        session.execute("update dag_run set state = 'failed'")
        session.execute("update dagstop.stop_order set cascaded = false")
        session.execute("delete from dagstop.stop_target")
        session.execute("update task_instance set state = null")
        session.execute("select dagstop.complete_orders(array(select id from dagstop.stop_order), airflow_schema)"
                        " from dagstop.stop_order")  # fmt: skip
        session.execute("select count(*) from dagstop.open_orders('host')")
        session.execute("select dagstop.put_back_left(), dagstop.write_unwritten()")
        session.execute(LOCKS)
        modes = {mode for _, mode in session.fetchall()}
    assert modes <= LETS_OTHERS_WRITE
    assert airflow_db.states() == {"a": "failed"}


def test_what_is_written_late_or_after_an_error_lets_others_write_too(airflow_db: AirflowDatabase) -> None:
    """A run, a task and a late write that were lost while a DBA built an index; then a cascade that meets an error."""
    airflow_db.add_running(tasks=("a",))
    airflow_db.add_running("run2", ("b", "c"), 1)
    airflow_db.add_running("run3", ("d",), 2)
    airflow_db.set_task("c", "failed")
    with airflow_db.transaction() as dba:
        dba.execute("lock table dagstop.stop_order in access exclusive mode")
        airflow_db.rows(
            "set dagstop.waits_since = '0'; update dag_run set state = 'failed' where run_id = 'run';"
            " update task_instance set state = 'failed' where task_id = 'b';"
            " update task_instance set state = 'up_for_retry' where task_id = 'c'"
        )
    assert airflow_db.one("select count(*) from dagstop.unwritten_order where id > 0") == 3
    with airflow_db.transaction() as session:
        session.execute("select dagstop.write_unwritten()")
        session.execute(LOCKS)
        assert {mode for _, mode in session.fetchall()} <= LETS_OTHERS_WRITE
    airflow_db.rows("alter table dagstop.stop_target rename column hostname to gone")
    with airflow_db.transaction() as session:
        session.execute("update dag_run set state = 'failed' where run_id = 'run3'")
        session.execute(LOCKS)
        assert {mode for _, mode in session.fetchall()} <= LETS_OTHERS_WRITE
    assert any(place == "cascade_statement" and "hostname" in said for place, said in airflow_db.faults())

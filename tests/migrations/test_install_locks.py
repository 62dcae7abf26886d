"""What an install locks of Airflow's tables, and when: docs/dba.md has it as a table."""

from __future__ import annotations

from typing import Any

from dagstop import sql
from dagstop.install import head
from tests.support.airflow_tables import AirflowDatabase

HELD = """
select c.relname::text, l.mode from pg_locks l join pg_class c on c.oid = l.relation
where l.pid = pg_backend_pid() and c.relname in ('dag_run', 'task_instance') and c.relkind = 'r'
"""
FIRST, TRIGGERS, SEEN = "AccessExclusiveLock", "ShareRowExclusiveLock", "AccessShareLock"


def test_an_install_locks_airflows_tables_once_and_as_strongly_as_it_ever_will(
    bare_db: AirflowDatabase,
) -> None:
    held = _steps(bare_db, (sql.PIN_FILE, sql.REFUSE_FILE, *sql.INSTALL_FILES))
    assert held[sql.REFUSE_FILE] == set()
    assert held["02_lock"] == {("dag_run", FIRST), ("task_instance", FIRST)}
    assert held[sql.INSTALL_FILES[-1]] - held["02_lock"] == {
        (table, mode) for table in ("dag_run", "task_instance") for mode in (TRIGGERS, SEEN)
    }
    only_its_triggers_need_more = [
        name for name, locks in held.items() if any(mode == TRIGGERS for _, mode in locks)
    ]
    assert only_its_triggers_need_more[0] == sql.TRIGGERS_FILE


def test_an_uninstall_locks_the_same(airflow_db: AirflowDatabase) -> None:
    held = _steps(airflow_db, (sql.PIN_FILE, *sql.UNINSTALL_FILES))
    assert held[sql.PIN_FILE] == set()
    assert held["02_lock"] == {("dag_run", FIRST), ("task_instance", FIRST)}
    assert {mode for _, mode in held[sql.UNINSTALL_FILES[-1]]} <= {FIRST, SEEN}


def _steps(database: AirflowDatabase, names: tuple[str, ...]) -> dict[str, set[Any]]:
    """The locks held after each file, in one transaction."""
    held: dict[str, set[Any]] = {}
    with database.transaction() as cursor:
        for name in names:
            cursor.execute(sql.script(name, revision=head(), published="off", cascade="restrict"))
            cursor.execute(HELD)
            held[name] = set(cursor.fetchall())
    return held

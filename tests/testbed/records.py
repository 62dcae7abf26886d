"""The rows that an Airflow keeps in its database, and the one UPDATE that people type."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg2
import psycopg2.extras

from tests.testbed import environment

_TASKS_BY_DATE = """
SELECT ti.*, dr.state AS run_state FROM task_instance ti
JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.execution_date = ti.execution_date
WHERE dr.run_id = %s ORDER BY ti.dag_id, ti.task_id
"""
_TASKS = """
SELECT ti.*, dr.state AS run_state FROM task_instance ti
JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id
WHERE dr.run_id = %s ORDER BY ti.dag_id, ti.task_id, ti.map_index
"""


class AirflowFailed(RuntimeError):
    """The Airflow does not run as it should."""


class Records:
    """The database at `database_url` of an Airflow of `generation` 1 (1.10), 2 or 3.

    by_date: a task instance names its run by the execution date (1.10, and 2.x before 2.2).
    """

    def __init__(self, generation: int, database_url: str, *, by_date: bool | None = None) -> None:
        self.generation = generation
        self.by_date = generation == 1 if by_date is None else by_date
        self.database_url = database_url

    def fail_run_by_sql(self, dag_id: str, run_id: str) -> float:
        """UPDATE dag_run, nothing else; gives time.monotonic() from just before the commit."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "UPDATE dag_run SET state = 'failed' WHERE dag_id = %s AND run_id = %s",
                (dag_id, run_id),
            )
            if cursor.rowcount != 1:
                raise AirflowFailed(f"no run {dag_id} {run_id}")
            before = time.monotonic()
            connection.commit()
        return before

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """The row of dag_run."""
        sql = "SELECT * FROM dag_run WHERE dag_id = %s AND run_id = %s"
        rows = self.query(sql, (dag_id, run_id))
        if not rows:
            raise AirflowFailed(f"no run {dag_id} {run_id}")
        return rows[0]

    def task_rows(self, run_id: str) -> list[dict[str, Any]]:
        """The rows of task_instance of the runs so named, with `run_state`."""
        return self.query(_TASKS_BY_DATE if self.by_date else _TASKS, (run_id,))

    def task_states(self, run_id: str) -> dict[str, str | None]:
        """State by task id (`task[3]` where mapped) of the run named `run_id`."""
        states = {}
        for row in self.task_rows(run_id):
            index = row.get("map_index", -1)
            states[row["task_id"] + (f"[{index}]" if index >= 0 else "")] = row["state"]
        return states

    def date(self, dag_id: str, run_id: str) -> dt.datetime:
        """The run's execution date (3.x: logical date), in UTC."""
        column = "logical_date" if self.generation == 3 else "execution_date"
        date: dt.datetime = self.run(dag_id, run_id)[column]
        return date.astimezone(dt.timezone.utc)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        """A psycopg2 connection, closed afterwards."""
        connection = psycopg2.connect(environment.libpq_url(self.database_url), application_name="psql")
        try:
            yield connection
        finally:
            connection.close()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """One statement, committed; how many rows it touched."""
        with self.connect() as connection:
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters or None)
                touched = int(cursor.rowcount)
            connection.commit()
        return touched

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows of one SELECT."""
        with self.connect() as connection:
            with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
                cursor.execute(sql, parameters or None)
                return [dict(row) for row in cursor.fetchall()]

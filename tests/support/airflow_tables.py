"""Databases with Airflow's tables in the shapes of three releases, and rows to put into them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from tests.testbed.postgres import connect, rows

SHAPES = ("1.10.0", "2.11.2", "3.3.2")
FIRST_DATE = datetime(2024, 1, 1, tzinfo=timezone.utc)
NO_PROCESS = 4194305
"""A pid that no process has: Linux gives those below 4194304."""
_LOG_COLUMNS = {
    "1.10.0": "event varchar(30), execution_date timestamptz",
    "2.11.2": "event varchar(60), execution_date timestamptz, run_id varchar(250), map_index integer,"
    " owner_display_name varchar(500), try_number integer",
    "3.3.2": "event varchar(60) not null, logical_date timestamptz, run_id varchar(250), map_index integer,"
    " owner_display_name varchar(500), try_number integer",
}


def schema_sql(shape: str) -> str:
    """Our own DDL for Airflow's tables, as that release creates them."""
    return (Path(__file__).parent / "airflow_schemas" / f"{shape}.sql").read_text()


class AirflowDatabase:
    """A database of one shape; every call is a session of its own."""

    def __init__(self, url: str, shape: str) -> None:
        self.url = url
        self.shape = shape
        self.by_date = shape.startswith("1.")
        self.has_uuid = shape.startswith("3.")
        self.date_column = "logical_date" if self.has_uuid else "execution_date"

    def rows(self, query: str, arguments: Any = None) -> list[tuple[Any, ...]]:
        """Run one statement; its rows, if it has any."""
        return rows(self.url, query, arguments)

    def one(self, query: str, arguments: Any = None) -> Any:
        """The only row of a query, or its only value."""
        (row,) = self.rows(query, arguments)
        return row[0] if len(row) == 1 else row

    def wait_until(self, query: str, timeout: float = 20.0) -> None:
        """Return once the only value of a query is true; no row counts as false."""
        end = time.monotonic() + timeout
        while not (found := self.rows(query)) or not found[0][0]:
            assert time.monotonic() < end, f"not so after {timeout} s: {query}"
            time.sleep(0.01)

    def connect(self, **parameters: Any) -> Any:
        """An autocommit connection, as a context manager."""
        return connect(self.url, **parameters)

    def user_url(self, user: str) -> str:
        """The same database for another role."""
        return self.url.replace("//postgres@", f"//{user}@")

    def add_run(
        self, dag_id: str = "dag", run_id: str = "run", state: str | None = "running",
        date: datetime | None = FIRST_DATE,
    ) -> None:  # fmt: skip
        """Insert a dag_run."""
        values: dict[str, Any] = {"dag_id": dag_id, "run_id": run_id, "state": state,
                                  self.date_column: date, "start_date": FIRST_DATE}  # fmt: skip
        if not self.by_date:
            values["run_type"] = "manual"
        if self.has_uuid:
            values["run_after"] = FIRST_DATE
        self._insert("dag_run", values)

    def add_runs(self, count: int) -> None:
        """`run0000`, `run0001`, ... an hour apart, without tasks, in one statement."""
        columns, values = ", run_type", ", 'manual'"
        if self.by_date:
            columns, values = ", external_trigger", ", false"
        if self.has_uuid:
            columns, values = ", run_type, run_after", ", 'manual', now()"
        self.rows(
            f"insert into dag_run (dag_id, run_id, {self.date_column}, state{columns})"
            f" select 'dag', 'run' || to_char(n, 'FM0000'), %s + n * interval '1 hour', 'running'{values}"
            " from generate_series(0, %s - 1) n",
            (FIRST_DATE, count),
        )

    def add_task(
        self, task_id: str, state: str | None = "running", dag_id: str = "dag", run_id: str = "run",
        map_index: int = -1, date: datetime = FIRST_DATE, **more: Any,
    ) -> None:  # fmt: skip
        """Insert a task_instance; `more` are its other columns."""
        values: dict[str, Any] = {"dag_id": dag_id, "task_id": task_id, "state": state,
                                  "pool": "default_pool", "try_number": 1, **more}  # fmt: skip
        if self.by_date:
            values["execution_date"] = date
        else:
            values |= {"run_id": run_id, "map_index": map_index, "pool_slots": 1}
        if self.has_uuid:
            values.setdefault("id", str(uuid.uuid4()))
            values.pop("job_id", None)
        self._insert("task_instance", values)

    def add_running(self, run_id: str = "run", tasks: Sequence[str] = ("a",), number: int = 0) -> None:
        """A running run whose tasks all run, with what Airflow records of a process."""
        date = FIRST_DATE + timedelta(days=number)
        self.add_run(run_id=run_id, date=date)
        for task in tasks:
            self.add_task(
                task, run_id=run_id, date=date, pid=NO_PROCESS, hostname="worker", job_id=7,
                operator="BashOperator", start_date=datetime.now(timezone.utc) - timedelta(hours=1),
            )  # fmt: skip

    def begin_again(self, runs: Sequence[str]) -> None:
        """Nothing but these runs, each with two running tasks, and nothing that dagstop wrote before."""
        self.rows(
            "truncate dag_run, task_instance, dagstop.stop_order, dagstop.stop_target, dagstop.refused_write,"
            " dagstop.fault, dagstop.report, dagstop.unwritten_order cascade"
        )
        for number, run in enumerate(runs):
            self.add_running(run, (f"{run}.0", f"{run}.1"), number)

    def add_log_table(self) -> None:
        """Create Airflow's audit log, which a shape lacks."""
        self.rows(
            "create table log (id serial primary key, dttm timestamptz, dag_id varchar(250),"
            f" task_id varchar(250), owner varchar(500), extra text, {_LOG_COLUMNS[self.shape]})"
        )

    def beat(self, host: str = "host") -> list[tuple[Any, ...]]:
        """Do what a listener does every ten seconds, heartbeat and chores; the heartbeat's answer."""
        beat = "select * from dagstop.heartbeat(%s, gen_random_uuid(), '1', '{}')"
        self.rows(beat, (host,))
        self.rows("call dagstop.do_chores()")
        return self.rows(beat, (host,))

    def set_run(self, state: str, run_id: str = "run") -> None:
        """Set the state of a run, as a person does by SQL."""
        self.rows("update dag_run set state = %s where run_id = %s", (state, run_id))

    def set_task(self, task_id: str, state: str | None) -> None:
        """Set the state of the task instances of that name, as a person does by SQL."""
        self.rows("update task_instance set state = %s where task_id = %s", (state, task_id))

    def states(self) -> dict[str, str | None]:
        """The state of each task instance, by task_id."""
        return dict(self.rows("select task_id, state from task_instance"))

    def faults(self) -> list[tuple[Any, ...]]:
        """(place, message) of every recorded fault."""
        return self.rows("select place, message from dagstop.fault order by id")

    @contextmanager
    def transaction(self) -> Any:
        """A cursor in one transaction, committed at the end."""
        with connect(self.url) as connection:
            connection.autocommit = False
            with connection.cursor() as cursor:
                yield cursor
            connection.commit()

    def _insert(self, table: str, values: dict[str, Any]) -> None:
        places = ", ".join(["%s"] * len(values))
        self.rows(f"insert into {table} ({', '.join(values)}) values ({places})", list(values.values()))

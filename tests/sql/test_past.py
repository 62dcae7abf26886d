"""No statement of Airflow's, and nothing that a listener or the page asks, reads more because dagstop has a past."""

from __future__ import annotations

from typing import Any

import pytest

from dagstop import sql
from dagstop.lab.postgres import connect
from tests.support.airflow_tables import AirflowDatabase
from tests.support.past import TABLES, Reader, fill

PAST = 20000
ROWS = 30
# what is open and young is no past: there is something to do, or to show
TODAY = {"sweep", "doorbell", "heartbeat", "status", "page open"}


@pytest.fixture
def db(airflow_db: AirflowDatabase) -> AirflowDatabase:
    airflow_db.rows("update dagstop.setting set value = 'deleted' where name = 'also_stop_on'")
    return airflow_db


def airflow(db: AirflowDatabase, reader: Reader, first: int, count: int) -> None:
    """What Airflow does, each in one statement, with runs of numbers that nobody had before."""
    many = f"{count} rows: "
    name = f"now{first:06}-"
    date = f"timestamptz '2024-01-01' + {first} * interval '1 hour' + n * interval '1 hour'"
    columns, values = (", run_type", ", 'manual'") if not db.by_date else (", external_trigger", ", false")
    if db.has_uuid:
        columns, values = columns + ", run_after", values + ", now()"
    reader(
        f"{many}insert runs",
        f"insert into dag_run (dag_id, run_id, {db.date_column}, state{columns})"
        f" select 'dag', '{name}' || n, {date}, 'running'{values} from generate_series(1, {count}) n",
    )
    if db.by_date:
        columns, values = "execution_date", date
    else:
        columns, values = "run_id, map_index, pool_slots", f"'{name}' || n, -1, 1"
    if db.has_uuid:
        columns, values = columns + ", id", values + ", gen_random_uuid()"
    reader(
        f"{many}insert task instances",
        f"insert into task_instance (dag_id, task_id, state, pool, try_number, pid, hostname, start_date, {columns})"
        f" select 'dag', '{name}t' || n, 'running', 'default_pool', 1, 4321, 'worker', now(), {values}"
        f" from generate_series(1, {count}) n",
    )
    task = "update task_instance set state = {} where task_id like %s"
    run = "update dag_run set state = {} where run_id like %s"
    like = (f"{name}%",)
    reader(f"{many}heartbeat", "update dag_run set end_date = end_date where run_id like %s", like)
    reader(f"{many}fail runs", run.format("'failed'"), like)
    reader(f"{many}retry", task.format("'up_for_retry'"), like)
    reader(f"{many}clear", task.format("null"), like)
    reader(f"{many}clear runs", run.format("'queued'"), like)
    reader(f"{many}run again", task.format("'running'"), like)
    reader(f"{many}fail tasks", task.format("'failed', end_date = now()"), like)
    reader(f"{many}clear tasks", task.format("null"), like)
    reader(f"{many}run once more", task.format("'running'"), like)
    reader(f"{many}delete task instances", "delete from task_instance where task_id like %s", like)
    reader(f"{many}delete runs", "delete from dag_run where run_id like %s", like)


def listener(reader: Reader, orders: list[int]) -> None:
    """What a listener and the commands ask."""
    asked = sql.queries()
    beat = {
        "host": "host",
        "listener_id": "8d8ac610-566d-4ef0-9c22-186b2a5ed793",
        "version": "1",
        "detail": "{}",
    }
    which: dict[str, Any] = {"host": "host", "ids": None, "max_orders": 2000}
    reader("first sweep", asked["open_orders"], which)  # the one after a start looks through all of a day
    reader("heartbeat", asked["heartbeat"], beat)
    reader("heartbeat", asked["heartbeat"], beat)
    reader("first sweep", asked["open_orders"], which)
    del reader.read["first sweep"]
    reader("sweep", asked["open_orders"], which)
    reader("doorbell", asked["rung_orders"], which)
    reader("orders by number", asked["open_orders"], {**which, "ids": orders[-3:]})
    report = {
        "order_id": orders[-1],
        "host": "host",
        "first_signal_at": None,
        "last_death_at": None,
        "detail": "{}",
    }
    reader("report begun", asked["write_report"], {**report, "outcome": None})
    reader("report", asked["write_report"], {**report, "outcome": "stopped"})
    reader("status", asked["status"], {"limit": 50})
    reader("history", asked["history"], {"limit": 20, "dag_id": None, "run_id": None})
    reader("history of a run", asked["history"], {"limit": 20, "dag_id": "dag", "run_id": "now"})
    reader("orders of a run", asked["orders_of"], {"dag_id": "dag", "run_id": "now", "task_id": None})
    reader("orders of a task", asked["orders_of"], {"dag_id": "dag", "run_id": "now", "task_id": "a"})
    reader("progress", asked["progress"], {"ids": orders[-1:]})
    reader("retire", asked["retire"], beat)


def page(reader: Reader, orders: list[int]) -> None:
    asked = sql.queries("page")
    shown = {"before": None, "words": "", "only": "", "limit": 20}
    reader("page orders", asked["page_orders"], shown)
    reader("page open", asked["page_open"])
    for name in ("page_order", "page_reports", "page_targets", "page_refused"):
        reader(name, asked[name], {"id": orders[-1]})


def present(db: AirflowDatabase, count: int) -> list[int]:
    """The newest orders, the same in each world, and all others of this world: done, with reports."""
    db.rows(
        "insert into dagstop.report (order_id, host, outcome) select o.id, h, 'stopped'"
        " from dagstop.stop_order o, unnest('{host,other}'::text[]) h where o.txid <> 0 on conflict do nothing"
    )
    db.rows(
        "update dagstop.stop_order set closed_at = clock_timestamp() where txid <> 0 and closed_at is null"
    )
    found = db.rows(
        """
        with o as (
            insert into dagstop.stop_order (kind, airflow_schema, dag_id, run_id, cascaded, closed_at)
            select 'run', 'public', 'other', 'present' || n, true, clock_timestamp() from generate_series(1, %s) n returning id
        ), r as (
            insert into dagstop.report (order_id, host, outcome)
            select id, h, 'stopped' from o, unnest('{host,other}'::text[]) h
        )
        select id from o order by id
        """,
        (count,),
    )
    return [number for (number,) in found]


def world(db: AirflowDatabase, connection: Any, first: int) -> dict[str, int]:
    """Rows read by each statement in this session."""
    reader = Reader(connection)
    airflow(db, reader, first, 1)
    airflow(db, reader, first + 1000, ROWS)
    orders = present(db, 25)
    listener(reader, orders)
    page(reader, orders)
    return reader.read


def longer(empty: dict[str, int], full: dict[str, int]) -> dict[str, tuple[int, int]]:
    """What reads more than before; a page of 40 orders, and a few dead versions, aside."""
    assert set(empty) == set(full)
    return {name: (empty[name], n) for name, n in full.items() if n > 1.1 * empty[name] + 100}


@pytest.mark.parametrize(
    ("ago", "closed"),
    [("1 hour", True), ("1 hour", False), ("20 days", True), ("20 days", False)],
)
def test_nothing_reads_the_past(db: AirflowDatabase, ago: str, closed: bool) -> None:
    with connect(db.url) as old_session:
        world(db, old_session, 0)
        db.rows(f"vacuum analyze {TABLES}")  # the tables are small, and Postgres knows it
        for number in range(1, 7):  # from the sixth time on it keeps a plan
            empty = world(db, old_session, 10000 * number)
        fill(db, PAST, ago=ago, closed=closed)
        excused = TODAY if ago == "1 hour" and not closed else set()
        stale = longer(empty, world(db, old_session, 200000))
        assert {name: n for name, n in stale.items() if name not in excused} == {}
    with connect(db.url) as new_session:
        unanalyzed = longer(empty, world(db, new_session, 300000))
        assert {name: n for name, n in unanalyzed.items() if name not in excused} == {}
    db.rows(f"vacuum analyze {TABLES}")
    with connect(db.url) as new_session:
        analyzed = longer(empty, world(db, new_session, 400000))
        assert {name: n for name, n in analyzed.items() if name not in excused} == {}

"""What a month of stops leaves in a database, and how many rows a statement reads of it."""

from __future__ import annotations

from typing import Any, Protocol

from dagstop import sql
from dagstop.page.facts import EVERY_ORDER
from tests.support.airflow_tables import NO_PROCESS, AirflowDatabase

HOSTS = ("host", "other")
READ = """
select coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint from pg_stat_xact_user_tables where schemaname in ('dagstop', 'public')
"""
TABLES = "dagstop.stop_order, dagstop.stop_target, dagstop.report, dagstop.refused_write, dagstop.fault, dag_run, task_instance"


def fill(db: AirflowDatabase, orders: int, *, ago: str, closed: bool) -> None:
    """Orders with two targets and two reports each, a fault and a refused write for each second one; not analyzed."""
    db.rows(
        f"""
        with o as (
            insert into dagstop.stop_order
                (kind, airflow_schema, dag_id, run_id, task_id, map_index, created_at, txid, cascaded, state_before, closed_at)
            select
                case when n % 2 = 0 then 'run' else 'task' end, 'public', 'dag', 'past' || n,
                case when n % 2 = 1 then 'a' end, case when n % 2 = 1 then -1 end,
                now() - interval '{ago}' - n * interval '1 ms', 0, true, 'running',
                case when {closed} then now() - interval '{ago}' end
            from generate_series(1, {orders}) as n
            returning id, run_id, created_at
        ), t as (
            insert into dagstop.stop_target (order_id, task_id, map_index, try_number, hostname, pid, state_before, started_at)
            select o.id, a, -1, 1, 'worker', {NO_PROCESS}, 'running', o.created_at - interval '1 hour'
            from o, unnest('{{a,b}}'::text[]) as a
        ), w as (
            insert into dagstop.refused_write (at, order_id, dag_id, run_id, task_id, map_index, wanted_state)
            select o.created_at, o.id, 'dag', o.run_id, 'a', -1, 'up_for_retry' from o where o.id % 2 = 0
        ), f as (
            insert into dagstop.fault (at, place, sqlstate, message, context)
            select o.created_at, 'fence', '55P03', 'of the past', jsonb_build_object('txid', o.id) from o where o.id % 2 = 0
        )
        select
        """
    )
    db.rows(
        """
        insert into dagstop.report (order_id, host, outcome, first_signal_at, last_death_at, reported_at, detail)
        select o.id, h, 'stopped', o.created_at, o.created_at, o.created_at, '{"processes": [], "containers": [], "spared": []}'
        from dagstop.stop_order o, unnest(%s) as h
        where o.txid = 0
        on conflict do nothing
        """,
        (list(HOSTS),),
    )


class Ask(Protocol):
    """Sends a statement, and keeps what was measured under that name."""

    def __call__(self, name: str, statement: str, arguments: Any = None) -> list[Any]: ...


class Reader:
    """A session that counts the rows that each statement reads."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        connection.autocommit = False
        self.read: dict[str, int] = {}

    def __call__(self, name: str, statement: str, arguments: Any = None) -> list[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(READ)
            (before,) = cursor.fetchone()
            cursor.execute(statement, arguments)
            answer = list(cursor.fetchall()) if cursor.description else []
            cursor.execute(READ)
            self.read[name] = cursor.fetchone()[0] - before
        self._connection.commit()
        return answer


def airflow(db: AirflowDatabase, ask: Ask, first: int, count: int) -> None:
    """Airflow's statements, one each, on runs with new numbers."""
    many = f"{count} rows: "
    name = f"now{first:06}-"
    date = f"timestamptz '2024-01-01' + {first} * interval '1 hour' + n * interval '1 hour'"
    columns, values = (", run_type", ", 'manual'") if not db.by_date else (", external_trigger", ", false")
    if db.has_uuid:
        columns, values = columns + ", run_after", values + ", now()"
    ask(
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
    ask(
        f"{many}insert task instances",
        f"insert into task_instance (dag_id, task_id, state, pool, try_number, pid, hostname, start_date, {columns})"
        f" select 'dag', '{name}t' || n, 'running', 'default_pool', 1, {NO_PROCESS}, 'worker', now(), {values}"
        f" from generate_series(1, {count}) n",
    )
    task = "update task_instance set state = {} where task_id like %s"
    run = "update dag_run set state = {} where run_id like %s"
    like = (f"{name}%",)
    ask(f"{many}heartbeat", "update dag_run set end_date = end_date where run_id like %s", like)
    ask(f"{many}fail runs", run.format("'failed'"), like)
    if not db.by_date:
        look = "update dag_run set {} last_scheduling_decision = timestamptz '{}' where run_id like %s"
        ask(f"{many}look at runs", look.format("", "2024-01-02"), like)
        ask(f"{many}write runs back", look.format("state = 'running',", "2024-01-01"), like)
    ask(f"{many}retry", task.format("'up_for_retry'"), like)
    ask(f"{many}clear", task.format("null"), like)
    ask(f"{many}clear runs", run.format("'queued'"), like)
    ask(f"{many}run again", task.format("'running'"), like)
    ask(f"{many}fail tasks", task.format("'failed', end_date = now()"), like)
    ask(f"{many}clear tasks", task.format("null"), like)
    ask(f"{many}run once more", task.format("'running'"), like)
    ask(f"{many}delete task instances", "delete from task_instance where task_id like %s", like)
    ask(f"{many}delete runs", "delete from dag_run where run_id like %s", like)


def listener(ask: Ask, orders: list[int]) -> None:
    """What a listener and the commands ask."""
    asked = sql.queries()
    beat = {
        "host": "host",
        "listener_id": "8d8ac610-566d-4ef0-9c22-186b2a5ed793",
        "version": "1",
        "detail": "{}",
    }
    which: dict[str, Any] = {"host": "host", "ids": None, "max_orders": 2000}
    ask("first sweep", asked["open_orders"], which)
    ask("heartbeat", asked["heartbeat"], beat)
    ask("heartbeat", asked["heartbeat"], beat)
    ask("first sweep", asked["open_orders"], which)
    for chore in ("complete_left", "put_back_left", "close_left_behind", "prune"):
        # as dagstop.chore calls it, which works outside a transaction only
        ask(f"chore {chore}", f"set local plan_cache_mode = force_custom_plan; select dagstop.{chore}()")
    ask("sweep", asked["open_orders"], which)
    ask("doorbell", asked["rung_orders"], which)
    ask("orders by number", asked["open_orders"], {**which, "ids": orders[-3:]})
    report = {
        "order_id": orders[-1],
        "host": "host",
        "first_signal_at": None,
        "last_death_at": None,
        "detail": "{}",
    }
    ask("report begun", asked["write_report"], {**report, "outcome": None})
    ask("report", asked["write_report"], {**report, "outcome": "stopped"})
    ask("status", asked["status"], {"limit": 50})
    ask("history", asked["history"], {"limit": 20, "dag_id": None, "run_id": None})
    ask("history of a run", asked["history"], {"limit": 20, "dag_id": "dag", "run_id": "now"})
    ask("orders of a run", asked["orders_of"], {"dag_id": "dag", "run_id": "now", "task_id": None})
    ask("orders of a task", asked["orders_of"], {"dag_id": "dag", "run_id": "now", "task_id": "a"})
    ask("progress", asked["progress"], {"ids": orders[-1:]})
    ask("retire", asked["retire"], beat)


def page(ask: Ask, orders: list[int]) -> None:
    asked = sql.queries("page")
    shown = {**EVERY_ORDER, "limit": 20}
    ask("page orders", asked["page_orders"], shown)
    ask("page orders of a run", asked["page_orders"], {**shown, "dag_id": "dag", "run_id": "now"})
    ask("page open", asked["page_open"])
    for name in ("page_order", "page_reports", "page_targets", "page_refused"):
        ask(name, asked[name], {"id": orders[-1]})


def present(db: AirflowDatabase, count: int) -> list[int]:
    """The newest orders, the same in each world, and all others of this world: done, with reports."""
    db.rows(
        "insert into dagstop.report (order_id, host, outcome) select o.id, h, 'stopped'"
        " from dagstop.stop_order o, unnest('{host,other}'::text[]) h"
        " where o.created_at > now() - interval '10 minutes' on conflict do nothing"
    )
    db.rows(
        "update dagstop.stop_order set closed_at = clock_timestamp()"
        " where created_at > now() - interval '10 minutes' and closed_at is null"
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

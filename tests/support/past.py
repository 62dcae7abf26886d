"""What a month of stops leaves in a database, and how many rows a statement reads of it."""

from __future__ import annotations

from typing import Any

from tests.support.airflow_tables import AirflowDatabase

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
            select o.id, a, -1, 1, 'worker', 4321, 'running', o.created_at - interval '1 hour'
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
        """,
        (list(HOSTS),),
    )


class Reader:
    """One session that says of each statement how many rows it has read."""

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

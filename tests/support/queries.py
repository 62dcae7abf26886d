"""Named queries of the listener, sent one at a time."""

from __future__ import annotations

from typing import Any

from psycopg2.extras import RealDictCursor

from dagstop import sql
from tests.support.airflow_tables import AirflowDatabase


def call(db: AirflowDatabase, name: str, **parameters: Any) -> list[dict[str, Any]]:
    """Send a named query; its rows, if it has any."""
    with db.connect(cursor_factory=RealDictCursor) as connection, connection.cursor() as cursor:
        cursor.execute(sql.queries()[name], parameters)
        return [dict(row) for row in cursor.fetchall()] if cursor.description else []


def report(db: AirflowDatabase, order: int, host: str, outcome: str | None) -> None:
    """Write a host's report of an order; without an outcome it is not final."""
    call(db, "write_report", order_id=order, host=host, outcome=outcome, first_signal_at=None,
         last_death_at=None, detail="{}")  # fmt: skip
    call(db, "settle", ids=[order])

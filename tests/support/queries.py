"""Named queries of the listener, sent one at a time."""

from __future__ import annotations

from typing import Any

from psycopg2.extras import RealDictCursor

from dagstop import sql
from tests.support.airflow_tables import AirflowDatabase


def call(db: AirflowDatabase, name: str, **parameters: Any) -> list[dict[str, Any]]:
    """Its rows, if it has any."""
    with db.connect(cursor_factory=RealDictCursor) as connection, connection.cursor() as cursor:
        cursor.execute(sql.queries()[name], parameters)
        return [dict(row) for row in cursor.fetchall()] if cursor.description else []


def report(db: AirflowDatabase, order: int, host: str, outcome: str | None) -> None:
    """What a listener writes of an order; an outcome of None: it is not done yet."""
    call(db, "write_report", order_id=order, host=host, outcome=outcome, first_signal_at=None,
         last_death_at=None, detail="{}")  # fmt: skip
    call(db, "settle", ids=[order])

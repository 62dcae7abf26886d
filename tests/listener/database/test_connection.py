"""Rows as the listener gets them from a real Postgres."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dagstop.database.connection import connect, query
from dagstop.feed.orders import read_order
from tests.support.airflow_tables import FIRST_DATE, AirflowDatabase
from tests.support.marks import one_server, shape_2


@one_server
@shape_2
@pytest.mark.parametrize("date", ["10000-01-01", "0044-03-15 BC"])
def test_a_year_that_python_cannot_hold_hides_no_order(airflow_db: AirflowDatabase, date: str) -> None:
    """psycopg2 raises ValueError for it, at the fetch of all rows."""
    airflow_db.add_running("run")
    airflow_db.add_run(run_id="odd", date=FIRST_DATE + timedelta(1))
    airflow_db.rows("update dag_run set execution_date = %s where run_id = 'odd'", (date,))
    airflow_db.rows("update dag_run set state = 'failed'")
    connection = connect(airflow_db.url, "test")
    rows = query(connection, "open_orders", host="h", ids=None, max_orders=9)
    connection.close()
    dates = {order.run_id: order.logical_date for order in map(read_order, rows)}
    assert dates == {"run": FIRST_DATE, "odd": None}


@one_server
@shape_2
def test_nothing_of_the_session_is_left_for_who_gets_it_next(airflow_db: AirflowDatabase) -> None:
    """As behind a pooler in transaction mode; a query of ours is limited all the same."""
    connection = connect(airflow_db.url, "test")
    with connection.cursor() as cursor:
        cursor.execute("select name, setting from pg_settings order by name")
        before = dict(cursor.fetchall())
        query(connection, "open_orders", host="h", ids=None, max_orders=9)
        cursor.execute("select name, setting from pg_settings order by name")
        after = dict(cursor.fetchall())  # with those of PL/pgSQL, which is loaded by now
    assert {name: after[name] for name in before} == before
    assert before["statement_timeout"] == "0"
    airflow_db.rows(
        "create or replace function dagstop.trigger_health() returns table (table_name text, trigger_name text,"
        " status text, comment text) language sql as"
        " $f$ select '', '', current_setting('statement_timeout'), '' $f$"
    )
    assert query(connection, "trigger_health")[0]["status"] == "30s"
    connection.close()

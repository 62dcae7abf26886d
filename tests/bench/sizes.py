"""The disk space of 200,000 past orders: tables, their indexes, and one row."""

from __future__ import annotations

from tests.bench.past import ORDERS
from tests.bench.stage import Stage
from tests.bench.table import Found, Row
from tests.support.past import fill

TABLES = ("stop_order", "stop_target", "report", "refused_write", "fault")
MIB = 2**20


def run(stage: Stage) -> Found:
    """Orders as tests/support/past.py makes them: two targets and two short reports each, both closed."""
    found = Found("sizes")
    database = stage.database("full")
    fill(database, ORDERS // 20 if stage.quick else ORDERS, ago="1 hour", closed=True)
    for table in TABLES:
        database.rows(f"vacuum analyze dagstop.{table}")
    total = 0
    for table in TABLES:
        rows, data, indexes = database.one(
            f"select (select count(*) from dagstop.{table}), pg_table_size(t), pg_indexes_size(t)"
            f" from (select 'dagstop.{table}'::regclass as t) as named"
        )
        total += data + indexes
        row = Row(f"{rows} rows of {table}", "-", None, (data + indexes) / MIB, "MiB", "none")
        row.note = f"a row {data / rows:.0f} bytes, its entries in indexes {indexes / rows:.0f} bytes"
        found.rows.append(row)
    found.rows.append(Row("all of them", "-", None, total / MIB, "MiB", "none"))
    stage.server.drop_database(database.url)
    return found

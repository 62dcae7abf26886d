"""What each statement costs after a month of stops, compared with a database that has seen none."""

from __future__ import annotations

import time
from typing import Any

from tests.bench.stage import Stage
from tests.bench.table import Found, Row, median
from tests.support.airflow_tables import AirflowDatabase
from tests.support.past import TABLES, airflow, fill, listener, page, present

ORDERS = 200_000
MANY = 1000
OF_AIRFLOW, OF_LISTENERS = 1.1, 2.0


class Stopwatch:
    """One session that says of each statement how many milliseconds it took, with its commit."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        connection.autocommit = False
        self.took: dict[str, float] = {}

    def __call__(self, name: str, statement: str, arguments: Any = None) -> list[Any]:
        with self._connection.cursor() as cursor:
            begun = time.monotonic()
            cursor.execute(statement, arguments)
            answer = list(cursor.fetchall()) if cursor.description else []
            self._connection.commit()
            self.took[name] = (time.monotonic() - begun) * 1000
        return answer


def run(stage: Stage) -> Found:
    """Both in turn, so that what else the machine does meets both alike."""
    found = Found("past")
    worlds = {name: stage.database("full") for name in ("no past", "past")}
    orders = ORDERS // 20 if stage.quick else ORDERS
    for database in worlds.values():
        database.rows("update dagstop.setting set value = 'deleted' where name = 'also_stop_on'")
    for ago, closed in (("20 days", True), ("10 days", False), ("1 hour", True)):
        fill(worlds["past"], orders // 3, ago=ago, closed=closed)
    for database in worlds.values():
        database.rows(f"vacuum analyze {TABLES}")
    pairs: dict[str, list[tuple[float, float]]] = {}
    first = 0
    for repeat in range(stage.times(60)):
        taken: dict[str, dict[str, float]] = {}
        for name in list(worlds) if repeat % 2 else reversed(list(worlds)):
            taken[name] = _once(worlds[name], first, 1 if repeat % 3 else MANY)
        first += 2 * MANY
        if repeat >= 1:  # the first fills the caches
            for what, took in taken["past"].items():
                pairs.setdefault(what, []).append((taken["no past"][what], took))
    for what, values in pairs.items():
        most = OF_AIRFLOW if " rows: " in what else OF_LISTENERS
        without, took = median(a for a, _ in values), median(b for _, b in values)
        row = Row(what, "no past", without, took, "ms", f"<= {most} x")
        ratio = median(b / a for a, b in values)
        row.met = ratio <= most
        row.note = f"median ratio of {len(values)} pairs {ratio:.3f}"
        found.rows.append(row)
    _plans(stage, worlds["past"], first)
    for database in worlds.values():
        stage.server.drop_database(database.url)
    return found


def _once(database: AirflowDatabase, first: int, rows: int) -> dict[str, float]:
    with database.connect() as connection:
        ask = Stopwatch(connection)
        airflow(database, ask, first, 1)  # what a session does first it has to plan
        airflow(database, ask, first + 5, rows)
        orders = present(database, 25)
        listener(ask, orders)
        listener(ask, orders)
        page(ask, orders)
        del ask.took["first sweep"]  # the one after a start looks through all of a day
        return ask.took


def _plans(stage: Stage, database: AirflowDatabase, first: int) -> None:
    """All plans of one round, in build/bench/past-plans.txt."""
    before = len(stage.server.log())
    database.rows(
        f"alter database {database.url.rsplit('/', 1)[1]} set session_preload_libraries = 'auto_explain'"
    )
    for name, value in (("log_min_duration", "0"), ("log_nested_statements", "on"), ("log_analyze", "on")):
        database.rows(f"alter database {database.url.rsplit('/', 1)[1]} set auto_explain.{name} = {value}")
    _once(database, first, 1)
    (stage.output / "past-plans.txt").write_text(stage.server.log()[before:])

"""No Airflow statement, and nothing that a listener or the page asks, reads more because dagstop has a past."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.past import TABLES, Reader, airflow, fill, listener, page, present
from tests.testbed.postgres import connect

PAST = 20000
ROWS = 30
# what is open and young is not the past: there is something to do, or to show
TODAY = {"sweep", "doorbell", "heartbeat", "chore close_left_behind", "status", "page open"}


@pytest.fixture
def db(airflow_db: AirflowDatabase) -> AirflowDatabase:
    airflow_db.rows("update dagstop.setting set value = 'deleted' where name = 'also_stop_on'")
    # Airflow's tables are emptied here again and again: when autovacuum looks must not choose the plans
    for table in TABLES.split(", "):
        airflow_db.rows(f"alter table {table} set (autovacuum_enabled = off)")
    return airflow_db


def world(db: AirflowDatabase, connection: Any, first: int) -> dict[str, int]:
    """Rows read by each statement in this session."""
    reader = Reader(connection)
    airflow(db, reader, first, 1)
    airflow(db, reader, first + 1000, ROWS)
    orders = present(db, 25)
    listener(reader, orders)
    page(reader, orders)
    del reader.read["first sweep"]  # the one after a start looks through all of a day
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

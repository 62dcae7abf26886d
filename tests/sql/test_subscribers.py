"""Logical replication of Airflow's tables: a real subscriber, beside dagstop's triggers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dagstop.install import install
from tests.support.airflow_tables import AirflowDatabase, schema_sql
from tests.support.watch import wait_until
from tests.testbed.postgres import Server, binaries

pytestmark = pytest.mark.server

SHAPE = "2.11.2"
SLOT = "subscriber"
STATES = "select d.state, t.state from dag_run d join task_instance t using (dag_id, run_id)"


@pytest.fixture
def publisher() -> Iterator[Server]:
    found = binaries()
    server = Server(found[max(found, key=lambda name: int(name.strip("pg")))], wal_level="logical")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def airflow(publisher: Server) -> AirflowDatabase:
    url = publisher.create_database(name="airflow")
    publisher.psql(url, schema_sql(SHAPE))
    return AirflowDatabase(url, SHAPE)


def subscribe(publisher: Server, airflow: AirflowDatabase, publication: str) -> AirflowDatabase:
    """A database with Airflow's tables only, which follows that publication."""
    url = publisher.create_database(name="copy")
    publisher.psql(url, schema_sql(SHAPE))
    copy = AirflowDatabase(url, SHAPE)
    # in one cluster a subscription cannot make its slot itself
    airflow.rows("select pg_create_logical_replication_slot(%s, 'pgoutput')", (SLOT,))
    copy.rows(
        f"create subscription copy connection '{airflow.url}' publication {publication}"
        f" with (create_slot = false, slot_name = '{SLOT}', copy_data = false)"
    )
    return copy


def test_a_subscriber_of_airflows_schema_sees_what_the_cascade_did(
    publisher: Server, airflow: AirflowDatabase
) -> None:
    airflow.rows("create publication of_airflow for tables in schema public")
    copy = subscribe(publisher, airflow, "of_airflow")
    assert install(airflow.url).changed
    airflow.add_running()
    airflow.set_run("failed")
    wait_until(lambda: copy.rows(STATES) == [("failed", "failed")], 20, publisher.log)


def test_a_subscriber_of_all_tables_stops_until_it_has_those_of_dagstop(
    publisher: Server, airflow: AirflowDatabase
) -> None:
    airflow.rows("create publication everything for all tables")
    copy = subscribe(publisher, airflow, "everything")
    assert install(airflow.url, published=True).changed
    airflow.add_running()
    lacking = 'logical replication target relation "dagstop.'
    wait_until(lambda: lacking in publisher.log(), 20, publisher.log)
    assert copy.one("select count(*) from dag_run") == 0  # what comes after it waits
    publisher.psql(copy.url, publisher.dump(airflow.url, "--schema=dagstop"))
    copy.rows("alter subscription copy refresh publication with (copy_data = false)")
    airflow.set_run("failed")
    wait_until(lambda: copy.rows(STATES) == [("failed", "failed")], 20, publisher.log)

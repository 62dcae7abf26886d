"""What the page asks the database: on every server and every Airflow, as the listener's role, reading only."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest

from dagstop.errors import DagstopError
from dagstop.install import uninstall
from dagstop.page.facts import Here, Source, hanging, health
from tests.support import busy
from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import one_server, shape_2
from tests.support.page import look


@pytest.fixture
def reader(airflow_db: AirflowDatabase) -> Iterator[Source]:
    """A source that logs in as a listener may, in a role that Postgres lets write nothing."""
    airflow_db.rows("drop role if exists r_page; create role r_page login; grant dagstop_listener to r_page")
    airflow_db.rows("alter role r_page set default_transaction_read_only = on")
    source = Source(airflow_db.user_url("r_page"), Here("worker-1", "0.1.0", ""))
    yield source
    source.close()
    airflow_db.rows("drop owned by r_page cascade; drop role r_page")


def test_a_busy_day_is_told_by_a_role_that_cannot_write(airflow_db: AirflowDatabase, reader: Source) -> None:
    busy.busy_day(airflow_db)
    airflow_db.add_running("run")  # on host `worker`, which has no listener
    now = reader.snapshot()
    assert not now.able
    assert {finding["name"] for finding in now.findings if not finding["ok"]} == {
        "listener worker-7",
        "host worker",
    }
    assert [row["hostname"] for row in now.uncovered] == ["worker"]
    assert now.numbers["run_orders"] == 13 and now.numbers["task_orders"] == 1
    assert now.numbers["slowest_seconds"] == pytest.approx(10.04)
    assert [order["waiting_for"] for order in now.open] == [[f"worker-{n}" for n in (1, 3, 4, 5, 6)]]
    assert [order["id"] for order in now.orders] == sorted(
        (order["id"] for order in now.orders), reverse=True
    )
    last = now.orders[0]
    assert {host["host"]: host["outcome"] for host in last["hosts"]} == {
        "worker-1": None,
        "worker-2": "stopped",
    }
    assert [host["alive"] for host in last["hosts"]] == [1, 0]
    old = now.orders[-1]
    assert old["nothing_found"] == 1 and [host["processes"] for host in old["hosts"]] == [2]
    order = reader.order(last["id"])
    assert order is not None and len(order["targets"]) == 12 and len(order["reports"]) == 2
    assert reader.order(99999) is None

    def dags(only: str = "", words: str = "", before: int | None = None) -> list[str]:
        return [row["dag_id"] for row in reader.orders(before=before, words=words, only=only)]

    assert dags("unkillable") == ["warehouse_load"]
    assert dags("spared") == ["warehouse_load"]  # a later try is not left alive
    assert dags("not_found") == []
    airflow_db.rows("update dagstop.report set outcome = 'not_found' where outcome = 'superseded'")
    assert dags("not_found") == ["ml_training"]
    assert dags("refused") == ["feature_store"]
    assert dags(words="FIT_model") == ["ml_training"] and dags(words="%") == []
    assert len(dags(before=old["id"] + 1)) == 1 and dags(before=old["id"]) == []


@one_server
@shape_2
def test_an_empty_database_and_one_without_dagstop(airflow_db: AirflowDatabase, reader: Source) -> None:
    now = reader.snapshot()
    assert (now.orders, now.open, now.listeners) == ([], [], [])
    assert now.numbers["median_seconds"] is None
    airflow_db.rows("drop schema dagstop cascade")
    fresh = Source(airflow_db.url, Here("worker-1", "0.1.0", ""))
    with pytest.raises(DagstopError, match="dagstop install"):
        fresh.snapshot()
    fresh.close()


@one_server
@shape_2
def test_a_lost_connection_is_made_again(airflow_db: AirflowDatabase, reader: Source) -> None:
    for _ in range(2):
        reader.orders(before=None, words="", only="")
        ended = airflow_db.one(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'r_page'"
        )
        assert ended == 1
    assert reader.snapshot().orders == []
    airflow_db.rows("alter role r_page nologin")
    airflow_db.rows("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'r_page'")
    with pytest.raises(DagstopError, match="login"):
        reader.orders(before=None, words="", only="")
    airflow_db.rows("alter role r_page login")
    reader.orders(before=None, words="", only="")


@one_server
@shape_2
def test_a_database_that_hangs_holds_up_no_request_for_long(
    airflow_db: AirflowDatabase, reader: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagstop.page.facts.PATIENCE", 0.3)
    connection = psycopg2.connect(airflow_db.url)
    with connection.cursor() as cursor:
        cursor.execute("lock table dagstop.stop_order")
        with pytest.raises(DagstopError, match="has not answered"):
            reader.orders(before=None, words="", only="")
    connection.close()
    monkeypatch.setattr("dagstop.page.facts.PATIENCE", 60.0)
    assert reader.orders(before=None, words="", only="") == []


@one_server
@shape_2
def test_health_names_what_is_wrong_on_the_host_that_is_asked_about(airflow_db: AirflowDatabase) -> None:
    for host in ("worker-1", "worker-2"):
        busy.listener(airflow_db, host)
    busy.listener(airflow_db, "worker-3")
    airflow_db.rows(
        "update dagstop.listener set detail = detail || '{\"host_names\": [\"worker-3.example.org\"]}' where host = 'worker-3'"
    )

    def said(host: str | None = "worker-1") -> tuple[bool, str]:
        return health(host, look(airflow_db))

    assert said() == (True, "worker-1 can stop what runs on it (listening)")
    assert said("worker-3.example.org") == (True, "worker-3.example.org can stop what runs on it (listening)")
    assert said("worker-4") == (False, "no listener of worker-4 has ever reported")
    assert said(None) == (True, "everything can be stopped")
    airflow_db.rows("update dagstop.setting set value = 'on' where name = 'observe_only'")
    assert said() == (False, "observe-only: nothing is stopped until `dagstop config observe_only off`")
    airflow_db.rows("update dagstop.setting set value = 'off' where name = 'observe_only'")
    airflow_db.rows("update dagstop.listener set seen_at = now() - interval '1 hour' where host = 'worker-2'")
    good, why = said(None)
    assert not good and "listener worker-2: seen" in why
    assert said()[0] is True  # another host's listener is not this host's health; the page shows it
    airflow_db.rows("update dagstop.listener set detail = detail || '{\"looked_ago\": 31}'")
    assert said() == (False, "the listener of worker-1 last looked for processes 31 s ago")
    assert [hanging(row) != "" for row in look(airflow_db).listeners] == [True, True, True]
    airflow_db.rows("update dagstop.listener set seen_at = now() - interval '1 hour'")
    assert said() == (False, "the listener of worker-1 does not reach the database")
    airflow_db.rows("drop trigger dagstop_cascade on dag_run")
    assert said() == (False, "trigger dag_run.dagstop_cascade is missing: run `dagstop install`")


@one_server
@shape_2
def test_a_page_whose_schema_was_taken_away_says_that(airflow_db: AirflowDatabase) -> None:
    source = Source(airflow_db.url, Here("worker-1", "0.1.0", ""))
    try:
        assert source.orders() == []
        uninstall(airflow_db.url)
        with pytest.raises(DagstopError, match="not installed in this database: run `dagstop install`"):
            source.orders()
    finally:
        source.close()

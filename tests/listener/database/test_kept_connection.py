"""A connection's thread lives as long as the listener, whatever happens in it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from dagstop.database.kept_connection import KeptConnection
from dagstop.install import install
from tests.support.airflow_tables import AirflowDatabase, schema_sql
from tests.support.listener import Listener
from tests.support.marks import one_server
from tests.support.watch import wait_until
from tests.testbed.postgres import Server, rows


@one_server
def test_no_error_ends_the_thread(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    errors = [
        UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "odd"),
        KeyError("k"),
        RecursionError(),
        AssertionError(),
    ]
    served: list[Any] = []

    def serve(connection: Any) -> None:
        served.append(connection)
        if errors:
            raise errors.pop()

    kept = KeptConnection("odd", server.url("postgres"), "test", serve)
    caplog.set_level(logging.INFO, "dagstop")
    kept.start()
    try:
        wait_until(lambda: len(served) > 5, 20, lambda: caplog.text)
    finally:
        kept.stop(5)
    assert caplog.text.count("database lost") == 4 and "UnicodeDecodeError" in caplog.text
    assert all(connection.closed for connection in served)


@one_server
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_names_in_the_databases_own_encoding(server: Server, tmp_path: Path, encoding: str) -> None:
    """A name of no known encoding; and letters that its database has and this host's locale may not."""
    name = f"of_{encoding.lower()}"
    rows(
        server.url("postgres"),
        f"create database {name} encoding '{encoding}' template template0 lc_collate 'C' lc_ctype 'C'",
    )
    url = server.url(name)
    try:
        server.psql(url, schema_sql("2.11.2"))
        install(url)
        db = AirflowDatabase(url, "2.11.2")
        db.add_running("run1", number=1)
        db.add_running("run2", number=2)
        odd = f"set client_encoding = '{encoding}'; set session_replication_role = replica;"
        for table in ("dag_run", "task_instance"):
            odd += rf" update {table} set run_id = E'caf\xe9' where run_id = 'run1';"
        rows(url, odd)
        with Listener(url, tmp_path, PGCLIENTENCODING="LATIN1") as listener:
            db.wait_until("select count(*) = 1 from dagstop.listener")
            rows(url, "update dag_run set state = 'failed' where run_id <> 'run2'")
            db.wait_until("select count(*) = 1 from dagstop.report where outcome is not null")
            rows(url, "update dag_run set state = 'failed' where run_id = 'run2'")
            db.wait_until("select count(*) = 2 from dagstop.report where outcome is not null")
            assert "Traceback" not in listener.log() and "database lost" not in listener.log()
    finally:
        server.drop_database(url)

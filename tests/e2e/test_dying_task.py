"""A real Airflow writes the old copy of its run that a dying task holds: the run turns `running` again."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagstop.install import install
from tests.e2e.conftest import NAMED
from tests.e2e.probes import Probes
from tests.support.marks import one_server
from tests.testbed.environment import release
from tests.testbed.postgres import Server, rows

VERSIONS = [version for version in NAMED or ("2.11.2",) if (2, 5) <= release(version) < (3, 0)]


@pytest.mark.e2e
@one_server
# before 2.10.5 it does so whenever a task dies, since then if the run was failed at the wrong moment
@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_stays_failed(server: Server, version: str, tmp_path: Path) -> None:
    url = server.create_database()
    try:
        airflow = Probes(version, url, tmp_path)
        assert airflow.answer("dying_task_probe.py", "stock") == {"run": "running", "task": "failed"}
        install(url)
        assert airflow.answer("dying_task_probe.py", "stopped") == {"run": "failed", "task": "failed"}
        assert rows(url, "select kind, dag_id from dagstop.stop_order") == [("run", "stopped")]
        assert rows(url, "select task_id, wanted_state from dagstop.refused_write") == [(None, "running")]
        assert rows(url, "select message from dagstop.fault") == []
    finally:
        server.drop_database(url)

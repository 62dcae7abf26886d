"""What a real Airflow answers to "mark this run failed", with dagstop's triggers and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagstop.install import install
from tests.e2e.probes import Probes
from tests.support.marks import one_server
from tests.testbed.postgres import Server, rows

# the altered task instances of a stock Airflow, and those that it names where the cascade was first
ALTERED = {
    "1.10.15": (["running"], []),
    "2.11.2": (["none", "queued", "running"], ["none", "queued"]),
    "3.3.2": (["none", "queued", "running"], ["none", "queued", "running"]),
}


@pytest.mark.e2e
@one_server
@pytest.mark.parametrize("version", ALTERED)
def test_its_answer_lacks_what_the_cascade_failed_first(server: Server, version: str, tmp_path: Path) -> None:
    """docs/limits.md says what hangs on that answer: the number in a message of the web interface."""
    url = server.create_database()
    try:
        airflow = Probes(version, url, tmp_path)
        stock = airflow.answer("marking_probe.py", "stock")
        install(url)
        stopped = airflow.answer("marking_probe.py", "stopped")
        assert (stock["altered"], stopped["altered"]) == ALTERED[version]
        assert stopped["killed"] == stock["killed"] == (["running"] if version.startswith("3.") else [])
        states = dict(stock["states"])
        if version.startswith("1."):  # it leaves what does not run as it is; the cascade does not
            states |= {"none": "failed", "queued": "failed"}
        assert stopped["states"] == states
        assert rows(url, "select message from dagstop.fault") == []
        assert rows(url, "select kind, dag_id from dagstop.stop_order") == [("run", "stopped")]
    finally:
        server.drop_database(url)

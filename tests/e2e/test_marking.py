"""What a real Airflow answers to "mark this run failed", with dagstop's triggers and without."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dagstop.install import install
from tests.support.marks import one_server
from tests.testbed import airflows
from tests.testbed.postgres import Server, rows

PROBE = Path(__file__).with_name("marking_probe.py")
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
    folder = airflows.build(version) / "bin"
    url = server.create_database()
    try:
        airflow_url = url.replace("postgresql:", "postgresql+psycopg2:")
        environment = os.environ | {
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__SQL_ALCHEMY_CONN": airflow_url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": airflow_url,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PATH": f"{folder}:{os.environ['PATH']}",
        }

        def run(program: str, *arguments: str) -> str:
            return subprocess.run(
                [folder / program, *arguments], env=environment, cwd=tmp_path, check=True,
                stdout=subprocess.PIPE, text=True,
            ).stdout  # fmt: skip

        def answer(dag: str) -> dict[str, Any]:
            said = run("python", str(PROBE), dag).rpartition("ANSWER ")[2]
            found: dict[str, Any] = json.loads(said)
            return found

        run("airflow", *(["initdb"] if version.startswith("1.") else ["db", "migrate"]))
        stock = answer("stock")
        install(url)
        stopped = answer("stopped")
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

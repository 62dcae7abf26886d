"""The units that `dagstop systemd` prints, under a real systemd: start, kill, restart, watchdog, stop."""

from __future__ import annotations

import json
import sys

import pytest

from tests.conftest import missing
from tests.support import systemd_box
from tests.support.airflow_tables import AirflowDatabase
from tests.support.marks import one_server, shape_2

pytestmark = [one_server, shape_2]


@pytest.mark.parametrize("user", ["root", "dagstop"])
def test_the_unit_starts_kills_restarts_and_stops(airflow_db: AirflowDatabase, user: str) -> None:
    runs = ["first", "after SIGKILL", "after a hang"]
    for number, run in enumerate(runs):
        airflow_db.add_running(run, number=number)
    command = [sys.executable, "-m", "tests.support.systemd_job", airflow_db.url, user, *runs]
    try:
        said = systemd_box.run(command)
    except systemd_box.SystemdError as exc:
        missing(exc)
    seen = json.loads(said.splitlines()[-1])
    journal = "\n".join(seen["journal"])
    assert seen["user"] == user, said
    assert seen["alive"] == dict.fromkeys(runs, 0), journal
    assert seen["inside"] == 0, journal
    assert seen["page"]["said"] == ["ok: everything can be stopped\n"], seen["page"]
    assert not seen["page"]["root"], seen["page"]
    assert seen["page"]["rights"] == ["0" * 16] * 3 + ["1"], seen["page"]
    assert seen["restarts"] == 2, journal  # one for the SIGKILL, one for the hang
    assert (seen["state"], seen["result"]) == ("inactive", "success"), journal
    assert seen["check"] == 0, said
    outcomes = airflow_db.rows("select outcome from dagstop.report order by order_id")
    assert outcomes == [("stopped",)] * 3, journal

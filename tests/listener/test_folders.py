"""Daemons that gave up session, parents and environment, known by the task's folder that they work in."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, descendants, find, wait_for

pytestmark = [one_server, shape_2]
DAEMON, STRANGER = "sleep 7911", "sleep 7912"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Daemons have no parent by which a failed test could end them."""
    yield
    for pid in (*find(DAEMON), *find(STRANGER)):
        os.kill(pid, signal.SIGKILL)


def ps(listener: Listener) -> dict[str, Any]:
    where = ("--database-url", listener.url, "--airflow-home", str(listener.home))
    environment: Any = {"STATE_DIRECTORY": str(listener.state_dir)}
    said: dict[str, Any] = json.loads(dagstop("ps", "--json", *where, **environment).stdout)
    return said


@pytest.mark.parametrize("deleted", [False, True], ids=["folder left", "folder deleted"])
def test_a_daemon_that_nobody_saw_begin_dies_with_its_run(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, deleted: bool
) -> None:
    """It begins while no listener runs; then all of Airflow is killed, its folder with it."""
    airflow_db.add_running("run")
    own, other = tmp_path / "airflowtmpa1b2c3d4", tmp_path / "airflowtmpe5f6g7h8"
    own.mkdir()
    other.mkdir()
    begin = "until [ -e go ]; do sleep 0.05; done; env -i setsid -f {}; sleep 7913"
    task = tasks.bash(begin.format(DAEMON), tasks.environment("dag", "run"), own)
    with Listener(airflow_db.url, tmp_path) as listener:
        listener.wait_until_remembered(1)
        listener.kill()
        stranger = tasks.bash(begin.format(STRANGER), {"PATH": os.environ["PATH"]}, other)
        for folder in (own, other):
            (folder / "go").touch()
        (daemon,), (strange,) = wait_for(DAEMON), wait_for(STRANGER)
        wait_for("sleep 7913", 2)
        for bash in (task, stranger):
            for pid in (*descendants(bash.pid), bash.pid):
                os.kill(pid, signal.SIGKILL)
            bash.wait()
        if deleted:
            shutil.rmtree(own)
            shutil.rmtree(other)
        said = ps(listener)
        assert [p["pid"] for row in said["tasks"] for p in row["processes"]] == [daemon], show(said)
        ((what, why),) = [(item["what"], item["why"]) for item in said["not_attributable"]]
        assert what == f"process {strange} ({STRANGER})" and "policy" not in why, why
        listener.start()
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    (dead,) = report["detail"]["processes"]
    assert report["outcome"] == "stopped" and dead["pid"] == daemon, show(report)
    assert dead["evidence"] == [f"working directory {own}"], show(report)
    wait_for(DAEMON, 0)
    assert find(STRANGER) == [strange]

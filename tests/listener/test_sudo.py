"""A real sudo before the real runner, as run_as_user makes it on 3.x: it passes signals on to its child."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require_packages
from tests.support.airflow_tables import AirflowDatabase
from tests.support.fake_proc import UUID
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import one_server, shape_3
from tests.support.tasks import Tasks
from tests.support.users import Users
from tests.support.watch import wait_until

pytestmark = [one_server, shape_3]
DATAENG = "dagstop-dataeng"

SUPERVISOR = """
import os, sys, time, setproctitle
setproctitle.setproctitle("airflow supervisor: " + sys.argv[1])
if os.fork():
    os.wait()
    sys.exit()
setproctitle.setproctitle("airflow worker -- " + sys.argv[1])
time.sleep(1)  # it reads the DAG as Airflow's user first
words = ["sudo", "-E", "-H", "-u", sys.argv[2], *sys.argv[4:], sys.executable, "-c", sys.argv[3], sys.argv[1]]
os.execvp("sudo", words)
"""
AGAIN = """#from airflow.sdk.execution_time.task_runner import main
import os, signal, subprocess, sys, time, setproctitle
def mark(what):
    with open(os.environ["MARK"], "a") as file:
        print(what, file=file)
def on_kill(number, frame):
    mark("asked")
    time.sleep(1)
    mark("cleaned up")
    sys.exit()
signal.signal(signal.SIGTERM, on_kill)
if "DAGSTOP_SPARE" not in os.environ:  # a title would overwrite that
    setproctitle.setproctitle("airflow worker -- " + sys.argv[1])
if "AIRFLOW_CTX_DAG_ID" in os.environ:
    subprocess.Popen(["sleep", "7391"])
time.sleep(1)  # a listener looks at it four times meanwhile
mark("begun")
time.sleep(3600)
"""


@pytest.fixture
def users() -> Iterator[Users]:
    require_packages("sudo")
    with Users({DATAENG: 61202}, ["Defaults env_reset", "root ALL=(ALL) ALL"]) as found:
        for path in (Path(sys.executable), Path(sys.executable).resolve(), Path(sys.prefix)):
            found.let_in(path)
        yield found


def begin(database: AirflowDatabase, home: Path, tasks: Tasks, users: Users, *words: str) -> Path:
    """Start the task, and give the file in which its runner says what it does."""
    mark = home / "mark"
    users.let_in(mark)
    mark.touch()
    mark.chmod(0o666)
    database.add_run()
    environment = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(home), "MARK": str(mark)}
    started = tasks.start(
        [sys.executable, "-c", SUPERVISOR, UUID, DATAENG, AGAIN, *words], environment, session=True
    )
    database.add_task("a", id=UUID, pid=started.pid, hostname="host-1")
    wait_until(lambda: mark.read_text(), 20, lambda: "the runner did not begin")
    return mark


def test_the_runner_behind_a_sudo_may_clean_up(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, users: Users
) -> None:
    with Listener(airflow_db.url, tmp_path) as listener:
        mark = begin(airflow_db, tmp_path, tasks, users)
        listener.wait_until_remembered(2)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert mark.read_text().splitlines() == ["begun", "asked", "cleaned up"], show(report)
    runner, *sudo = report["detail"]["processes"]
    assert [name for name, _ in runner["signals"]] == ["SIGTERM"], show(report)
    assert all(at >= runner["died_at"] for process in sudo for _, at in process["signals"]), show(report)
    assert report["outcome"] == "stopped" and users.processes() == [], show(report)


def test_what_is_spared_behind_a_sudo_lives_on(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, users: Users
) -> None:
    with Listener(airflow_db.url, tmp_path, "--grace", "1") as listener:
        mark = begin(airflow_db, tmp_path, tasks, users, "DAGSTOP_SPARE=1")
        listener.wait_until_remembered(1)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    left = users.processes()
    assert mark.read_text().splitlines() == ["begun"], show(report)
    spared = [process["pid"] for process in report["detail"]["spared"]]
    assert report["outcome"] == "spared" and spared == [p.pid for p in left] != [], show(report)


def test_ps_shows_one_line(airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, users: Users) -> None:
    tags = {"DAG_ID": "dag", "DAG_RUN_ID": "run", "TASK_ID": "a", "TRY_NUMBER": "1"}
    begin(
        airflow_db, tmp_path, tasks, users, *(f"AIRFLOW_CTX_{name}={value}" for name, value in tags.items())
    )
    where = (
        "--database-url",
        airflow_db.url,
        "--airflow-home",
        str(tmp_path),
        "--docker-url",
        "unix:///nowhere",
    )
    rows = json.loads(dagstop("ps", "--json", *where).stdout)["tasks"]
    assert [(row["task_id"], row["try_number"], row["state"]) for row in rows] == [("a", 1, "running")], show(
        rows
    )
    assert len(rows[0]["processes"]) == 4, show(rows)  # supervisor, sudo, runner, sleep

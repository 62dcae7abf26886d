"""What a runner forks without an exec: pools of workers and Python daemons, which bear its title."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.airflow_tables import NO_PROCESS, AirflowDatabase
from tests.support.fake_proc import UUID
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import one_server, shape_2, shape_3
from tests.support.tasks import Tasks, descendants, find, wait_for
from tests.support.watch import wait_until

pytestmark = one_server
TITLE_2, TITLE_3 = "airflow task runner: dag a run 7", f"airflow worker -- {UUID}"

DAEMON = """
import os, subprocess, sys, time, setproctitle
os.setpgid(0, 0)
setproctitle.setproctitle(sys.argv[1])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(3600)
    os._exit(0)
os.wait()
time.sleep(3600)
"""
# a shell that is nobody's, whose environment shows of which Airflow its children are
PARENT = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", sys.executable, "-c"]

AIRFLOW, ANOTHER = 50000, 1002  # users
# the runner becomes a sudo, whose child is another user's, and takes its title once it has begun to work
SUPERVISOR = f"""
import os, sys, time, setproctitle
setproctitle.setproctitle("airflow supervisor: " + sys.argv[1])
if os.fork():
    os.setuid({AIRFLOW})
    time.sleep(3600)
setproctitle.setproctitle("airflow worker -- " + sys.argv[1])
time.sleep(1)
# with a folder: of a bare name Python would look up the real sudo to find its own libraries
sudo = os.path.join(os.path.dirname(sys.executable), "sudo")
os.execv(sys.executable, [sudo, "-c", sys.argv[2], sys.executable, "-c", sys.argv[3], sys.argv[1]])
"""
SUDO = """
import subprocess, sys
subprocess.run(sys.argv[1:])
"""
AGAIN = f"""#from airflow.sdk.execution_time.task_runner import main
import os, sys, time, setproctitle
os.setuid({ANOTHER})
time.sleep(1)
setproctitle.setproctitle("airflow worker -- " + sys.argv[1])
time.sleep(1)
for _ in range(2):
    if os.fork() == 0:
        break
time.sleep(3600)
"""


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Daemons have no parent by which a failed test could end them."""
    yield
    for pid in (*find(TITLE_2), *find(TITLE_3)):
        os.kill(pid, signal.SIGKILL)


def check(*where: str) -> str:
    found = json.loads(dagstop("check", "--json", *where, check=False).stdout)["findings"]
    named = [f"{f['name']}: {f['do'].removeprefix('give it --task-user ')}" for f in found]
    return "; ".join(named)


@shape_2
@pytest.mark.parametrize(
    ("alive", "home_shown"),
    [(True, True), (False, True), (True, False)],
    ids=["runner alive", "runner dead", "no home shown"],
)
def test_a_daemon_without_exec_is_its_runners_and_not_its_twins(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, alive: bool, home_shown: bool
) -> None:
    """Two Airflows on one host with the same DAG, run, task and job id."""
    airflow_db.add_running("run")
    environment = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path)}
    own = environment if home_shown else {"PATH": os.environ["PATH"]}  # Airflow's default: ~/airflow
    ours = tasks.start([*PARENT, DAEMON, TITLE_2], own, session=True)
    wait_until(lambda: len(find(TITLE_2)) == 2 and len(descendants(ours.pid)) == 1, 10, lambda: "no daemon")
    (runner,) = descendants(ours.pid)
    airflow_db.rows("update task_instance set pid = %s", (runner,))
    (daemon,) = set(find(TITLE_2)) - {runner}
    theirs = tasks.start(
        [*PARENT, DAEMON, TITLE_2], {**environment, "AIRFLOW_HOME": "/srv/other"}, session=True
    )
    wait_until(lambda: len(find(TITLE_2)) == 4 and len(descendants(theirs.pid)) == 1, 10, lambda: "no daemon")
    with Listener(airflow_db.url, tmp_path) as listener:
        listener.wait_until_remembered(2)
        if not alive:
            ours.kill()
            os.kill(runner, signal.SIGKILL)
            ours.wait()
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    left = set(find(TITLE_2))
    assert daemon not in left and runner not in left, show(report)
    assert len(left) == 2 and set(descendants(theirs.pid)) < left, show(report)


@shape_3
def test_a_pool_of_a_task_that_runs_as_another_user(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """The listener was not told of that user; all of Airflow is killed before the run is failed."""
    airflow_db.add_run()
    airflow_db.add_task("a", id=UUID, pid=NO_PROCESS, hostname="worker")
    environment = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path)}
    os.chown(tmp_path, AIRFLOW, AIRFLOW)
    with Listener(airflow_db.url, tmp_path) as listener:
        words = [sys.executable, "-c", SUPERVISOR, UUID, SUDO, AGAIN]
        supervisor = tasks.start(words, environment, session=True)
        wait_for(TITLE_3, 3, timeout=20)
        listener.wait_until_remembered(4)  # with sudo
        pool = set(find(TITLE_3))
        where = ("--database-url", airflow_db.url, "--airflow-home", str(tmp_path))
        wait_until(lambda: f"users on host-1: {ANOTHER}" in check(*where), 30, lambda: check(*where))
        runner = next(pid for pid in pool if not pool.isdisjoint(descendants(pid)))
        for pid in (supervisor.pid, *(set(descendants(supervisor.pid)) - pool), runner):
            os.kill(pid, signal.SIGKILL)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1, timeout=40)
    assert report["detail"]["spared"] == [] and len(report["detail"]["processes"]) == 2, show(report)
    wait_for(TITLE_3, 0)

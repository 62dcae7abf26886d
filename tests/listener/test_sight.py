"""A listener that may not read the tasks' processes says so: it calls no order stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dagstop.install.health import GIVE_RIGHTS
from tests.conftest import missing
from tests.support.airflow_tables import AirflowDatabase
from tests.support.commands import failing
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import on_one
from tests.support.tasks import Tasks, find, wait_for

WITHOUT = ["setpriv", "--bounding-set=-sys_ptrace,-perfmon,-sys_admin", "--inh-caps=-all"]
TASKS = 65534
# the interpreter may lie where only root gets at: it loads first
AS_ANOTHER = """
import encodings.idna, os, dagstop.__main__, dagstop.commands.check, dagstop.install, dagstop.sql
dagstop.sql.queries()
os.setgroups([])
os.setresgid(4701, 4701, 4701)
os.setresuid(4701, 4701, 4701)
dagstop.__main__.main()
"""


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        missing(RuntimeError("only root can start processes of another user"))


@on_one
def test_what_could_not_be_read_is_no_all_clear(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    airflow_db.rows("update task_instance set hostname = 'host-1'")
    lower = ["setpriv", f"--reuid={TASKS}", f"--regid={TASKS}", "--clear-groups", "sleep", "7351"]
    tasks.start(lower, tasks.environment("dag", "run", "a"), session=True)
    wait_for("sleep 7351")
    mine = tasks.start([*WITHOUT, "sleep", "7352"], tasks.environment("dag", "run", "a"), session=True)
    wait_for("sleep 7352")
    listener = Listener(airflow_db.url, tmp_path, "--task-user", str(TASKS))
    listener.command[:0] = WITHOUT
    where = ("--database-url", airflow_db.url)
    with listener:
        done = failing("stop", "dag", "run", "--wait", *where)
        (report,) = listener.wait_for_reports(1)
        airflow_db.wait_until(
            "select jsonb_array_length(detail -> 'could_not_look') > 0 from dagstop.listener"
        )
        checked = failing("check", *where).stdout
    assert mine.wait(5) == -15 and find("sleep 7351")  # the one died, of the other nothing could be read
    assert report["outcome"] == "could_not_look", show(report)
    said = f"process of uid {TASKS}: /proc/"
    assert any(said in why for why in report["detail"]["could_not_look"]), show(report)
    assert "host-1: could_not_look" in done.stdout and "CAP_SYS_PTRACE is missing" in done.stdout
    assert "failed\tsight of host-1\t" in checked


@on_one
def test_check_tries_each_right(airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks) -> None:
    lower = ["setpriv", f"--reuid={TASKS}", f"--regid={TASKS}", "--clear-groups", "sleep", "7353"]
    tasks.start(lower, {"PATH": os.environ["PATH"]}, session=True)
    wait_for("sleep 7353")
    options = ("--database-url", airflow_db.url, "--airflow-home", str(tmp_path), "--task-user", str(TASKS))
    with Listener(airflow_db.url, tmp_path):
        said = dagstop("check", *options, check=False).stdout
        poor = dagstop("check", *options, check=False, before=WITHOUT).stdout
    assert (
        f"ok\trights over uid {TASKS}\tuid 0 can read 1 of 1 process, see the namespace of 1, signal 1"
        in said
    )
    assert (
        f"failed\trights over uid {TASKS}\tuid 0 can read 0 of 1 process, see the namespace of 0, signal 1"
        in poor
    )


@on_one
def test_check_by_another_user_says_whose_rights_it_tried(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    lower = ["setpriv", f"--reuid={TASKS}", f"--regid={TASKS}", "--clear-groups", "sleep", "7354"]
    tasks.start(lower, {"PATH": os.environ["PATH"]}, session=True)
    wait_for("sleep 7354")
    words = ["check", "--database-url", airflow_db.url, "--task-user", str(TASKS)]
    with Listener(airflow_db.url, tmp_path):
        done = subprocess.run([sys.executable, "-c", AS_ANOTHER, *words], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if f"rights over uid {TASKS}" in line]
    assert len(lines) == 1, done.stdout + done.stderr
    (line,) = lines
    assert line.startswith("failed\t"), done.stdout + done.stderr
    assert line.endswith(f"\trun this check as the listener's user; {GIVE_RIGHTS}") and done.returncode == 1


@on_one
def test_a_listener_that_sees_all_says_nothing_of_that(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7354", tasks.environment("dag", "run", "a"))
    wait_for("sleep 7354")
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped" and "could_not_look" not in report["detail"], show(report)


@on_one
def test_a_listener_says_that_an_engine_does_not_answer(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as nobodys:
        nobodys.bind(str(path))  # there, and nobody listens
    with Listener(airflow_db.url, tmp_path, docker_url=f"unix://{path}"):
        airflow_db.wait_until(
            "select jsonb_array_length(detail -> 'docker_refused') > 0 from dagstop.listener"
        )
        said = dagstop("check", "--database-url", airflow_db.url, check=False).stdout
    assert "warning\tDocker of host-1\t" in said and str(path) in said


@pytest.mark.parametrize("lacks", [True, False], ids=["without CAP_SYS_PTRACE", "with it"])
def test_a_proc_that_hides_others_is_no_sight(lacks: bool) -> None:
    asks = (
        "from dagstop.evidence.sight import unseen; from dagstop.host.procfs import ProcFS;"
        f"print(unseen([], ProcFS(), {{0, {TASKS}}}))"
    )
    mounts = ["unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh"]
    words = [*mounts, *(WITHOUT if lacks else ()), sys.executable, "-c", asks]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    hidden = f"['processes of uid {TASKS}: /proc hides them (hidepid), and CAP_SYS_PTRACE is missing']\n"
    assert said == (hidden if lacks else "[]\n")

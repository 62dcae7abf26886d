"""A listener that is root but lacks CAP_SYS_PTRACE, as `docker run --pid=host` makes one by default."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import CLEAN, Listener, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import RUNNER, Tasks, find, wait_for

pytestmark = [one_server, shape_2]
TITLE = "airflow task runner: dag a run 7"
WITHOUT = ["setpriv", "--bounding-set=-sys_ptrace,-perfmon,-sys_admin", "--inh-caps=-all"]


@pytest.fixture(autouse=True)
def needs_root() -> None:
    if os.geteuid() != 0:
        missing(RuntimeError("only root can lack a capability of root's"))


@pytest.mark.parametrize("lacks", [True, False], ids=["without CAP_SYS_PTRACE", "with it"])
def test_another_airflows_processes_live(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, lacks: bool
) -> None:
    """The other Airflow runs in a container, with the same ids and the same job id."""
    airflow_db.add_running("run")
    away = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    theirs = tasks.environment("dag", "run", "a", AIRFLOW_HOME="/srv/b")
    # as a container's shim, what starts it shows nothing of that Airflow
    words = [*away, "env", *(f"{name}={value}" for name, value in theirs.items())]
    words += [sys.executable, "-c", RUNNER, TITLE, "session", "sleep 7811; true"]
    tasks.start(words, {"PATH": theirs["PATH"]}, session=True)
    tasks.runner(TITLE, "sleep 7812; true", session=True)
    wait_for("sleep 7811")
    wait_for("sleep 7812")
    listener = Listener(airflow_db.url, tmp_path)
    if lacks:
        listener.command = [*WITHOUT, *listener.command]
    with listener:
        assert listener.process is not None
        status = Path(f"/proc/{listener.process.pid}/status").read_text()
        held = int(status.partition("CapEff:\t")[2].partition("\n")[0], 16)
        assert bool(held & 1 << 19) is not lacks
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert find("sleep 7811"), show(report)
    reasons = [item["why"] for item in report["detail"]["spared"] if item["command"] == TITLE]
    if lacks:  # nor can it tell whose the other runner is
        assert find("sleep 7812") and report["outcome"] == "spared", show(report)
        assert len(reasons) == 2, show(report)
        assert all("/ns/pid cannot be read: CAP_SYS_PTRACE is missing" in why for why in reasons), reasons
    else:
        assert not find("sleep 7812"), show(report)
        assert "it lives in another pid namespace" in reasons, show(report)


def test_what_the_listener_may_read_dies_all_the_same(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """A task that has no more rights than the listener."""
    airflow_db.add_running("run")
    words = [*WITHOUT, "bash", "-c", "sleep 7813; true"]
    tasks.start(words, tasks.environment("dag", "run", "a"), session=True)
    wait_for("sleep 7813")
    listener = Listener(airflow_db.url, tmp_path)
    listener.command = [*WITHOUT, *listener.command]
    with listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    # the tests themselves run as the same user, and may not be read: one of them might be the run's
    assert report["outcome"] == "could_not_look", show(report)
    assert not find("sleep 7813")


def test_the_proc_of_another_namespace_is_refused(airflow_db: AirflowDatabase, tmp_path: Path) -> None:
    """Its pids mean other processes than those that a signal would reach."""
    command = Listener(airflow_db.url, tmp_path).command
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", *command, "--once"],
        env=CLEAN, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "/proc shows another pid namespace" in done.stderr.splitlines()[-1]

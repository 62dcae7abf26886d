"""A listener's first look falls into the end of Airflow: a runner that was killed still frees its memory."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, descendants, find, wait_for

pytestmark = [one_server, shape_2]

CELERY = """
import subprocess, sys, time, setproctitle
setproctitle.setproctitle("[celeryd: celery@worker:MainProcess]")
subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]])
time.sleep(3600)
"""
# its first thread ends, another stays: it has no words and no memory any more, and its children are its own
RUNNER = """
import ctypes, os, subprocess, sys, threading, time, setproctitle
setproctitle.setproctitle("airflow task runner: dag t run 7")
subprocess.Popen(["bash", "-c", sys.argv[1]], start_new_session=True)
threading.Thread(target=time.sleep, args=(3600,)).start()
os.read(0, 1)
ctypes.CDLL(None).syscall(60, 0)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of exit(2)")
def test_orphans_below_a_dying_runner_die_with_the_run(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    words = "sleep 7811 & wait"
    celery = tasks.start(
        [sys.executable, "-c", CELERY, RUNNER, words], tasks.environment("dag", "run"), session=True
    )
    wait_for("sleep 7811")
    (runner,) = [pid for pid in descendants(celery.pid) if _state(pid) == "Z"]
    with Listener(airflow_db.url, tmp_path) as listener:
        airflow_db.set_run("failed")
        with pytest.raises(AssertionError, match="0 of 1 reports"):
            listener.wait_for_reports(1, timeout=2)
        assert find("sleep 7811") and find(f"bash -c {words}")
        os.kill(runner, signal.SIGKILL)
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped" and report["detail"]["spared"] == [], show(report)
    assert len(report["detail"]["processes"]) == 2, show(report)
    wait_for("sleep 7811", 0)
    assert celery.poll() is None


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

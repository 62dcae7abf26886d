"""A listener that is not root: a user with CAP_KILL, CAP_SYS_PTRACE and the group of Docker's socket, no more."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, find, wait_for
from tests.testbed.docker_engine import IMAGE, Engine

pytestmark = [one_server, shape_2]
LISTENER, DOCKER_GROUP, TASKS, OTHER = 4701, 4702, 4703, 4704  # nobody's in /etc/passwd
CAPABILITIES = 1 << 5 | 1 << 19  # CAP_KILL, CAP_SYS_PTRACE
SPARED = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups"]

# the interpreter may lie where only root gets at: it loads first, then gives up what it has
LAUNCHER = f"""
import ctypes, difflib, encodings.ascii, encodings.idna, encodings.latin_1, os, sys, traceback
import docker
import dagstop.__main__, dagstop.commands.listen, dagstop.daemon, dagstop.sql
dagstop.sql.queries()
libc = ctypes.CDLL(None)
assert libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
os.setgroups([{DOCKER_GROUP}])
os.setresgid({LISTENER}, {LISTENER}, {LISTENER})
os.setresuid({LISTENER}, {LISTENER}, {LISTENER})
held = (ctypes.c_uint32 * 6)({CAPABILITIES}, {CAPABILITIES}, {CAPABILITIES})
assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), held) == 0
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
sys.argv[0] = "dagstop"
dagstop.__main__.main()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """An AIRFLOW_HOME of the tasks' user, which everybody can reach."""
    if os.geteuid() != 0:
        missing(RuntimeError("only root can become other users"))
    folder = Path(tempfile.mkdtemp(prefix="dagstop-home-"))
    folder.chmod(0o755)
    (folder / "dagstop-state").mkdir(mode=0o700)
    os.chown(folder / "dagstop-state", LISTENER, LISTENER)
    os.chown(folder, TASKS, TASKS)
    yield folder
    shutil.rmtree(folder)


def test_it_stops_processes_and_containers_of_another_user(
    airflow_db: AirflowDatabase, home: Path, docker_engine: Engine
) -> None:
    airflow_db.add_running("run", ("a", "c"))
    client = docker_engine.client()
    socket = docker_engine.url.removeprefix("unix://")
    docker_engine.folder.chmod(0o711)
    os.chown(socket, 0, DOCKER_GROUP)
    listener = Listener(airflow_db.url, home, docker_url=docker_engine.url)
    at = listener.command.index("listen")
    listener.command = [sys.executable, "-c", LAUNCHER, *listener.command[at:]]
    try:
        tags = {
            "AIRFLOW_CTX_DAG_ID": "dag",
            "AIRFLOW_CTX_DAG_RUN_ID": "run",
            "DAGSTOP_AIRFLOW_HOME": str(home),
        }
        container = client.containers.run(
            IMAGE, ["sleep", "600"], detach=True, network_mode="none", auto_remove=True,
            environment={**tags, "AIRFLOW_CTX_TASK_ID": "c"},
        )  # fmt: skip
        with Tasks(home) as tasks:
            as_tasks = ["setpriv", f"--reuid={TASKS}", f"--regid={TASKS}", "--clear-groups"]
            named, other = tasks.environment("dag", "run", "a"), tasks.environment("dag", "run2", "a")
            tasks.start([*as_tasks, "bash", "-c", "trap '' TERM; sleep 7871; true"], named, session=True)
            tasks.start([*as_tasks, "sleep", "7872"], other, session=True)
            tasks.start([*SPARED, "sleep", "7873"], named, session=True)
            for number in (7871, 7872, 7873):
                wait_for(f"sleep {number}")
            with listener:
                assert listener.process is not None
                status = Path(f"/proc/{listener.process.pid}/status").read_text()
                assert (
                    f"CapEff:\t{CAPABILITIES:016x}\n" in status and f"Uid:\t{LISTENER}\t{LISTENER}" in status
                )
                assert f"Groups:\t{DOCKER_GROUP} \n" in status
                airflow_db.set_run("failed")
                (report,) = listener.wait_for_reports(1)
            assert report["outcome"] == "spared", show(report)  # the stranger's says that it is of the run
            assert not find("sleep 7871") and find("sleep 7872") and find("sleep 7873")
            (stopped,) = report["detail"]["containers"]
            assert str(container.id).startswith(stopped["id"]), show(report)
            assert container.id not in {c.id for c in client.containers.list(ignore_removed=True)}
            assert "no right" not in listener.log() and "denied" not in listener.log()
    finally:
        os.chown(socket, 0, 0)
        docker_engine.remove_containers()
        client.close()

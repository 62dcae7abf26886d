"""What only watches a container: it keeps no order waiting once that is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dagstop.evidence.containers import watches
from tests.support.airflow_tables import AirflowDatabase
from tests.support.containers import Run
from tests.support.fake_proc import process
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks
from tests.testbed.docker_engine import Engine

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: None)
open("ready", "w").close()
while True:
    time.sleep(60)
"""


@one_server
@shape_2
def test_docker_stats_gets_no_grace_once_its_container_is_gone(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks, docker_engine: Engine, run: Run
) -> None:
    """As cwltool starts it beside each container; the client of Docker 20.10 outlives SIGTERM."""
    airflow_db.add_running("run")
    container = run(["sleep", "600"])
    (tmp_path / "stats").write_text(STUBBORN)  # what python runs, called docker
    watcher = subprocess.Popen(
        ["docker", "stats", "--no-trunc", "--format", "{{.MemPerc}}", str(container.id)],
        executable=sys.executable, env=tasks.environment("dag", "run", "a"), cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    try:
        tasks.wait_for_file(tmp_path / "ready")
        where = ("--database-url", airflow_db.url)
        with Listener(airflow_db.url, tmp_path, "--grace", "60", docker_url=docker_engine.url) as listener:
            airflow_db.set_run("failed")
            (report,) = listener.wait_for_reports(1)  # 30 s at most
        assert report["outcome"] == "stopped", show(report)
        assert watcher.wait(5) == -9
        (item,) = [p for p in report["detail"]["processes"] if p["pid"] == watcher.pid]
        assert [name for name, _ in item["signals"]] == ["SIGTERM", "SIGKILL"]
        (stopped,) = json.loads(dagstop("history", "--json", *where).stdout)
        assert stopped["detail"]["containers"][0]["died_at"] < stopped["detail"]["processes"][0]["died_at"]
        took = dagstop("history", *where).stdout.splitlines()[1].rpartition("\t")[2]
        assert ", containers " in took, took
    finally:
        watcher.kill()
        watcher.wait()
    assert os.path.exists(tmp_path / "ready")


@pytest.mark.parametrize(
    ("words", "watched"),
    [
        ("docker stats --no-trunc --format x one two", ("one", "two")),
        ("docker stats --format=x one", ("one",)),
        ("/usr/bin/docker -H unix:///x container logs -f --tail 5 one", ("one",)),
        ("podman wait one", ("one",)),
        ("docker stats", ()),  # all of them: what it watches is never gone
        ("docker run --name one image stats two", ()),
        ("docker exec one stats two", ()),
        ("docker rm one", ()),
        ("stats one", ()),
        ("", ()),
    ],
)
def test_what_a_client_only_watches(words: str, watched: tuple[str, ...]) -> None:
    assert watches(process(argv=tuple(words.split()))) == watched

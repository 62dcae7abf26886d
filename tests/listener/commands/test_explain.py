"""`dagstop explain` and a dry run say of a real host what a listener then does."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from tests.support.airflow_tables import AirflowDatabase
from tests.support.commands import NO_DOCKER
from tests.support.containers import TWIN, Run, running
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import on_one
from tests.support.tasks import Tasks, find, wait_for
from tests.testbed.docker_engine import IMAGE, Engine


@on_one
def test_all_that_it_says_will_die_dies_and_nothing_else(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, tasks: Tasks, run: Run
) -> None:
    airflow_db.add_running("run")
    tasks.bash("sleep 7391", tasks.environment("dag", "run"))
    tasks.bash("sleep 7392", tasks.environment("dag", "run", DAGSTOP_SPARE="1"))
    tasks.bash("sleep 7393", tasks.environment("dag", "run", AIRFLOW_HOME="/srv/other"))
    client = f"docker run --network none --cidfile {tmp_path}/cid --rm {IMAGE} sleep 7394"
    tasks.bash(client, tasks.environment("dag", "run", DOCKER_HOST=docker_engine.url, HOME=str(tmp_path)))
    containers = {
        str(c.id)[:12]: c
        for c in (
            run(["sleep", "7395"]),
            run(["sleep", "7396"], more_tags=TWIN),
            run(["sleep", "7397"], dag="x"),
        )
    }
    wait_for("sleep 7394")
    options = ["--database-url", airflow_db.url, "--airflow-home", str(tmp_path)]
    options += ["--docker-url", docker_engine.url]
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        listener.wait_until_remembered(2)
        said = json.loads(dagstop("explain", "dag", "run", "--json", *options).stdout)
        doomed, spared = of(said, "kill"), of(said, "spare")
        listener.stop()
        airflow_db.set_run("failed")
        (line,) = [
            line
            for line in dagstop("listen", "--once", "--dry-run", *options).stderr.splitlines()
            if "would be" in line
        ]
        pids = [what for what in doomed if what.startswith("pid")]
        counts = f"processes={len(pids)} containers={len(doomed) - len(pids)} spared={len(spared)} "
        assert counts in line
        listener.start()
        (report,) = listener.wait_for_reports(1)
    detail = report["detail"]
    died = {f"pid {item['pid']}" for item in detail["processes"]}
    died |= {f"container {item['id']}" for item in detail["containers"]}
    assert died == doomed, show(report)
    assert {f"pid {item['pid']}" for item in detail["spared"] if "pid" in item} == {
        what for what in spared if what.startswith("pid")
    }
    assert f"container {(tmp_path / 'cid').read_text()[:12]}" in doomed
    for ident, container in containers.items():
        assert running(container) == (f"container {ident}" not in doomed)
    assert find("sleep 7392") and find("sleep 7393")
    assert not find("sleep 7391") and not find("sleep 7394")


@on_one
def test_what_runs_it_is_judged_as_the_listener_judges_it(
    airflow_db: AirflowDatabase, tmp_path: Path, tasks: Tasks
) -> None:
    """A task may look at itself: the listener knows no reason to spare it."""
    airflow_db.add_running("run")
    where = ["--database-url", airflow_db.url, "--airflow-home", str(tmp_path), *NO_DOCKER, "--json"]
    words = shlex.join([sys.executable, "-m", "dagstop", "explain", "dag", "run", *where])
    with Listener(airflow_db.url, tmp_path):
        airflow_db.wait_until("select detail ? 'pid' from dagstop.listener")
        command = f"{words} > {tmp_path}/said.new; mv {tmp_path}/said.new {tmp_path}/said; sleep 7398"
        bash = tasks.bash(command, tasks.environment("dag", "run"))
        tasks.wait_for_file(tmp_path / "said")
    assert f"pid {bash.pid}" in of(json.loads((tmp_path / "said").read_text()), "kill")


def of(said: Any, verdict: str) -> set[str]:
    return {fact["what"] for fact in said["found"] if fact["verdict"] == verdict}

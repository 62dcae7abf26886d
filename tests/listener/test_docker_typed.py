"""Containers that a task's `docker run` started without a name, on a real engine: tied by counting, or named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, find, wait_for
from tests.testbed.docker_engine import IMAGE, Engine

pytestmark = [one_server, shape_2]
RUN = f"docker run --network none {IMAGE}"


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Tasks]:
    with Tasks(tmp_path) as started:
        yield started


@pytest.fixture(autouse=True)
def cleared(docker_engine: Engine) -> Iterator[None]:
    """Only this test's containers, and none afterwards."""
    yield
    docker_engine.remove_containers()


def type_line(tasks: Tasks, engine: Engine, home: Path, run: str, line: str) -> int:
    """A bash task that types it; the pid of its group."""
    environ = tasks.environment("dag", run, "a", DOCKER_HOST=engine.url, HOME=str(home))
    return tasks.bash(line, environ).pid


def test_of_two_runs_that_typed_one_line_at_one_time_neither_container_dies_and_both_are_named(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, tasks: Tasks
) -> None:
    airflow_db.add_running("run")
    airflow_db.add_running("other", number=1)
    with docker_engine.paused():
        for run in ("run", "other"):
            type_line(tasks, docker_engine, tmp_path, run, f"exec {RUN} sleep 7703")
        wait_for(f"{RUN} sleep 7703", 2)
    wait_for("sleep 7703", 2)
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        said = json.loads(explain(airflow_db, tmp_path, docker_engine))
        assert [f["verdict"] for f in said["found"] if "container" in f["what"]] == ["spare"] * 2, said
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "spared", show(report)
        assert len(report["detail"]["containers_untied"]) == 2, show(report)
        whys = {item["why"] for item in report["detail"]["spared"] if "container" in item}
        assert len(whys) == 1 and "and so may others" in whys.pop(), show(report)
        assert len(find("sleep 7703")) == 2


def explain(db: AirflowDatabase, home: Path, engine: Engine) -> str:
    options = ["--database-url", db.url, "--airflow-home", str(home), "--docker-url", engine.url]
    state = ["--state-dir", str(home / "dagstop-state")]
    return dagstop("explain", "dag", "run", *options, *state, "--json").stdout


def listed(db: AirflowDatabase, home: Path, engine: Engine) -> tuple[dict[str, Any], str]:
    """What `ps` says with what the listener knows, as JSON and as a table."""
    options = ["--database-url", db.url, "--airflow-home", str(home), "--docker-url", engine.url]
    options += ["--state-dir", str(home / "dagstop-state")]
    shown: dict[str, Any] = json.loads(dagstop("ps", *options, "--json").stdout)
    return shown, dagstop("ps", *options).stdout


def test_what_an_attached_exec_runs_dies_and_its_container_lives(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, tasks: Tasks
) -> None:
    """The client is SIGKILLed first, which leaves what it runs alive."""
    airflow_db.add_running("run")
    airflow_db.add_running("other", number=1)
    client = docker_engine.client()
    container = client.containers.run(IMAGE, ["sleep", "7720"], detach=True, network_mode="none")
    client.close()
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        for run, number in (("run", 7721), ("other", 7722)):
            line = f"exec docker exec {container.name} sh -c 'sleep {number}; :'"
            type_line(tasks, docker_engine, tmp_path, run, line)
        wait_for("sleep 7721")
        wait_for("sleep 7722")
        listener.wait_until_remembered(6)  # of each run: the client, the shell inside, its child
        shown, table = listed(airflow_db, tmp_path, docker_engine)
        for row in shown["tasks"]:
            inside = [one["command"] for one in row["processes"] if one["container"] == container.name]
            assert len(inside) == 2 and len(row["processes"]) == 3, show(row)
        assert table.count(f"in {container.name}") == 2, table
        for pid in find(f"docker exec {container.name} sh -c sleep 7721; :"):
            tasks.end(pid)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)
    proofs = {
        proof.partition(" by ")[0] for item in report["detail"]["processes"] for proof in item["evidence"]
    }
    assert "docker exec" in proofs, show(report)
    assert not find("sleep 7721") and find("sleep 7722") and find("sleep 7720")


def test_what_a_compose_may_have_created_is_named(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, tasks: Tasks
) -> None:
    """That of its project and its lifetime, and no other's."""
    airflow_db.add_running("run")
    project = tmp_path / "project"
    project.mkdir()
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        words = "exec -a docker-compose sh -c 'sleep 7731; :' up -d"
        tasks.bash(words, tasks.environment("dag", "run", "a"), folder=project)
        wait_for("sleep 7731")
        client = docker_engine.client()
        for name, folder in (("project-web-1", project), ("another-web-1", tmp_path / "another")):
            labels = {
                "com.docker.compose.project": name.partition("-")[0],
                "com.docker.compose.project.working_dir": str(folder),
            }
            client.containers.run(
                IMAGE, ["sleep", "7732"], detach=True, network_mode="none", name=name, labels=labels
            )
        client.close()
        options = ["--database-url", airflow_db.url, "--airflow-home", str(tmp_path)]
        options += ["--docker-url", docker_engine.url]
        listed = json.loads(dagstop("ps", *options, "--json").stdout)
        whys = {item["what"].split()[1]: item["why"] for item in listed["not_attributable"]}
        assert "compose" in whys["project-web-1"] and "compose" not in whys["another-web-1"]
        listener.wait_until_remembered(2)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "spared", show(report)
    assert report["detail"]["containers_untied"] == ["project-web-1"], show(report)
    assert len(find("sleep 7732")) == 2

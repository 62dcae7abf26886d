"""`docker compose up` that a task typed, with a real compose: what it may have created is named, and lives."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dagstop.evidence.clients import SLACK
from tests.conftest import require_packages
from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, find, wait_for
from tests.support.watch import wait_until
from tests.testbed.docker_engine import IMAGE, Engine

pytestmark = [one_server, shape_2]
DEBIANS = "docker-compose"
COMPOSES = [DEBIANS, *filter(None, [os.environ.get("DAGSTOP_TESTBED_COMPOSE")])]
SERVICES = "".join(
    f"  {name}: {{image: {IMAGE}, network_mode: none, stop_grace_period: 1s, command: [sleep, '{seconds}']}}\n"
    for name, seconds in (("db", 7741), ("web", 7742))
)


@pytest.fixture(params=COMPOSES, ids=lambda path: Path(path).name)
def compose(request: pytest.FixtureRequest, docker_engine: Engine) -> Iterator[str]:
    """The program; all containers are removed afterwards."""
    require_packages("docker-compose")
    path = shutil.which(request.param)
    assert path is not None
    yield path
    docker_engine.remove_containers()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(f"version: '3'\nservices:\n{SERVICES}")
    return folder


def found_running(compose: str, engine: Engine, project: Path) -> dict[str, str]:
    """Start `db` of the project, as somebody did before any task; what is to stay as it is."""
    _run(compose, engine, "-f", str(project / "docker-compose.yml"), "up", "-d", "db")
    wait_for("sleep 7741", timeout=60)
    started = time.monotonic()
    # what came later than that may be the task's, as far as the clocks say
    wait_until(lambda: time.monotonic() - started > 2 * SLACK, 60, lambda: "older than the clocks may differ")
    return state_of(engine, "db")


def _run(compose: str, engine: Engine, *words: str) -> None:
    environment = {"PATH": os.environ["PATH"], "DOCKER_HOST": engine.url, "HOME": "/nonexistent"}
    subprocess.run([compose, *words], env=environment, check=True, capture_output=True)


def state_of(engine: Engine, service: str) -> dict[str, str]:
    """Id, name, start and end of its only container."""
    client = engine.client()
    try:
        label = f"com.docker.compose.service={service}"
        (container,) = client.containers.list(all=True, filters={"label": label})
        state = container.attrs["State"]
        facts = {"id": str(container.id), "name": str(container.name)}
        return facts | {name: state[name] for name in ("Status", "StartedAt", "FinishedAt")}
    finally:
        client.close()


@pytest.mark.parametrize(
    ("where", "line", "alive"),
    [
        ("shop/below", "{compose} up -d", False),
        ("shop", "{compose} up -d", True),
        (".", "{compose} --file={shop}/docker-compose.yml up -d", False),
        (".", "COMPOSE_FILE=shop/docker-compose.yml COMPOSE_PROJECT_NAME=other {compose} up -d web", False),
    ],
    ids=["from below", "Airflow alive", "by its file", "by its environment"],
)
def test_what_an_up_created_is_named_and_what_it_found_running_is_not_touched(
    airflow_db: AirflowDatabase,
    tmp_path: Path,
    docker_engine: Engine,
    compose: str,
    project: Path,
    where: str,
    line: str,
    alive: bool,
) -> None:
    airflow_db.add_running("run")
    (project / "below").mkdir()
    before = found_running(compose, docker_engine, project)
    with (
        Tasks(tmp_path) as tasks,
        Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener,
    ):
        line = line.format(compose=compose, shop=project)
        environ: Any = tasks.environment("dag", "run", "a", DOCKER_HOST=docker_engine.url, HOME=str(tmp_path))
        with docker_engine.paused():  # until the listener has seen the client
            if alive:
                command = f"cd {tmp_path / where}; {line}; sleep 7743"
                tasks.runner("airflow task runner: dag a run 7", command, **environ)
            else:
                tasks.bash(line, environ, folder=tmp_path / where)
            listener.wait_until_noted(1)
        wait_for("sleep 7742", timeout=60)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        web = state_of(docker_engine, "web")
        assert report["outcome"] == "spared", show(report)
        assert report["detail"]["containers_untied"] == [web["name"]], show(report)
        assert web["Status"] == "running" and find("sleep 7742")
        assert not find("sleep 7743")
    assert state_of(docker_engine, "db") == before


def test_an_attached_up_ends_its_project_by_itself(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, compose: str, project: Path
) -> None:
    """As it does for Ctrl-C, and where Airflow's own on_kill signals it: also what it found running."""
    airflow_db.add_running("run")
    found_running(compose, docker_engine, project)
    with (
        Tasks(tmp_path) as tasks,
        Listener(airflow_db.url, tmp_path, "--grace", "90", docker_url=docker_engine.url) as listener,
    ):
        environ = tasks.environment("dag", "run", "a", DOCKER_HOST=docker_engine.url, HOME=str(tmp_path))
        tasks.bash(f"PYTHONUNBUFFERED=1 {compose} up > {tmp_path}/out.txt 2>&1", environ, folder=project)
        wait_for("sleep 7742", timeout=60)
        said = tmp_path / "out.txt"
        wait_until(lambda: "Attaching to" in said.read_text(), 60, said.read_text)
        airflow_db.set_run("failed")
        listener.wait_for_reports(1)
        wait_until(lambda: not find("sleep 7742") and not find("sleep 7741"), 90, listener.log)

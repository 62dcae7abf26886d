"""A real Airflow in a container, its twin in another, and one listener beside both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import contained
from tests.e2e.conftest import VERSIONS
from tests.support.listener import Listener, show
from tests.support.watch import wait_until
from tests.support.workers import HOME, Worker, workers
from tests.testbed import airflows, environment
from tests.testbed.docker_engine import Engine
from tests.testbed.postgres import Server, binaries, connect, rows

pytestmark = pytest.mark.e2e
PLAYED = [version for version in ("2.11.2", "3.3.2") if version in VERSIONS]
START_SECONDS, DEATH_SECONDS = 400.0, 60.0
ALL = {"6101", "6102", "6103", "6104", "6105"}
RUNS = ("contained_7001", "contained_7002")


@dataclass
class Project:
    """One Airflow in one container, and its database as the tests reach it."""

    worker: Worker
    server: Server
    airflow: Path
    generation: int

    @property
    def url(self) -> str:
        return self.server.url("airflow")

    def run(self, *words: str) -> None:
        """A command of Airflow in the container."""
        code, output = self.worker.container.exec_run([str(self.airflow), *words])
        assert code == 0, output.decode()[-3000:]

    def asleep(self, run: str) -> dict[str, int]:
        """The first digits of the run's living sleeps, and their pids on this host."""
        number = run.rpartition("_")[2]
        found = {}
        for pid, words in self.worker.pids().items():
            name, _, end = words.removeprefix("sleep ").partition(".")
            if words.startswith("sleep ") and end == number:
                found[name] = pid
        return found

    def states(self, run: str) -> set[tuple[str, str]]:
        return set(rows(self.url, "select state, hostname from task_instance where run_id = %s", (run,)))

    def said(self) -> str:
        _, output = self.worker.container.exec_run(["tail", "-n", "60", f"{HOME}/out.log"])
        return f"{self.worker.hostname}: {output.decode(errors='replace')}"

    def start_run(self, run: str) -> None:
        self.run("dags", "trigger", "contained", "-r", run)

    def wait_for(self, run: str) -> None:
        running = {("running", self.worker.hostname)}
        done = lambda: set(self.asleep(run)) == ALL and self.states(run) == running  # noqa: E731
        wait_until(done, START_SECONDS, lambda: f"{self.asleep(run)} {self.states(run)} {self.said()}")


@pytest.fixture(params=PLAYED)
def projects(
    request: pytest.FixtureRequest, docker_engine: Engine, airflow_server: Server, tmp_path: Path
) -> Iterator[tuple[Project, Project]]:
    version = request.param
    venv = airflows.build(version)
    dags = tmp_path / "dags"
    shutil.copytree(Path(__file__).parent / "contained_dags", dags, ignore=shutil.ignore_patterns("__*"))
    init = contained.init(venv, _parts(version))
    other = contained.roomy(Server(list(binaries().values())[-1]))
    try:
        with workers(docker_engine) as start:
            found = []
            for name, server in (("shop", airflow_server), ("bank", other)):
                server.create_database(name="airflow")
                contained.migrate(venv, server.url("airflow"), version, tmp_path / name)
                folders = contained.shared(venv, server, dags, tmp_path / f"sockets-{name}")
                shown = {"environment": contained.variables(version, venv), "shared": folders, "init": init}
                generation = environment.generation(version)
                found.append(Project(start(name, **shown), server, venv / "bin" / "airflow", generation))
            yield found[0], found[1]
    finally:
        with connect(airflow_server.url("postgres")) as connection:
            connection.cursor().execute("drop database if exists airflow with (force)")
        other.stop()


def _parts(version: str) -> list[str]:
    if environment.generation(version) == 3:
        return ["api-server -p 8080", "dag-processor", "scheduler"]
    return ["scheduler"]


def test_runs_in_a_container_die_and_nothing_of_the_twin(
    projects: tuple[Project, Project], docker_engine: Engine, tmp_path: Path
) -> None:
    ours, twin = projects
    for project in projects:
        for run in RUNS:
            wait_until(lambda p=project: _ready(p), START_SECONDS, project.said)
            project.start_run(run)
    for project in projects:
        for run in RUNS:
            project.wait_for(run)
    theirs = [twin.asleep(run) for run in RUNS]
    options = ("--container", "compose=shop", "--same-database", contained.URL)
    listener = Listener(ours.url, tmp_path, *options, docker_url=docker_engine.url)
    with listener:
        listener.wait_for("verdict=ours")
        listener.wait_for('verdict="it lives in a container that no --container names"')
        # Airflow is alive
        _fail(ours, RUNS[0])
        report = _report(listener, 1)
        _judge(report, twin)
        assert ours.asleep(RUNS[0]) == {}
        assert set(ours.asleep(RUNS[1])) == ALL
        # all of it was killed
        contained.kill(ours.airflow, ours.worker)
        assert set(ours.asleep(RUNS[1])) == ALL
        _fail(ours, RUNS[1])
        report = _report(listener, 2)
        _judge(report, twin)
        assert ours.asleep(RUNS[1]) == {}
        assert [twin.asleep(run) for run in RUNS] == theirs
        print(listener.log())


def _ready(project: Project) -> bool:
    """Its DAG is known and (3.x) its tasks can reach the API server: they are not tried for long."""
    found = rows(project.url, "select 1 from dag where dag_id = 'contained' and not is_paused")
    serves = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080"]
    return bool(found) and (
        project.generation < 3 or project.worker.container.exec_run(serves).exit_code == 0
    )


def _judge(report: dict[str, Any], twin: Project) -> None:
    """Nothing but the twin's was spared: on 3.x a try of another number is in doubt, which is said."""
    spared = {item["pid"] for item in report["detail"]["spared"] if "whose" not in item}
    assert spared <= twin.worker.pids().keys(), show(report)
    assert report["outcome"] == ("spared" if spared else "stopped"), show(report)


def _fail(project: Project, run: str) -> None:
    rows(project.url, "update dag_run set state = 'failed' where run_id = %s", (run,))


def _report(listener: Listener, count: int) -> dict[str, Any]:
    """The last one of the orders about runs."""

    def of_runs() -> list[dict[str, Any]]:
        return [report for report in listener.reports() if report["kind"] == "run"]

    wait_until(lambda: len(of_runs()) >= count, DEATH_SECONDS, listener.log)
    return of_runs()[-1]

"""Containers whose `docker run` client is dead when their run is failed, on a real Docker engine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import docker
import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.containers import running
from tests.support.listener import Listener, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import Tasks, descendants, find, wait_for
from tests.testbed.docker_engine import IMAGE, Engine

pytestmark = [one_server, shape_2]
NAME = "kept-7711"
SLEEP = "sleep 7711"


@pytest.fixture
def client(docker_engine: Engine) -> Iterator[docker.DockerClient]:
    """The engine, without any container of these tests at the end."""
    client = docker_engine.client()
    yield client
    docker_engine.remove_containers()
    wait_for(SLEEP, 0)
    client.close()


@pytest.fixture
def run(docker_engine: Engine, tasks: Tasks, tmp_path: Path) -> Callable[[str], Popen[bytes]]:
    """A bash task that runs `docker run` with those options."""

    def start(options: str) -> Popen[bytes]:
        words = f"docker run --rm --network none {options} {IMAGE} {SLEEP}"
        environ = tasks.environment("dag", "run", DOCKER_HOST=docker_engine.url, HOME=str(tmp_path))
        return tasks.bash(f"{words}; true", environ)

    return start


def kill_all(bash: Popen[bytes], listener: Listener) -> None:
    """As the end of all of Airflow, or a lack of memory, does: by SIGKILL, the bash before its client."""
    clients = descendants(bash.pid)
    bash.kill()
    bash.wait()
    for pid in clients:
        os.kill(pid, signal.SIGKILL)
    listener.wait_until_gone()
    assert find(SLEEP), "its container lives on"


@pytest.mark.parametrize("restarted", [False, True], ids=["one listener", "listener restarted"])
@pytest.mark.parametrize("options", ["--cidfile {folder}/cid", f"--name {NAME}"], ids=["cidfile", "name"])
def test_a_container_outlives_its_client_but_not_its_run(
    airflow_db: AirflowDatabase,
    tmp_path: Path,
    docker_engine: Engine,
    client: docker.DockerClient,
    run: Callable[[str], Popen[bytes]],
    options: str,
    restarted: bool,
) -> None:
    airflow_db.add_running("run")
    stranger = client.containers.run(IMAGE, SLEEP.split(), detach=True, network_mode="none")
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        bash = run(options.format(folder=tmp_path))
        wait_for(SLEEP, 2)
        listener.wait_until_tied(1)
        kill_all(bash, listener)
        (tmp_path / "cid").unlink(missing_ok=True)
        if restarted:
            listener.kill()
            listener.start()
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert report["outcome"] == "stopped", show(report)
        assert len(report["detail"]["containers"]) == 1, show(report)
        wait_for(SLEEP, 1)
        assert running(stranger)


@pytest.mark.parametrize("options", ["--cidfile {folder}/cid", f"--name {NAME}"], ids=["cidfile", "name"])
def test_a_client_that_was_seen_only_briefly(
    airflow_db: AirflowDatabase,
    tmp_path: Path,
    docker_engine: Engine,
    client: docker.DockerClient,
    run: Callable[[str], Popen[bytes]],
    options: str,
) -> None:
    """It is gone before its container could be asked for: killed in the moment in which that starts."""
    airflow_db.add_running("run")
    with Listener(airflow_db.url, tmp_path, "--tick", "0.02", docker_url=docker_engine.url) as listener:
        bash = run(options.format(folder=tmp_path))
        wait_for(SLEEP)
        kill_all(bash, listener)
        listener.wait_until_tied(1)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped" and len(report["detail"]["containers"]) == 1, show(report)
    wait_for(SLEEP, 0)


@pytest.mark.parametrize("restarted", [False, True], ids=["one listener", "listener restarted"])
def test_a_name_that_a_stranger_took_since_is_his(
    airflow_db: AirflowDatabase,
    tmp_path: Path,
    docker_engine: Engine,
    client: docker.DockerClient,
    run: Callable[[str], Popen[bytes]],
    restarted: bool,
) -> None:
    airflow_db.add_running("run")
    with Listener(airflow_db.url, tmp_path, docker_url=docker_engine.url) as listener:
        bash = run(f"--name {NAME}")
        wait_for(SLEEP)
        listener.wait_until_tied(1)
        kill_all(bash, listener)
        if restarted:
            listener.kill()
        time.sleep(1)
        client.containers.get(NAME).remove(force=True)
        stranger = client.containers.run(IMAGE, SLEEP.split(), detach=True, network_mode="none", name=NAME)
        if restarted:
            listener.start()
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["detail"]["containers"] == [], show(report)
    assert running(stranger)

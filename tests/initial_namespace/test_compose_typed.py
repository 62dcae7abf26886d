"""`docker-compose up -d` in a task: the kernel tells of every process, so what only it can have created is known."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require_packages
from tests.support.airflow_tables import AirflowDatabase
from tests.support.counted import CountedSocket
from tests.support.fence import Fence, FencedTasks
from tests.support.listener import Listener, remembered, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import find, wait_for
from tests.testbed.docker_engine import IMAGE, Engine

pytestmark = [pytest.mark.initial_namespace, one_server, shape_2]
OPEN = ("compose_untold", "compose_gap", "compose_works")
"""What may still become known, when the kernel and the engine have told all of that time."""
BUSY = ("another client", "ended unread", "another program", "not every process", "still at work")
"""Why an `up` is not certain to have created a container if much else goes on on this machine."""
TRIES = 10
"""Runs that are tried until nothing else goes on at that moment."""


@pytest.fixture
def front(docker_engine: Engine, fence: Fence) -> Iterator[CountedSocket]:
    """The engine for the user behind the fence."""
    require_packages("docker-compose")
    path = fence.home / "docker.sock"
    with CountedSocket(path, docker_engine.url.removeprefix("unix://")) as front:
        os.chmod(path, 0o666)
        yield front
    docker_engine.remove_containers()


def write(fence: Fence, folder: str, **services: int) -> Path:
    """A project; each service sleeps for so many seconds, as the fence's user."""
    path = fence.home / folder
    path.mkdir(exist_ok=True)
    lines = "".join(
        f"  {service}: {{image: {IMAGE}, network_mode: none, user: '{fence.uid}', command: [sleep, '{seconds}']}}\n"
        for service, seconds in services.items()
    )
    (path / "docker-compose.yml").write_text(f"version: '3'\nservices:\n{lines}")
    return path


def up(tasks: FencedTasks, front: CountedSocket, run: str, folder: Path) -> None:
    environ = tasks.environment("dag", run, "a", DOCKER_HOST=front.url, HOME=str(tasks.home))
    tasks.bash("docker-compose up -d", environ, folder=folder)


def said(listener: Listener, run: str) -> str:
    """What the listener knows of the run's compose: "tied", "" while that is open, or why it is not certain."""
    clients = remembered(listener.state_dir, "clients")
    mine = [client for client in clients if client["label"]["run_id"] == run]
    if any(client["composed"] for client in mine):
        return "tied"
    whys = [why for client in mine for _, why in client["fitting"].values()]
    return next((why for why in whys if why not in OPEN), "")


def learnt(listener: Listener, run: str) -> None:
    """Return once that is not open any more, or after a long time: then there is the next run."""
    until = time.monotonic() + 30
    while not said(listener, run) and time.monotonic() < until:
        time.sleep(0.05)


def test_what_only_an_up_can_have_created_dies_and_what_it_found_lives(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool, front: CountedSocket, docker_engine: Engine
) -> None:
    """Of as many runs as it takes until nothing else of this machine leaves it in doubt."""
    shop = write(fence, "shop", db=7761)
    words = {"PATH": os.environ["PATH"], "DOCKER_HOST": docker_engine.url, "HOME": "/nonexistent"}
    subprocess.run(["docker-compose", "up", "-d"], cwd=shop, env=words, check=True, capture_output=True)
    airflow_db.add_running("other", number=1)
    with (
        FencedTasks(fence) as tasks,
        Listener(airflow_db.url, fence.home, docker_url=front.url, fence=fence.within(told=True)) as listener,
    ):
        up(tasks, front, "other", write(fence, "foreign", web=7762))
        wait_for("sleep 7762", timeout=60)
        for number in range(TRIES):
            run, seconds = f"run{number}", 77630 + number
            airflow_db.add_running(run, number=2 + number)
            up(tasks, front, run, write(fence, "shop", db=7761, **{f"web{number}": seconds}))
            wait_for(f"sleep {seconds}", timeout=60)
            if initial:
                learnt(listener, run)
            airflow_db.set_run("failed", run)
            report = listener.wait_for_reports(number + 1)[-1]
            killed = bool(report["detail"]["containers"])
            whys = [str(one["why"]) for one in report["detail"]["spared"]]
            assert find("sleep 7761") and find("sleep 7762"), show(report)
            assert bool(find(f"sleep {seconds}")) != killed, show(report)
            assert killed or "containers_untied" in report["detail"], show(report)
            if killed or not initial:
                break
        if initial:  # on a busy machine it may be that of none of them all was read in time
            assert killed or any(word in why for why in whys for word in BUSY), show(report)
        else:
            assert not killed

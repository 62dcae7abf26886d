"""A docker client that lives for some milliseconds: its container dies with its run, or is named, never neither."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.initial_namespace.test_docker_typed import (
    CREATE,
    DETACHED,
    EXEC,
    START,
    front,
    listening,
)
from tests.support.airflow_tables import AirflowDatabase
from tests.support.counted import CountedSocket
from tests.support.fence import Fence, FencedTasks
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import find, wait_for
from tests.testbed.docker_engine import IMAGE, Engine

pytestmark = [pytest.mark.initial_namespace, one_server, shape_2]
__all__ = ["front"]
TIMES = 5
ONCE_THERE = "until [ -e $HOME/go ]; do sleep 0.1; done"


def start_task(tasks: FencedTasks, front: CountedSocket, line: str) -> None:
    """A task of the run that types the line; nothing that it asks for is held back."""
    for words in (CREATE, START, EXEC):
        front.release(words)
    tasks.bash(line, tasks.environment("dag", "run", "a", DOCKER_HOST=front.url, HOME=str(tasks.home)))


def names(engine: Engine) -> dict[str, bool]:
    """Whether each container runs."""
    client = engine.client()
    try:
        rows = client.api.containers(all=True)
        return {row["Names"][0].removeprefix("/"): row["State"] == "running" for row in rows}
    finally:
        client.close()


def not_attributable(db: AirflowDatabase, fence: Fence, front: CountedSocket, listener: Listener) -> Any:
    options = ["--database-url", db.url, "--airflow-home", str(fence.home), "--docker-url", front.url]
    options += ["--state-dir", str(listener.state_dir), "--json"]
    return json.loads(dagstop("ps", *options, before=fence.within()).stdout)["not_attributable"]


def test_on_a_quiet_host_what_a_task_creates_and_starts_dies_with_its_run_or_is_named(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool, front: CountedSocket, docker_engine: Engine
) -> None:
    """A `docker create` lives for some 20 ms; the listener has been at rest before each of them."""
    with FencedTasks(fence) as tasks, listening(airflow_db, fence, front) as listener:
        line = f"docker start $(docker create --network none {IMAGE} sleep 7731)"
        start_task(tasks, front, f"for _ in {'x ' * TIMES}; do sleep 1; {line}; done; exec sleep 7732")
        wait_for("sleep 7731", TIMES, timeout=60)
        wait_for("sleep 7732", timeout=30)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        running = {name for name, runs in names(docker_engine).items() if runs}
        if initial:
            untied = report["detail"].get("containers_untied", ())
            assert running == set(untied), show(report)
            assert len(running) < TIMES, show(report)


@pytest.mark.parametrize("form", ["run -d", "exec -d"])
def test_what_came_of_a_client_that_nobody_read_is_named(
    airflow_db: AirflowDatabase,
    fence: Fence,
    initial: bool,
    front: CountedSocket,
    docker_engine: Engine,
    form: str,
) -> None:
    """The listener was kept from reading for so long: by a host that gave it no time, say."""
    client = docker_engine.client()
    words = ["sleep", "7733"]
    there = client.containers.run(IMAGE, words, detach=True, network_mode="none", user=str(fence.uid)).name
    client.close()
    line = f"{DETACHED} sleep 7734" if form == "run -d" else f"docker exec -d {there} sleep 7734"
    with FencedTasks(fence) as tasks, listening(airflow_db, fence, front) as listener:
        start_task(tasks, front, f"{ONCE_THERE}; {line}; exec sleep 7735")
        listener.wait_until_remembered(1)
        assert listener.process is not None
        os.kill(listener.process.pid, signal.SIGSTOP)
        (fence.home / "go").touch()
        wait_for("sleep 7734", timeout=30)
        wait_for("sleep 7735", timeout=30)
        os.kill(listener.process.pid, signal.SIGCONT)
        if initial:
            listener.wait_until_noted(1)
            shown = not_attributable(airflow_db, fence, front, listener)
            whys = [one["why"] for one in shown if one["what"].startswith(("container", "docker exec"))]
            assert any("it ended before it was read" in why for why in whys), show(shown)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert find("sleep 7734") and find("sleep 7733"), show(report)
        if initial:
            (name,) = names(docker_engine).keys() - {there} or {f"{there}: sleep 7734"}
            detail, key = report["detail"], "containers_untied" if form == "run -d" else "execs_untied"
            assert report["outcome"] == "spared" and detail[key] == [name], show(report)

"""`docker run -d` in a task: the kernel says how the client ended, so its container is known.

A client may live for some milliseconds: what it created dies with its run or is named, never neither.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.counted import CountedSocket
from tests.support.fence import Fence, FencedTasks
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import one_server, shape_2
from tests.support.tasks import find, wait_for
from tests.support.watch import wait_until
from tests.testbed.docker_engine import IMAGE, Engine

pytestmark = [pytest.mark.initial_namespace, one_server, shape_2]
DETACHED = f"docker run -d --network none {IMAGE}"
CREATE, START, EXEC = b"/containers/create", b"/start HTTP", b"/exec HTTP"
TIMES = 5
"""So often a task creates and starts a container on a quiet host."""
ONCE_THERE = "until [ -e $HOME/go ]; do sleep 0.1; done"


@pytest.fixture
def front(docker_engine: Engine, fence: Fence) -> Iterator[CountedSocket]:
    """The engine for the user behind the fence; what it is to create and to start waits until it is released."""
    path = fence.home / "docker.sock"
    with CountedSocket(path, docker_engine.url.removeprefix("unix://"), (CREATE, START, EXEC)) as front:
        os.chmod(path, 0o666)
        yield front
    docker_engine.remove_containers()


def type_lines(
    tasks: FencedTasks, front: CountedSocket, listener: Listener | None, *, ask: bytes = CREATE, **lines: str
) -> None:
    """By run; all clients have reached the engine then, and the listener has seen that."""
    for run, line in lines.items():
        tasks.bash(line, tasks.environment("dag", run, "a", DOCKER_HOST=front.url, HOME=str(tasks.home)))
    wait_until(lambda: front.asked(ask) == len(lines), 30, lambda: f"{front.asked(ask)} asked")
    if listener is not None:
        listener.wait_until_reached(len(lines))


def start_two(tasks: FencedTasks, front: CountedSocket, listener: Listener | None, **commands: str) -> None:
    """A detached container of each run; the listener has written down whose they are."""
    type_lines(tasks, front, listener, **{run: f"{DETACHED} {command}" for run, command in commands.items()})
    front.release(CREATE)
    front.release(START)
    for command in commands.values():
        wait_for(command, timeout=30)
    if listener is not None:
        listener.wait_until_tied(len(commands))


def created(engine: Engine) -> int:
    """How many containers wait for their start."""
    client = engine.client()
    try:
        return sum(row["State"] == "created" for row in client.api.containers(all=True))
    finally:
        client.close()


def listening(db: AirflowDatabase, fence: Fence, front: CountedSocket) -> Listener:
    db.add_running("run")
    db.add_running("other", number=1)
    return Listener(db.url, fence.home, docker_url=front.url, fence=fence.within(told=True))


def test_of_a_listener_that_was_killed_in_between_it_dies_with_its_run_and_the_others_lives(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool, front: CountedSocket
) -> None:
    with FencedTasks(fence) as tasks, listening(airflow_db, fence, front) as listener:
        start_two(tasks, front, listener if initial else None, run="sleep 7711", other="sleep 7712")
        listener.kill()
        listener.start()
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert find("sleep 7712")
        if initial:
            assert "containers_untied" not in report["detail"], show(report)
            assert not find("sleep 7711") and len(report["detail"]["containers"]) == 1, show(report)
        else:
            assert find("sleep 7711")


def test_of_two_runs_that_typed_one_line_at_one_time_neither_container_dies(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool, front: CountedSocket, docker_engine: Engine
) -> None:
    with FencedTasks(fence) as tasks, listening(airflow_db, fence, front) as listener:
        line = f"{DETACHED} sleep 7713"
        type_lines(tasks, front, listener if initial else None, run=line, other=line)
        front.release(CREATE)
        wait_until(lambda: created(docker_engine) == 2, 30, lambda: f"{created(docker_engine)} containers")
        front.release(START)
        wait_for("sleep 7713", 2, timeout=30)
        wait_for(line, 0)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert len(find("sleep 7713")) == 2
        if initial:
            assert report["outcome"] == "spared", show(report)
            assert len(report["detail"]["containers_untied"]) == 2, show(report)


def test_what_a_stranger_asks_for_at_that_time_is_spared_with_the_runs(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool, front: CountedSocket, docker_engine: Engine
) -> None:
    """It speaks to the engine itself, so nobody knows that it is there: two of one kind came."""
    with FencedTasks(fence) as tasks, listening(airflow_db, fence, front) as listener:
        line = f"{DETACHED} sleep 7714"
        type_lines(tasks, front, listener if initial else None, run=line)
        client = docker_engine.client()
        client.containers.run(IMAGE, ["sleep", "7714"], detach=True, network_mode="none")
        client.close()
        front.release(CREATE)
        front.release(START)
        wait_for("sleep 7714", 2, timeout=30)
        wait_for(line, 0)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert len(find("sleep 7714")) == 2, show(report)
        if initial:
            assert len(report["detail"]["containers_untied"]) == 2, show(report)


def test_beside_two_hundred_others_it_dies_with_its_run(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool, front: CountedSocket, docker_engine: Engine
) -> None:
    """They come and go between the two answers that its client waits for: more than the engine remembers."""
    with FencedTasks(fence) as tasks, listening(airflow_db, fence, front) as listener:
        lines = {"run": f"{DETACHED} sleep 7715", "other": f"{DETACHED} sleep 7716"}
        type_lines(tasks, front, listener if initial else None, **lines)
        front.release(CREATE)
        wait_until(lambda: created(docker_engine) == 2, 30, lambda: f"{created(docker_engine)} containers")
        come_and_go(docker_engine, 200 if initial else 2)
        front.release(START)
        for number in (7715, 7716):
            wait_for(f"sleep {number}", timeout=30)
        if initial:
            listener.wait_until_tied(2)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert find("sleep 7716")
        assert bool(find("sleep 7715")) != initial, show(report)


def come_and_go(engine: Engine, number: int) -> None:
    """So many containers of another image, one after the other."""
    client = engine.client()
    try:
        client.images.get(IMAGE).tag("dagstop-others")
        for _ in range(number):
            container = client.api.create_container("dagstop-others", ["sleep", "7717"])
            client.api.remove_container(container["Id"])
    finally:
        client.close()


def test_of_an_engine_that_was_restarted_in_between_it_dies_with_its_run(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool, front: CountedSocket, docker_engine: Engine
) -> None:
    with FencedTasks(fence) as tasks, listening(airflow_db, fence, front) as listener:
        start_two(tasks, front, listener if initial else None, run="sleep 7718", other="sleep 7719")
        docker_engine.halt()
        docker_engine.start()
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert find("sleep 7719")
        assert bool(find("sleep 7718")) != initial, show(report)


def test_of_an_engine_over_tcp_what_has_a_name_dies_and_the_rest_is_named(
    airflow_db: AirflowDatabase, fence: Fence, docker_engine: Engine
) -> None:
    """Who is connected to it nobody can see: a name that only one client asked for says whose it is."""
    with (
        CountedSocket(None, docker_engine.url.removeprefix("unix://"), (CREATE,)) as far,
        FencedTasks(fence) as tasks,
        listening(airflow_db, fence, far) as listener,
    ):
        for run, named, detached in (("run", 7724, 7725), ("other", 7726, 7727)):
            environ = tasks.environment("dag", run, "a", DOCKER_HOST=far.url, HOME=str(tasks.home))
            name = f"dagstop-{run}-{os.getpid()}"
            tasks.bash(f"exec docker run --network none --name {name} {IMAGE} sleep {named}", environ)
            tasks.bash(f"exec {DETACHED} sleep {detached}", environ)
        wait_until(lambda: far.asked(CREATE) == 4, 30, lambda: f"{far.asked(CREATE)} asked")
        listener.wait_until_remembered(4)
        far.release(CREATE)
        for number in (7724, 7725, 7726, 7727):
            wait_for(f"sleep {number}", timeout=30)
        wait_for(f"{DETACHED} sleep 7725", 0)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert not find("sleep 7724"), show(report)
        assert all(find(f"sleep {number}") for number in (7725, 7726, 7727)), show(report)
        assert report["outcome"] == "spared", show(report)
        assert len(report["detail"]["containers_untied"]) == 1, show(report)
    docker_engine.remove_containers()


def test_of_two_runs_that_asked_for_one_exec_neither_dies_and_both_are_named(
    airflow_db: AirflowDatabase, fence: Fence, initial: bool, front: CountedSocket, docker_engine: Engine
) -> None:
    client = docker_engine.client()
    words, user = ["sleep", "7720"], str(fence.uid)
    container = client.containers.run(IMAGE, words, detach=True, network_mode="none", user=user)
    client.close()
    with FencedTasks(fence) as tasks, listening(airflow_db, fence, front) as listener:
        line = f"docker exec -d {container.name} sleep 7725"
        type_lines(tasks, front, listener if initial else None, ask=EXEC, run=line, other=line)
        listener.wait_until_reached(2)
        front.release(EXEC)
        wait_until(lambda: front.asked(START) == 2, 30, lambda: f"{front.asked(START)} starts")
        front.release(START)
        wait_for("sleep 7725", 2, timeout=30)
        wait_for(line, 0)
        options = ["--database-url", airflow_db.url, "--airflow-home", str(fence.home)]
        options += ["--docker-url", front.url, "--state-dir", str(listener.state_dir), "--json"]

        def explained() -> list[str]:
            said = json.loads(dagstop("explain", "dag", "run", *options, before=fence.within()).stdout)
            what = f"docker exec in {container.name}"
            return [found["verdict"] for found in said["found"] if found["what"] == what]

        if initial:  # else nothing is known of it before an order
            wait_until(lambda: explained() == ["spare"] * 2, 30, lambda: f"{explained()}")
            shown = json.loads(dagstop("ps", *options, before=fence.within()).stdout)["not_attributable"]
            whys = [found["why"] for found in shown if found["what"].startswith("docker exec in ")]
            assert len(whys) == 2 and all("may have asked for it" in why for why in whys), show(shown)
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert len(find("sleep 7725")) == 2 and find("sleep 7720")
        assert report["outcome"] == "spared", show(report)
        assert report["detail"]["execs_untied"] == [f"{container.name}: sleep 7725"] * 2, show(report)
        assert "containers_untied" not in report["detail"], show(report)


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
@pytest.mark.parametrize("failed", ["later", "meanwhile"])
def test_what_came_of_a_client_that_nobody_read_is_named(
    airflow_db: AirflowDatabase,
    fence: Fence,
    initial: bool,
    front: CountedSocket,
    docker_engine: Engine,
    form: str,
    failed: str,
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
        if failed == "meanwhile":
            airflow_db.set_run("failed")
        os.kill(listener.process.pid, signal.SIGCONT)
        if initial and failed == "later":
            listener.wait_until_noted(1)
            shown = not_attributable(airflow_db, fence, front, listener)
            whys = [one["why"] for one in shown if one["what"].startswith(("container", "docker exec"))]
            assert any("it ended before it was read" in why for why in whys), show(shown)
        if failed == "later":
            airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        assert find("sleep 7734") and find("sleep 7733"), show(report)
        if initial:
            (name,) = names(docker_engine).keys() - {there} or {f"{there}: sleep 7734"}
            detail, key = report["detail"], "containers_untied" if form == "run -d" else "execs_untied"
            assert report["outcome"] == "spared" and detail[key] == [name], show(report)

"""Containers that a task types by command line, against `docker kill` of equal ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from docker import DockerClient

from tests.bench.stage import Dagstop, Stage, wait_for_deaths
from tests.bench.table import Row, median
from tests.support.listener import remembered
from tests.support.tasks import Tasks
from tests.support.watch import DeathWatch
from tests.testbed import proc
from tests.testbed.docker_engine import IMAGE, Engine

BAR = 1.5
TIE_SECONDS = 20.0
KNOWN_AFTER = 1.0
"""Seconds after which a listener knows a task, also on a busy machine on which no other one ran."""
_RUN = f"docker run --network none --user $(id -u) {{}} {IMAGE} sleep"
FORMS = {
    "docker run": _RUN.format(""),
    "docker run --rm": _RUN.format("--rm"),
    "docker run -d --name": _RUN.format("-d --name typed"),
    "docker run -d --cidfile": _RUN.format("-d --cidfile $HOME/cid"),
}
TOLD_FORMS = {  # tied where the kernel tells of forks
    "docker run -d": _RUN.format("-d"),
    "docker create, start": f"docker start $(docker create --network none --user $(id -u) {IMAGE} sleep",
}


def rows(
    stage: Stage, engine: Engine, dagstop: Dagstop, tasks: Tasks, *, told: bool, times: int
) -> Iterator[Row]:
    """One for each form: the listener knows whose the container is before its run is failed."""
    client = engine.client()
    try:
        for number, (form, line) in enumerate({**FORMS, **(TOLD_FORMS if told else {})}.items()):
            kills: list[float] = []
            ours: list[float] = []
            for seconds in range(60000 + 100 * number, 60000 + 100 * number + times):
                # `typed` may be a name once only
                kills.append(_killed(client, _plain(client, seconds)))
                took = _failed(client, engine, dagstop, tasks, line, seconds)
                ours += [took] if took is not None else []
                engine.remove_containers()
                (tasks.home / "cid").unlink(missing_ok=True)
            if not ours:
                raise RuntimeError(f"{form}: no container was tied")
            row = Row(form, "docker kill", median(kills), median(ours), "ms", f"<= {BAR} x")
            row.met = row.dagstop <= BAR * median(kills)
            row.note = f"slowest {max(ours):.1f} ms, of docker kill {max(kills):.1f} ms"
            if len(ours) < times:
                row.note += f"; {times - len(ours)} of {times} not tied, left alone"
            yield row
    finally:
        client.close()


def _plain(client: DockerClient, seconds: int) -> str:
    words = ["sleep", str(seconds)]
    ident = client.containers.run(IMAGE, words, detach=True, network_mode="none").id
    time.sleep(1)
    return str(ident)


def _killed(client: DockerClient, ident: str) -> float:
    return _watched(client, ident, lambda: _kill(client, ident))


def _kill(client: DockerClient, ident: str) -> float:
    begun = time.monotonic()
    client.api.kill(ident)
    return begun


def _failed(
    client: DockerClient, engine: Engine, dagstop: Dagstop, tasks: Tasks, line: str, seconds: int
) -> float | None:
    run_id = f"typed{seconds}"
    dagstop.add_runs([run_id])
    end = ")" if "$(" in line and "create" in line else ""
    words = f"{line} {seconds}{end}; sleep 600"
    # a task is known some time before it types anything: its runner loads the DAG first
    words = f"sleep {KNOWN_AFTER}; {words}"
    tasks.bash(words, tasks.environment("dag", run_id, "a", DOCKER_HOST=engine.url, HOME=str(tasks.home)))
    found: list[str] = []

    def tied() -> bool:
        clients: list[dict[str, Any]] = remembered(dagstop.listener.state_dir, "clients")
        found[:] = [
            row["container"] for row in clients if row["container"] and row["label"].get("run_id") == run_id
        ]
        return bool(found) and client.containers.get(found[0]).status == "running"

    until = time.monotonic() + TIE_SECONDS
    while not tied():
        if time.monotonic() > until:
            return None
        time.sleep(0.02)
    time.sleep(1)
    took = _watched(client, found[0], lambda: dagstop.fail("run_id", run_id))
    final = "select count(*) > 0 from dagstop.report r join dagstop.stop_order o on o.id = r.order_id"
    dagstop.database.wait_until(f"{final} where o.run_id = '{run_id}' and r.outcome is not null", 60)
    return took


def _watched(client: DockerClient, ident: str, end: Callable[[], float]) -> float:
    """Milliseconds from the moment that `end` gives to the death of the container's init."""
    init = proc.read(int(client.api.inspect_container(ident)["State"]["Pid"]))
    assert init is not None
    with DeathWatch([init]) as watch:
        begun = end()
        wait_for_deaths(watch)
        return (watch.last() - begun) * 1000

"""A container whose init has no SIGTERM handler, against `docker kill` of an equal one; likewise typed ones."""

from __future__ import annotations

import time

from docker.models.containers import Container

from tests.bench import typed
from tests.bench.stage import CROWD, Dagstop, Stage, resident_mib, wait_for_deaths
from tests.bench.table import Found, Row, median
from tests.support.tasks import Tasks
from tests.support.watch import DeathWatch
from tests.testbed import proc
from tests.testbed.docker_engine import IMAGE, Engine, EngineError


def run(stage: Stage) -> Found:
    found = Found("containers")
    stage.crowd.grow(CROWD)
    try:
        engine = Engine()
    except EngineError as exc:
        row = Row(
            "container without a SIGTERM handler dead",
            "docker kill",
            None,
            0,
            "ms",
            "<= 1.5 x",
            None,
            str(exc),
        )
        found.rows.append(row)
        return found
    with engine:
        client = engine.client()
        dagstop = Dagstop(stage, engine.url)
        kills: list[float] = []
        ours: list[float] = []
        for number in range(stage.times(20)):
            run_id = f"container{number}"
            dagstop.add_runs([run_id])
            plain, tagged = (
                client.containers.run(
                    IMAGE, ["sleep", "600"], detach=True, network_mode="none", environment=_tags(dagstop, of)
                )
                for of in ("nobody", run_id)
            )
            time.sleep(1)
            with _watch(plain) as watch:
                begun = time.monotonic()
                client.api.kill(str(plain.id))
                wait_for_deaths(watch)
                kills.append((watch.last() - begun) * 1000)
            time.sleep(0.5)
            with _watch(tagged) as watch:
                begun = dagstop.fail("run_id", run_id)
                wait_for_deaths(watch)
                ours.append((watch.last() - begun) * 1000)
            dagstop.reported(number + 1)
            for container in (plain, tagged):
                container.remove(force=True)
        with Tasks(dagstop.home) as tasks:
            found.rows += typed.rows(stage, engine, dagstop, tasks, told=False, times=stage.times(20))
        mib = resident_mib(dagstop.pid)
        dagstop.end()
        client.close()
    row = Row(
        "container without a SIGTERM handler dead",
        "docker kill",
        median(kills),
        median(ours),
        "ms",
        "<= 1.5 x",
    )
    row.met = row.dagstop <= 1.5 * median(kills)
    found.rows[:0] = [row]
    found.rows += [Row("listener that stopped containers: resident", "", None, mib, "MiB", "none")]
    return found


def _tags(dagstop: Dagstop, run_id: str) -> dict[str, str]:
    return {
        "AIRFLOW_CTX_DAG_ID": "dag",
        "AIRFLOW_CTX_DAG_RUN_ID": run_id,
        "AIRFLOW_CTX_TASK_ID": "a",
        "DAGSTOP_AIRFLOW_HOME": str(dagstop.home),
    }


def _watch(container: Container) -> DeathWatch:
    container.reload()
    init = proc.read(int(container.attrs["State"]["Pid"]))
    assert init is not None
    return DeathWatch([init])

"""CWL-Airflow of both generations: a step in a container and one without, failed while this or that is dead.

Its containers come from `docker run --cidfile` inside the task's own process: no cluster policy tags them.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import FULL, NAMED
from tests.e2e.site import Site, is_runner, marked
from tests.support.watch import wait_until
from tests.testbed import airflows, proc
from tests.testbed.docker_engine import Engine
from tests.testbed.postgres import Server

pytestmark = pytest.mark.e2e
GENERATIONS = ("1.10.1-cwl", "2.1.4-cwl")
PLAYED = [v for v in GENERATIONS if (v in NAMED if NAMED else FULL or v == GENERATIONS[-1])]
RUNS = {
    "everything is alive": "cwl_7101",
    "CWL-Airflow's own clean_dag_run": "cwl_7102",
    "the scheduler was SIGKILLed": "cwl_7103",
    "all of Airflow was SIGKILLed": "cwl_7104",
    "the docker clients were SIGKILLed too": "cwl_7105",
}
ACTS = tuple(RUNS) if FULL or NAMED else tuple(RUNS)[-1:]  # the one with the least left to go by
LEFT_ALONE = "cwl_7199"
START_SECONDS, DEATH_SECONDS, CLEAN_SECONDS = 600.0, 60.0, 240.0
STEPS = ("contained", "plain")


@pytest.mark.parametrize("version", PLAYED)
def test_a_step_in_a_container_and_one_without_stop(
    version: str, docker_engine: Engine, airflow_server: Server, tmp_path: Path
) -> None:
    dags = tmp_path / "dags"
    shutil.copytree(Path(__file__).parent / "cwl_dags", dags)
    (clean,) = airflows.build(version).glob("lib/*/site-packages/cwl_airflow*/**/dags/clean_dag_run.py")
    shutil.copy(clean, dags)
    # cwltool asks the command line's engine
    more = {"DOCKER_HOST": docker_engine.url, "AIRFLOW__CORE__PARALLELISM": "16"}
    site = Site(version, airflow_server, docker_engine, "cwl", dags, **more)
    site.airflow.environment["AIRFLOW__CWL__TMP_FOLDER"] = str(site.airflow.home / "tmp")
    try:
        site.start()
        runs = [*(RUNS[act] for act in ACTS), LEFT_ALONE]
        site.airflow.trigger_with("cwl", {run: {"job": job(run)} for run in runs})
        for run in runs:
            site.airflow.wait_for(lambda run=run: len(asleep(run)) == 3, f"running {run}", START_SECONDS)  # type: ignore[misc]
        bystanders = marked(LEFT_ALONE)
        for act in ACTS:
            play(site, act, RUNS[act])
            assert [p for p in bystanders if not p.alive()] == [], f"{act}\n{site.listener_log()}"
    finally:
        site.stop()


def job(run: str) -> dict[str, str]:
    """The inputs of the workflow, by which its processes are found."""
    number = run.rpartition("_")[2]
    return {"inside": f"6051.{number}", "first": f"6052.{number}", "second": f"6053.{number}"}


def asleep(run: str) -> set[str]:
    """What of the run sleeps: one process in the container, two outside."""
    return {p.command[1] for p in marked(run)}


def play(site: Site, act: str, run: str) -> None:
    """The accident, the failure, the deaths, and what is said of them."""
    (container,) = containers(site, run)
    clients = [p for p in proc.everyone() if p.command[0] == "docker" and of(container, run, p)]
    assert clients, f"{act}: no client of {container}"
    if act == "the scheduler was SIGKILLed":
        site.airflow.signal_scheduler(signal.SIGKILL)
    elif act not in ("everything is alive", "CWL-Airflow's own clean_dag_run"):
        site.airflow.sigkill_everything()
    if act == "the docker clients were SIGKILLed too":
        proc.send(clients, signal.SIGKILL)
        wait_until(lambda: not any(p.alive() for p in clients), 10, lambda: f"still there: {clients}")
    words = site.keys(run)
    runners = [p for p in proc.everyone() if is_runner(p) and words & set(" ".join(p.command).split())]
    victims = [p for p in (*marked(run), *clients, *runners) if p.alive()]
    assert len(asleep(run)) == 3, f"{act}: {victims}"

    if act == "CWL-Airflow's own clean_dag_run":
        clean(site, run)
    else:
        site.airflow.fail_run_by_sql("cwl", run)
        wait_until(lambda: site.reported(run), DEATH_SECONDS, site.listener_log)
        check_report(site, act, run, container)
    assert [p for p in victims if p.alive()] == [], f"{act}\n{site.listener_log()}"
    wait_until(lambda: not containers(site, run), 10, lambda: f"{act}: {container} is still there")


def clean(site: Site, run: str) -> None:
    """As CWL-Airflow stops a run: it fails the task instances, waits for them, and deletes all rows."""
    conf = {"remove_dag_id": "cwl", "remove_run_id": run}
    site.airflow.trigger_with("clean_dag_run", {f"clean_{run}": conf})
    gone = "SELECT count(*) = 0 AS gone FROM dag_run WHERE dag_id = 'cwl' AND run_id = %s"
    site.airflow.wait_for(lambda: bool(site.airflow.query(gone, (run,))[0]["gone"]), "cleaned", CLEAN_SECONDS)


def check_report(site: Site, act: str, run: str, container: str) -> None:
    """Stopped, the one container with it; nothing is left unfinished."""
    (order,) = [order for order in site.orders(run) if order["kind"] == "run"]
    (detail,) = order["details"]
    assert order["outcomes"] == ["stopped"] and detail["spared"] == [], f"{act}: {detail}"
    (found,) = detail["containers"]
    assert container.startswith(found["id"]) and found["died_at"] is not None, f"{act}: {found}"
    states = site.airflow.task_states(run)
    assert {states[step] for step in STEPS} == {"failed"}, f"{act}: {states}"


def containers(site: Site, run: str) -> list[str]:
    """Ids of the containers of the run's step that live."""
    word = job(run)["inside"]
    living = site.client.containers.list(ignore_removed=True)
    return [str(c.id) for c in living if word in (c.attrs["Config"]["Cmd"] or ())]


def of(container: str, run: str, client: proc.Process) -> bool:
    """Whether a docker client started that container, or watches it."""
    words: tuple[Any, ...] = client.command
    return job(run)["inside"] in words or container in words

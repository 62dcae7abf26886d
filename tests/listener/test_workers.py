"""Airflow in containers on a real engine: what is ours dies, what looks the same in a twin project lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_tables import AirflowDatabase
from tests.support.listener import Listener, dagstop, show
from tests.support.marks import one_server, shape_2
from tests.support.watch import wait_until
from tests.support.workers import HOME, URL, Worker, inner_pid, mounts, workers
from tests.testbed.docker_engine import IMAGE, Engine

pytestmark = [one_server, shape_2]
TITLE = "airflow task runner: dag a run 7"
BASH = "sleep 7301 & trap '' TERM; setsid sleep 7302 & env -i sleep 7303 & sleep 7304"


@pytest.fixture
def start(docker_engine: Engine) -> Iterator[Any]:
    with workers(docker_engine) as function:
        yield function


def begin(worker: Worker) -> None:
    """One task in a worker, with all its processes."""
    worker.run(TITLE, BASH)
    for words in ("airflow task runner", "sleep 7301", "sleep 7302", "sleep 7303", "sleep 7304"):
        worker.pid_of(words)


def record(db: AirflowDatabase, worker: Worker) -> None:
    """What Airflow writes of that task."""
    db.add_running("run")
    pid = inner_pid(worker.pid_of("airflow task runner"))
    db.rows("update task_instance set hostname = %s, pid = %s, start_date = now()", (worker.hostname, pid))


@pytest.mark.parametrize(
    "shown",
    [{}, {"hostname": "worker-1"}, {"user": "1000:0"}],
    ids=["its id", "a fixed name, tied by the runner", "AIRFLOW_UID is not the home's owner"],
)
def test_tasks_in_a_named_container_die_and_its_twins_live(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any, shown: dict[str, str]
) -> None:
    ours, twin = start("shop", **shown), start("bank")
    begin(ours)
    begin(twin)
    record(airflow_db, ours)
    before = twin.pids()
    options = ("--same-database", URL, "--container", "compose=shop")
    with Listener(airflow_db.url, tmp_path, *options, docker_url=docker_engine.url) as listener:
        listener.wait_for("verdict=ours")
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)
    wait_until(lambda: not ours.pids(), 20, lambda: f"all dead: {ours.pids()}")
    assert twin.pids() == before


def test_without_container_nothing_in_one_is_touched(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any
) -> None:
    ours = start("shop")
    begin(ours)
    record(airflow_db, ours)
    before = ours.pids()
    with Listener(airflow_db.url, tmp_path, "--same-database", URL, docker_url=docker_engine.url) as listener:
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "spared", show(report)
    assert {item["why"] for item in report["detail"]["spared"]} == {"it lives in another pid namespace"}
    assert ours.pids() == before


@pytest.mark.parametrize("fixed", ["worker", None], ids=["fixed host name", "database unknown"])
def test_one_missing_piece_spares_and_says_which(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any, fixed: str | None
) -> None:
    """Two projects with one fixed host name; or a URL inside that is not known to be ours."""
    ours, twin = start("shop", hostname=fixed), start("bank", hostname=fixed)
    begin(ours)
    begin(twin)
    record(airflow_db, ours)
    before = ours.pids() | twin.pids()
    options = ["--container", "compose=shop", *(("--same-database", URL) if fixed else ())]
    with Listener(airflow_db.url, tmp_path, *options, docker_url=docker_engine.url) as listener:
        listener.wait_for("another container" if fixed else "if that is ours")
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "spared", show(report)
    why = {item["why"] for item in report["detail"]["spared"]}
    wanted = "has, or may have, the host name worker" if fixed else "name it with --same-database"
    assert any(wanted in word for word in why), show(report)
    assert ours.pids() | twin.pids() == before


def test_a_restarted_listener_still_knows_orphans_in_a_container(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any
) -> None:
    """Their runner is gone, they carry no environment: only the memory ties them."""
    ours, twin = start("shop"), start("bank")
    begin(ours)
    begin(twin)
    record(airflow_db, ours)
    before = twin.pids()
    options = ("--same-database", URL, "--container", "compose=shop")
    listener = Listener(airflow_db.url, tmp_path, *options, docker_url=docker_engine.url)
    with listener:
        listener.wait_for("verdict=ours")
        listener.wait_until_doubted(12)
        for words in ("airflow task runner", "sleep 7301"):
            os.kill(ours.pid_of(words), signal.SIGKILL)
        listener.stop()
        listener.start()
        listener.wait_for("verdict=ours")
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)
    wait_until(lambda: not ours.pids(), 20, lambda: f"all dead: {ours.pids()}")
    assert twin.pids() == before


def findings(db: AirflowDatabase, tmp_path: Path, *options: str) -> dict[str, dict[str, Any]]:
    """What check says, by name."""
    where = ("--database-url", db.url, "--airflow-home", str(tmp_path), *options)
    said = json.loads(dagstop("check", "--json", *where, check=False).stdout)
    return {finding["name"]: finding for finding in said["findings"]}


def test_check_and_status_say_whose_containers_are(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any
) -> None:
    """Red and with the reason before a container is named, green after it, also when it was killed.

    Their Postgres is in the same compose project; it is nobody's concern.
    """
    ours, twin = start("shop"), start("bank")
    start("shop", airflow=False)
    begin(ours)
    record(airflow_db, ours)
    host, reached = f"host {ours.hostname}", ("--docker-url", docker_engine.url)
    with Listener(
        airflow_db.url, tmp_path, "--container", "compose=bank", "--same-database", URL,
        docker_url=docker_engine.url,
    ) as listener:  # fmt: skip
        listener.wait_for("no --container names")
        # a heartbeat before that said that the engine has not listed it yet
        airflow_db.wait_until("select detail::text like '%no --container names%' from dagstop.listener")
        red = findings(airflow_db, tmp_path, *reached)[host]
        assert not red["ok"] and "a container that no --container names (listener host-1)" in red["said"]
        assert "docs/containers.md" in red["do"]
        listener.stop()
    options = ("--same-database", URL, "--container", "compose=shop")
    with Listener(airflow_db.url, tmp_path, *options, docker_url=docker_engine.url) as listener:
        listener.wait_for("verdict=ours")
        airflow_db.wait_until(f"select detail -> 'host_names' ? '{ours.hostname}' from dagstop.listener")
        green = findings(airflow_db, tmp_path, *reached)
        assert host not in green and green["containers on host-1"]["said"] == "1 ours"
        assert [name for name, one in green.items() if name.startswith("container ") and not one["ok"]] == []
        status = dagstop("status", "--database-url", airflow_db.url).stdout
        assert "1 ours, 1 refused" in status
        listener.wait_until_doubted(5)
        ours.container.kill()
        wait_until(lambda: not ours.pids(), 20, lambda: f"{ours.pids()}")
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
        # nothing was left to stop, and nobody has to look further
        assert (report["outcome"], report["detail"]["ended_by_itself"]) == ("nothing_found", ["a"]), show(
            report
        )
        assert host not in findings(airflow_db, tmp_path, *reached)
    assert twin.pids() == {}


def test_explain_and_ps_show_what_a_listener_would_do(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any
) -> None:
    ours, twin = start("shop"), start("bank")
    begin(ours)
    begin(twin)
    record(airflow_db, ours)
    where = ("--database-url", airflow_db.url, "--docker-url", docker_engine.url, "--json")
    options = ("--same-database", URL, "--container", "compose=shop")
    found = json.loads(dagstop("explain", "dag", "run", *where, *options).stdout)["found"]
    killed = {int(fact["what"].split()[1]) for fact in found if fact["verdict"] == "kill"}
    assert killed == set(ours.pids()), show(found)
    spared = {int(fact["what"].split()[1]) for fact in found if fact["verdict"] == "spare"}
    assert spared == set(twin.pids()), show(found)
    rows = json.loads(dagstop("ps", *where, *options).stdout)["tasks"]
    own = [row for row in rows if not row["foreign"]]
    assert [{process["pid"] for process in row["processes"]} for row in own] == [set(ours.pids())], show(rows)


def test_a_listener_in_a_container_of_its_own_with_the_machines_pids(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any
) -> None:
    """With three capabilities, not privileged."""
    ours, twin = start("shop"), start("bank")
    begin(ours)
    begin(twin)
    record(airflow_db, ours)
    before = twin.pids()
    options = ("--same-database", URL, "--container", "compose=shop")
    listener = Listener(airflow_db.url, tmp_path, *options, docker_url=docker_engine.url)
    listener.command = [
        *("docker", "-H", docker_engine.url, "run", "--rm", "--name", "dagstop", "--pid=host"),
        *("--network=host", "--cap-drop=ALL", "--cap-add=SYS_PTRACE", "--cap-add=KILL"),
        *("--cap-add=DAC_OVERRIDE", "--volume", f"{docker_engine.folder}:{docker_engine.folder}"),
        *("--volume", f"{tmp_path}:{tmp_path}", *mounts(), "--env", f"PATH={os.environ['PATH']}"),
        *(IMAGE, *listener.command),
    ]
    try:
        with listener:
            listener.wait_for("verdict=ours")
            airflow_db.set_run("failed")
            (report,) = listener.wait_for_reports(1)
    finally:
        stop = ["docker", "-H", docker_engine.url, "rm", "--force", "dagstop"]
        subprocess.run(stop, capture_output=True, check=False)
    assert report["outcome"] == "stopped", show(report)
    wait_until(lambda: not ours.pids(), 20, lambda: f"all dead: {ours.pids()}")
    assert twin.pids() == before


def test_what_docker_operator_started_from_a_worker_dies_also_without_it(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any
) -> None:
    """Containers beside the workers, tagged by the cluster policy; both projects' workers are killed."""
    ours, twin = start("shop"), start("bank")
    begin(ours)
    record(airflow_db, ours)
    pid = airflow_db.one("select pid from task_instance")
    started = [beside(start, worker, pid) for worker in (ours, twin)]
    options = ("--same-database", URL, "--container", "compose=shop")
    with Listener(airflow_db.url, tmp_path, *options, docker_url=docker_engine.url) as listener:
        listener.wait_for("verdict=ours")
        listener.wait_until_doubted(5)
        for worker in (ours, twin):
            worker.container.kill()
        wait_until(lambda: not ours.pids(), 20, lambda: f"{ours.pids()}")
        airflow_db.set_run("failed")
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)
    assert [item["id"] for item in report["detail"]["containers"]] == [started[0].id[:12]], show(report)
    for one in started:
        one.container.reload()
    assert [one.container.status for one in started] == ["exited", "running"]


def beside(start: Any, worker: Worker, pid: int) -> Worker:
    """A container that a task in a worker started."""
    tags = {
        "AIRFLOW_CTX_DAG_ID": "dag",
        "AIRFLOW_CTX_DAG_RUN_ID": "run",
        "AIRFLOW_CTX_TASK_ID": "a",
        "AIRFLOW_CTX_TRY_NUMBER": "1",
        "DAGSTOP_AIRFLOW_HOME": HOME,
        "DAGSTOP_POLICY": "2",
        "DAGSTOP_HOSTNAME": worker.hostname,
        "DAGSTOP_JOB_ID": "7",
        "DAGSTOP_PID": str(pid),
    }
    started: Worker = start("whatever", environment=tags)
    return started


def test_an_order_that_was_there_first_waits_for_what_the_engine_says(
    airflow_db: AirflowDatabase, tmp_path: Path, docker_engine: Engine, start: Any
) -> None:
    """A listener that starts late judges it before any engine has answered: that is not a reason to spare."""
    ours, twin = start("shop"), start("bank")
    begin(ours)
    begin(twin)
    record(airflow_db, ours)
    before = twin.pids()
    airflow_db.set_run("failed")
    options = ("--same-database", URL, "--container", "compose=shop")
    with Listener(airflow_db.url, tmp_path, *options, docker_url=docker_engine.url) as listener:
        (report,) = listener.wait_for_reports(1)
    assert report["outcome"] == "stopped", show(report)
    wait_until(lambda: not ours.pids(), 20, lambda: f"all dead: {ours.pids()}")
    assert twin.pids() == before

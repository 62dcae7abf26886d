"""Tasks with run_as_user on a real Airflow that is a user of its own; the listener was told of neither."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dagstop.report.sender import HEARTBEAT
from tests.conftest import require_packages
from tests.e2e.conftest import VERSIONS
from tests.e2e.site import Site, marked
from tests.support.users import Users
from tests.support.watch import wait_until
from tests.testbed import airflows, proc
from tests.testbed.docker_engine import Engine
from tests.testbed.postgres import Server

pytestmark = pytest.mark.e2e
PLAYED = [version for version in ("2.11.2", "3.3.2") if version in VERSIONS]
AIRFLOW, TASKS = "dagstop-airflow", "dagstop-dataeng"
START_SECONDS, DEATH_SECONDS = 150.0, 60.0
GRACE = 10.0
BEGUN = ["cleans", "daemon", "leaves", "pool", "pool"]
ALIVE, ORPHANED = "users_7001", "users_7002"


@pytest.fixture
def users() -> Iterator[Users]:
    require_packages("sudo")
    allowed = ["Defaults env_reset", "root ALL=(ALL:ALL) ALL", f"{AIRFLOW} ALL=(ALL) NOPASSWD:SETENV: ALL"]
    with Users({AIRFLOW: 61201, TASKS: 61202}, allowed) as found:
        yield found


@pytest.fixture(params=PLAYED)
def site(
    request: pytest.FixtureRequest,
    docker_engine: Engine,
    airflow_server: Server,
    users: Users,
    tmp_path: Path,
) -> Iterator[Site]:
    """An Airflow for this alone; its tasks write into its log folder, up to 2.x."""
    python = airflows.build(request.param) / "bin" / "python"
    dags = tmp_path / "dags"
    shutil.copytree(Path(__file__).parent / "users_dags", dags)
    for path in (python, python.resolve(), dags):
        users.let_in(path)
    more = {
        "DAGSTOP_TESTBED_TASK_USER": TASKS,
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o666",
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o777",
    }
    site = Site(request.param, airflow_server, docker_engine, "impersonated", dags, user=AIRFLOW, **more)
    try:
        marks = site.airflow.home / "marks"
        marks.mkdir(parents=True, exist_ok=True)
        marks.chmod(0o1777)
        site.start()
        yield site
    finally:
        site.stop()


def marks(site: Site, run: str) -> list[str]:
    """What the run's Python has written down, a word for each time."""
    number = run.rpartition("_")[2]
    found = (site.airflow.home / "marks").glob(f"*-{number}-*")
    return sorted(path.name.partition("-")[0] for path in found for _ in path.read_text().splitlines())


def started(site: Site, users: Users, run: str) -> list[proc.Process]:
    """All that the run has running as the user of its tasks, once all of it is there."""
    before = {p.identity for p in users.processes(TASKS)}
    site.airflow.trigger("impersonated", run)

    def there() -> bool:
        sleeps = {p.command[1].partition(".")[0] for p in marked(run)}
        return marks(site, run) == BEGUN and sleeps == {"6071", "6072", "6073"}

    site.airflow.wait_for(there, f"running {run}", START_SECONDS)
    return [p for p in users.processes(TASKS) if p.identity not in before]


def kill_airflow(site: Site, users: Users, left: list[proc.Process]) -> list[proc.Process]:
    """SIGKILL all of Airflow, its sudos and the real runners; gives what of `left` they leave behind."""
    while airflow := [p for p in (*users.processes(AIRFLOW), *sudos(), *runners(left)) if p.alive()]:
        proc.send(airflow, signal.SIGSTOP)  # first: none is to see another die
        proc.kill(airflow)
        wait_until(lambda: not any(p.alive() for p in airflow), 10, lambda: f"still there: {airflow}")
    return [p for p in left if p.alive()]


def sudos() -> list[proc.Process]:
    """Airflow's own, of the tasks."""
    return [p for p in proc.everyone() if p.state != "Z" and p.command[:3] == ("sudo", "-E", "-H")]


def runners(processes: list[proc.Process]) -> list[proc.Process]:
    """Those that a sudo has started."""
    return [p for p in processes if any(p.ppid == sudo.pid for sudo in sudos())]


def test_all_of_a_run_as_another_user_dies_and_nothing_else_of_that_user(site: Site, users: Users) -> None:
    path = {"PATH": os.environ["PATH"]}
    words = ["sleep", "3600"]
    strangers = [
        subprocess.Popen(words, user=TASKS, env=path, start_new_session=True),
        subprocess.Popen(words, user=TASKS, env={**path, "AIRFLOW_HOME": str(site.airflow.home)}),
        subprocess.Popen(["sudo", "-E", "-u", TASKS, *words], user=AIRFLOW, env=path),
    ]
    try:
        asleep = [tuple(words)] * len(strangers)
        wait_until(lambda: [p.command for p in users.processes(TASKS)] == asleep, 20, lambda: "no strangers")
        play(site, users)
        assert [stranger.poll() for stranger in strangers] == [None] * 3, site.listener_log()
    finally:
        users.kill()
        for stranger in strangers:
            stranger.wait(10)


def play(site: Site, users: Users) -> None:
    """Fail a run with everything alive, and another one when all of Airflow was killed."""
    first, second = (started(site, users, run) for run in (ALIVE, ORPHANED))
    assert len(first) == len(second) >= len(BEGUN)
    wait_until(lambda: advice(site) == [f"give it --task-user {TASKS}"], 2 * HEARTBEAT, site.listener_log)

    stopped(site, ALIVE, first)
    assert set(marks(site, ALIVE)) == {*BEGUN, "asked", "cleaned"}, site.listener_log()
    assert all(p.alive() for p in second), site.listener_log()

    left = kill_airflow(site, users, second)
    assert len(left) >= 3 + 2 + 1, left  # the bash task's, the pool's workers, the daemon
    stopped(site, ORPHANED, left)


def advice(site: Site) -> list[str]:
    """What check says to do about the users of tasks: as of the listener's last heartbeat."""
    findings = json.loads(site.dagstop("check", "--json"))["findings"]
    return [f["do"] for f in findings if f["name"].startswith("users on ")]


def stopped(site: Site, run: str, processes: list[proc.Process]) -> None:
    """Fail the run: all of it dies within one grace period, and that is what is said."""
    site.airflow.fail_run_by_sql("impersonated", run)
    wait_until(lambda: site.reported(run), DEATH_SECONDS, site.listener_log)
    (order,) = [order for order in site.orders(run) if order["kind"] == "run"]
    (detail,) = order["details"]
    assert [p for p in processes if p.alive()] == [], site.listener_log()
    assert order["outcomes"] == ["stopped"] and detail["spared"] == [], detail
    signals = [
        (name, dt.datetime.fromisoformat(at)) for p in detail["processes"] for name, at in p["signals"]
    ]
    begun = min(at for _, at in signals)
    late = [name for name, at in signals if (at - begun).total_seconds() > 1.5 * GRACE]
    assert late == [], detail
    for sudo in detail["processes"]:
        if sudo["command"].startswith("sudo "):
            ends = [p["died_at"] for p in detail["processes"] if task_of(p) == task_of(sudo)]
            # it would have passed a SIGTERM on
            assert all(name == "SIGKILL" or at >= min(ends) for name, at in sudo["signals"]), detail


def task_of(process: dict[str, Any]) -> str:
    """Of a process in a report."""
    return str(process["task"].get("ti_id") or process["task"]["task_id"])

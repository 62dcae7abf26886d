"""What people do with failed runs and tasks, and must go on doing with dagstop at work, on every Airflow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dagstop.lab import proc
from dagstop.lab.docker_engine import Engine
from dagstop.lab.postgres import Server
from tests.e2e.conftest import FULL, VERSIONS
from tests.e2e.kinds import number_of
from tests.e2e.site import Site, marked
from tests.support.watch import hold, wait_until

pytestmark = pytest.mark.e2e

SLEEPS = {"6030", "6031"}  # what `long` starts
START_SECONDS = 120.0
DEATH_SECONDS = 60.0
QUIET_SECONDS = 10.0


# in CI on one release: each start of an Airflow costs a minute
@pytest.fixture(scope="module", params=VERSIONS if FULL else [v for v in VERSIONS if v == "2.11.2"])
def site(request: pytest.FixtureRequest, docker_engine: Engine, airflow_server: Server) -> Iterator[Site]:
    """One Airflow for all."""
    site = Site(request.param, airflow_server, docker_engine, "again")
    try:
        site.start()
        yield site
    finally:
        site.stop()


@pytest.mark.parametrize("kind", ["run", "task"])
def test_cleared_while_its_order_is_open_it_runs_again(site: Site, kind: str) -> None:
    airflow, run = site.airflow, "again_6201" if kind == "run" else "again_6202"
    airflow.trigger("again", run)
    old = started(site, run)
    with site.listener_held():
        fail(site, run, kind)
        assert [order["kind"] for order in site.orders(run)] == [kind]
        airflow.clear_task_by_ui("again", run, "long")
        new = started(site, run, besides=old)
        # open all the while; a scheduler may have failed the run, too, of which no task was left
        assert not any(order["outcomes"] for order in site.orders(run))
        assert any(p.alive() for p in old)  # the daemon, which Airflow leaves behind
    wait_until(lambda: not any(p.alive() for p in old), DEATH_SECONDS, site.listener_log)
    wait_until(lambda: site.reported(run), DEATH_SECONDS, site.listener_log)

    def look() -> None:
        assert all(p.alive() for p in new), site.listener_log()
        assert airflow.task_states(run) == {"long": "running"}

    hold(look, QUIET_SECONDS)
    assert airflow.run("again", run)["state"] == "running"


@pytest.mark.parametrize("kind", ["run", "task"])
def test_marked_success_it_stays_so(site: Site, kind: str) -> None:
    airflow, run = site.airflow, "again_6203" if kind == "run" else "again_6204"
    airflow.trigger("again", run)
    old = started(site, run)
    with site.listener_held():
        fail(site, run, kind)
        airflow.succeed_task_by_ui("again", run, "long")
        assert airflow.task_states(run) == {"long": "success"}
    # the old try is over whatever its state is called
    wait_until(lambda: not any(p.alive() for p in old), DEATH_SECONDS, site.listener_log)

    def look() -> None:
        assert airflow.task_states(run) == {"long": "success"}
        assert marked(run) == []

    hold(look, QUIET_SECONDS)


def test_what_fails_by_itself_ends_its_callback(site: Site) -> None:
    run = "breaks_6205"
    marks = site.airflow.home / "marks"
    done = marks / f"{number_of(run)}-callback_done"
    site.airflow.trigger("breaks", run)
    site.airflow.wait_for(done.exists, "through its callback", START_SECONDS)
    ended = {"breaks": "failed"}
    site.airflow.wait_for(lambda: site.airflow.task_states(run) == ended, "failed", START_SECONDS)
    orders = "SELECT 1 FROM dagstop.stop_order WHERE dag_id = 'breaks'"
    failed = "SELECT 1 FROM dag_run WHERE dag_id = 'breaks' AND state = 'failed'"
    site.airflow.wait_for(lambda: bool(site.airflow.query(failed)), "its run failed", START_SECONDS)
    assert site.airflow.query(orders) != []  # there was something that could have cut it short


def started(site: Site, run: str, besides: list[proc.Process] | None = None) -> list[proc.Process]:
    """What `long` started, once all of it is there; `besides` is of an earlier try."""
    earlier = {p.identity for p in besides or ()}
    found: list[proc.Process] = []

    def there() -> bool:
        found[:] = [p for p in marked(run) if p.identity not in earlier]
        names = {p.command[1].partition(".")[0] for p in found}
        return names == SLEEPS and site.airflow.task_states(run) == {"long": "running"}

    site.airflow.wait_for(there, f"running {run}", START_SECONDS)
    return found


def fail(site: Site, run: str, kind: str) -> None:
    """What a person types."""
    if kind == "run":
        site.airflow.fail_run_by_sql("again", run)
        return
    column = "execution_date" if site.airflow.generation == 1 else "run_id"
    failed = site.airflow.execute(
        f"UPDATE task_instance SET state = 'failed' WHERE dag_id = 'again' AND {column} ="
        f" (SELECT {column} FROM dag_run WHERE dag_id = 'again' AND run_id = %s)",
        (run,),
    )
    assert failed == 1

"""What is allowed at once while an order is open: a clear, so that it runs again; success marked by hand."""

from __future__ import annotations

import pytest

from tests.e2e.never_breaks.tasks import (
    DEATH_SECONDS,
    QUIET_SECONDS,
    START_SECONDS,
    dead,
    fail,
    heard,
    runners,
    started,
)
from tests.e2e.site import Site, marked
from tests.support.watch import hold, wait_until

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("kind", ["run", "task"])
def test_cleared_while_its_order_is_open_it_runs_again(site: Site, kind: str) -> None:
    airflow, run = site.airflow, "again_6201" if kind == "run" else "again_6202"
    airflow.trigger("again", run)
    old = started(site, run)
    with site.listener_held():
        fail(site, "again", run, kind)
        assert [order["kind"] for order in site.orders(run)] == [kind]
        # a scheduler that finds no task left fails the run; before it has, a clear and it are a race of Airflow's own
        airflow.wait_for(lambda: airflow.run("again", run)["state"] == "failed", "failed", START_SECONDS)
        # and up to 2.x a runner that its supervisor ends now would write `failed` into the cleared row
        airflow.wait_for(lambda: not runners(site, run), "without its old runner", START_SECONDS)
        heard(site, "again", run)
        airflow.clear_task_by_ui("again", run, "long")
        new = started(site, run, besides=old)
        # open all the while
        assert not any(order["outcomes"] for order in site.orders(run))
        assert any(p.alive() for p in old)  # the daemon, which Airflow leaves behind
    dead(site, old)
    wait_until(lambda: site.reported(run), DEATH_SECONDS, site.listener_log)

    def look() -> None:
        assert all(p.alive() for p in new), site.listener_log()
        assert airflow.task_states(run) == {"long": "running"}

    hold(look, QUIET_SECONDS)
    assert airflow.run("again", run)["state"] == "running"
    fail(site, "again", run, "run")  # and is not immune to the next
    dead(site, new)


@pytest.mark.parametrize("kind", ["run", "task"])
def test_marked_success_it_stays_so(site: Site, kind: str) -> None:
    airflow, run = site.airflow, "again_6203" if kind == "run" else "again_6204"
    airflow.trigger("again", run)
    old = started(site, run)
    with site.listener_held():
        fail(site, "again", run, kind)
        airflow.succeed_task_by_ui("again", run, "long")
        assert airflow.task_states(run) == {"long": "success"}
    dead(site, old)  # the old try is over whatever its state is called

    def look() -> None:
        assert airflow.task_states(run) == {"long": "success"}
        assert marked(run) == []

    hold(look, QUIET_SECONDS)

"""A run marked failed by a mouse, in a real browser: 1.10.0's page of DAG runs, 3.3.2's page of one run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import VERSIONS
from tests.e2e.never_breaks.tasks import DEATH_SECONDS, START_SECONDS, dead, started
from tests.e2e.site import Site, marked
from tests.support.browser import Browser
from tests.support.watch import hold, wait_until
from tests.testbed.docker_engine import Engine
from tests.testbed.postgres import Server

pytestmark = pytest.mark.e2e

CLICKED = [version for version in ("1.10.0", "3.3.2") if version in VERSIONS]
FAILED, LEFT_ALONE = "again_6208", "again_6209"


@pytest.fixture(params=CLICKED)
def site(request: pytest.FixtureRequest, docker_engine: Engine, airflow_server: Server) -> Iterator[Site]:
    """An Airflow for this alone: it starts few tasks."""
    few = {"AIRFLOW__CORE__PARALLELISM": "4"}
    site = Site(request.param, airflow_server, docker_engine, "again", **few)
    try:
        site.start()
        yield site
    finally:
        site.stop()


def test_a_run_marked_failed_by_a_mouse(site: Site, browser: Browser) -> None:
    airflow = site.airflow
    airflow.trigger_many("again", [FAILED, LEFT_ALONE])
    victims, others = started(site, FAILED), started(site, LEFT_ALONE)
    base = f"http://127.0.0.1:{airflow.port}"
    if airflow.generation == 1:
        browser.driver.get(f"{base}/admin/dagrun/")
        row = f"//tr[contains(., '{FAILED}')]"
        browser.press(f"{row}//input[@type='checkbox' and @name='rowid']")
        browser.press("//a[contains(., 'With selected')]")
        browser.shoot(f"clicked-{site.version}-menu")
        browser.press("//a[contains(., \"Set state to 'failed'\")]")
    else:
        browser.driver.get(f"{base}/dags/again/runs/{FAILED}")
        browser.press("//*[@data-testid='mark-run-as-button']")
        browser.press("//*[@data-testid='mark-run-as-failed']")
        browser.shoot(f"clicked-{site.version}-menu")
        browser.press("//*[@data-testid='mark-run-as-confirm']")
    failed = {"state": "failed", "tasks": {"long": "failed"}}

    def now() -> dict[str, object]:
        return {"state": airflow.run("again", FAILED)["state"], "tasks": airflow.task_states(FAILED)}

    wait_until(lambda: now() == failed, DEATH_SECONDS, lambda: f"{now()}\n{browser.text()}")
    dead(site, victims)
    wait_until(lambda: site.reported(FAILED), DEATH_SECONDS, site.listener_log)
    browser.driver.refresh()
    wait_until(lambda: "failed" in browser.text().lower(), START_SECONDS, browser.text)
    browser.shoot(f"clicked-{site.version}-failed")
    log = "/admin/log/" if airflow.generation == 1 else f"/dags/again/runs/{FAILED}/events"
    browser.driver.get(f"{base}{log}")  # what an Airflow user finds of it
    said = "stopped by dagstop: DAG run marked failed by "
    wait_until(lambda: said in browser.text(), START_SECONDS, browser.text)
    browser.shoot(f"clicked-{site.version}-audit-log")

    def look() -> None:
        assert marked(FAILED) == [] and now() == failed
        assert all(p.alive() for p in others), site.listener_log()

    hold(look, 10)

"""A run marked failed by a mouse, in a real browser: 1.10.0's page of DAG runs, 3.3.2's page of one run."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.common.by import By

from tests.conftest import missing
from tests.e2e.conftest import VERSIONS
from tests.e2e.never_breaks.tasks import DEATH_SECONDS, START_SECONDS, dead, started
from tests.e2e.site import Site, marked
from tests.listener.page.browser import Browser, NoBrowser
from tests.support.watch import hold, wait_until
from tests.testbed.docker_engine import Engine
from tests.testbed.postgres import Server

pytestmark = pytest.mark.e2e

CLICKED = [version for version in ("1.10.0", "3.3.2") if version in VERSIONS]
FAILED, LEFT_ALONE = "again_6208", "again_6209"
NOT_YET = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)


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


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium, headless."""
    try:
        browser = Browser()
    except NoBrowser as exc:
        missing(exc)
    try:
        yield browser
    finally:
        browser.quit()


def test_a_run_marked_failed_by_a_mouse(site: Site, browser: Browser) -> None:
    airflow = site.airflow
    airflow.trigger_many("again", [FAILED, LEFT_ALONE])
    victims, others = started(site, FAILED), started(site, LEFT_ALONE)
    base = f"http://127.0.0.1:{airflow.port}"
    if airflow.generation == 1:
        browser.driver.get(f"{base}/admin/dagrun/")
        row = f"//tr[contains(., '{FAILED}')]"
        press(browser, f"{row}//input[@type='checkbox' and @name='rowid']")
        press(browser, "//a[contains(., 'With selected')]")
        browser.shoot(f"clicked-{site.version}-menu")
        press(browser, "//a[contains(., \"Set state to 'failed'\")]")
    else:
        browser.driver.get(f"{base}/dags/again/runs/{FAILED}")
        press(browser, "//*[@data-testid='mark-run-as-button']")
        press(browser, "//*[@data-testid='mark-run-as-failed']")
        browser.shoot(f"clicked-{site.version}-menu")
        press(browser, "//*[@data-testid='mark-run-as-confirm']")
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


def press(browser: Browser, xpath: str, patience: float = START_SECONDS) -> None:
    """Click it, once it is there and nothing lies before it."""
    end = time.monotonic() + patience
    while True:
        try:
            browser.driver.find_element(By.XPATH, xpath).click()
            return
        except NOT_YET as exc:
            if time.monotonic() > end:
                browser.shoot("not-clicked")
                raise AssertionError(
                    f"{xpath}: {exc.msg}\n{browser.driver.current_url}\n{browser.text()}"
                ) from exc
            time.sleep(0.2)

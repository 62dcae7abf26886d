"""`dagstop plugin` in Airflow's own pages, in a real browser: the menu entry, and the link from a task instance."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import quote, urlencode

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from dagstop import plugin
from tests.e2e.conftest import VERSIONS
from tests.e2e.site import Site
from tests.support.airflow_tables import AirflowDatabase
from tests.support.browser import NOT_YET, Browser
from tests.support.page import Page
from tests.support.watch import wait_until
from tests.testbed.docker_engine import Engine
from tests.testbed.postgres import Server
from tests.testbed.web import PASSWORD, USER

pytestmark = pytest.mark.e2e

VISITED = [version for version in ("1.10.15", "2.11.2", "3.3.2") if version in VERSIONS]
SECONDS, AGAIN_SECONDS = 60.0, 5.0
STOPPED, OTHER = "manual__2020-01-02T03:04:05+00:00", "again_2"
BROWSE = "//*[self::a or self::button][contains(., 'Browse') and string-length(normalize-space()) < 10]"
PERSON = ("-u", USER, "-p", PASSWORD, "-r", "Admin", "-f", "lab", "-l", "lab", "-e", "lab@example.org")
LINKS = """
const found = [];
const text = arguments[0];
const look = (root) => root.querySelectorAll('*').forEach((e) => {
  const leads = e.localName === 'a' && e.protocol === 'http:' && !e.getAttribute('href').startsWith('#');
  if (leads && e.textContent.trim() === text) found.push(e);
  if (e.shadowRoot) look(e.shadowRoot);
});
look(document);
return found;
"""


@pytest.fixture(params=VISITED)
def site(request: pytest.FixtureRequest, docker_engine: Engine, airflow_server: Server) -> Iterator[Site]:
    """An Airflow without a scheduler, whose DAGs are known; its web server is not started."""
    site = Site(request.param, airflow_server, docker_engine, "again")
    try:
        site.airflow.make_folders()
        (site.airflow.home / "plugins").mkdir()
        (site.airflow.home / "plugins" / plugin.FILE_NAME).write_text(plugin.text())
        if site.airflow.generation > 1:
            known = site.airflow.begin("reserialize", "dags", "reserialize")
            assert known.wait(120) == 0, site.airflow.logs(40)
        yield site
    finally:
        site.stop()


def test_the_menu_and_a_task_instance_lead_to_the_page(site: Site, browser: Browser) -> None:
    airflow = site.airflow
    browser.look_as()
    with Page(AirflowDatabase(airflow.database_url, site.release)) as page:
        airflow.environment["DAGSTOP_PAGE_URL"] = page.url
        serve(site)
        airflow.trigger_many("again", [STOPPED, OTHER])
        site.dagstop("stop", "again", STOPPED)
        site.dagstop("stop", "again", OTHER)
        base = f"http://127.0.0.1:{airflow.port}"
        if airflow.generation == 1:  # its classic pages, which have no links on task instances
            browser.driver.get(f"{base}/admin/")
            by_menu(site, browser, page)
            airflow.stop()
            (airflow.home / "airflow-webserver.pid").unlink(missing_ok=True)
            airflow.environment["AIRFLOW__WEBSERVER__RBAC"] = "True"
            assert airflow.begin("user", "create_user", *PERSON).wait(120) == 0, airflow.logs(40)
            serve(site)
        if airflow.generation < 3:
            browser.driver.get(f"{base}/login/")
            browser.driver.find_element(By.ID, "username").send_keys(USER)
            browser.driver.find_element(By.ID, "password").send_keys(PASSWORD, Keys.ENTER)
            wait_until(lambda: "/login" not in browser.driver.current_url, SECONDS, browser.text)
        browser.driver.get(base)
        by_menu(site, browser, page)
        browser.driver.get(base + task_page(site))
        if airflow.generation == 1:
            browser.press("//*[local-name() = 'g' and @id = 'long']", SECONDS)
        follow(browser, page, "stopped by dagstop", f"plugin-{site.version}-link")
        wait_until(lambda: STOPPED in browser.text("#stops"), SECONDS, browser.text)
        assert browser.run("document.querySelectorAll('#stops .order').length") == 1
        browser.shoot(f"plugin-{site.version}-page")


def serve(site: Site) -> None:
    site.airflow.start_web()
    site.airflow.wait_for(site.airflow.web.healthy, "serving", SECONDS)


def by_menu(site: Site, browser: Browser, page: Page) -> None:
    """Some menus open as the mouse comes, others as it is pressed."""
    wait_until(lambda: browser.driver.find_elements(By.XPATH, BROWSE), SECONDS, browser.text)
    menu = browser.driver.find_element(By.XPATH, BROWSE)
    ActionChains(browser.driver).move_to_element(menu).perform()
    if not any(entry.is_displayed() for entry in links(browser, "dagstop")):
        menu.click()
    follow(browser, page, "dagstop", f"plugin-{site.version}-menu")


def follow(browser: Browser, page: Page, text: str, picture: str) -> None:
    """Click the link, and be on the page: in this tab, or in one that it opened.

    A click on what still slides into its place may hit nothing: a person would click again.
    """

    def seen() -> str:
        browser.shoot(f"{picture}-not-there")
        return f"{browser.driver.current_url}\n{browser.text()}"

    def ready() -> list[WebElement]:
        return [link for link in links(browser, text) if link.is_displayed()]

    wait_until(ready, SECONDS, seen)
    browser.shoot(picture)
    tabs = set(browser.driver.window_handles)
    clicked = -AGAIN_SECONDS

    def there() -> bool:
        nonlocal clicked
        for new in set(browser.driver.window_handles) - tabs:
            browser.driver.switch_to.window(new)
        if browser.driver.current_url.startswith(page.url):
            return True
        if time.monotonic() - clicked > AGAIN_SECONDS:
            clicked = time.monotonic()
            with suppress(*NOT_YET, IndexError):
                ready()[0].click()
        return False

    wait_until(there, SECONDS, seen)
    browser.look_as()


def links(browser: Browser, text: str) -> list[WebElement]:
    """The links of that text that lead somewhere, also in a shadow tree, where Airflow 2 has its grid.

    1.10's link on a task instance leads to `#`, disabled, until its web server has said where to.
    """
    found: list[WebElement] = browser.driver.execute_script(LINKS, text)
    return found


def task_page(site: Site) -> str:
    """The path of Airflow's page that shows the links of task `long` of the stopped run."""
    date = site.airflow.date("again", STOPPED).isoformat()
    return {
        1: "/graph?" + urlencode({"dag_id": "again", "execution_date": date}),
        2: "/dags/again/grid?" + urlencode({"dag_run_id": STOPPED, "task_id": "long"}),
        3: f"/dags/again/runs/{quote(STOPPED)}/tasks/long/details",
    }[site.airflow.generation]

"""docs/demo.svg and docs/page.png, both from one run of the demo: `make pictures`.

Run it in a host name of its own (see the Makefile): the pictures name no machine but `airflow-1`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from dagstop.errors import DagstopError
from tests.support.airflow_tables import AirflowDatabase
from tests.support.browser import Browser, NoBrowser
from tests.support.page import Page
from tests.testbed import demo
from tests.testbed.airflow import Airflow

DOCS = Path(__file__).parents[1] / "docs"
TERMINAL, SCREENSHOT = DOCS / "demo.svg", DOCS / "page.png"
_FONTS = re.compile(r"\s*@font-face \{\{.*?\}\}", re.DOTALL)
_WIDTH, _HEIGHT = 1200, 900


def main() -> None:
    """Play the demo and keep both pictures. Raises DagstopError or NoBrowser if something is missing."""
    console = Console(record=True, highlight=False, width=100)
    demo.run(console, at_the_end=_shoot)
    # the fonts of rich's own format come from another server
    text = console.export_svg(title="make demo", code_format=_FONTS.sub("", CONSOLE_SVG_FORMAT))
    TERMINAL.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def _shoot(airflow: Airflow) -> None:
    """The page of the demo's database, with the evidence of the newest stop open."""
    browser = Browser()
    try:
        with Page(AirflowDatabase(airflow.database_url, "2.11.2")) as page:
            browser.look_as(_WIDTH)
            browser.open(page.url)
            browser.run("document.querySelector('#stops details').open = true")
            browser.wait("document.querySelector('#stops details[open] > .evidence a') !== null")
            size = {"width": _WIDTH, "height": _HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.driver.save_screenshot(str(SCREENSHOT))
    finally:
        browser.quit()


if __name__ == "__main__":
    try:
        main()
    except (DagstopError, NoBrowser) as error:
        sys.exit(f"pictures: {error}")

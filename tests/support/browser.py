"""A headless Chromium, as a person in front of a page."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
DESKTOP, PHONE = 1280, 390
"""Widths in pixels."""
NOT_YET = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
"""What Selenium raises of an element that is not there yet, or is being replaced or moved."""


class NoBrowser(RuntimeError):
    """Chromium or its driver is not on this machine."""


class Browser:
    """One browser with a fresh profile."""

    def __init__(self) -> None:
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if chromium is None or driver is None:
            raise NoBrowser("no Chromium here: apt-get install chromium chromium-driver")
        self._profile = tempfile.mkdtemp(prefix="dagstop-chromium-")
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={self._profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.driver.set_page_load_timeout(120)
        self.driver.set_script_timeout(120)

    def quit(self) -> None:
        self.driver.quit()
        shutil.rmtree(self._profile, ignore_errors=True)

    def look_as(self, width: int = DESKTOP, scheme: str = "light") -> None:
        """A screen of that width, for someone who prefers `light` or `dark`."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, url: str) -> None:
        """Return once the page shows what the database says."""
        self.driver.get(url)
        self.wait("document.querySelector('#stops > *') !== null")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self.driver.execute_script(f"return {script.strip()}")

    def wait(self, script: str, timeout: float = 60.0) -> None:
        until = time.monotonic() + timeout
        while not self.run(script):
            assert time.monotonic() < until, f"never so: {script}\n{self.text()}\n{self.complaints()}"
            time.sleep(0.1)

    def press(self, xpath: str, timeout: float = 240.0) -> None:
        """Click it, once it is there and nothing covers it."""
        until = time.monotonic() + timeout
        while True:
            try:
                self.driver.find_element(By.XPATH, xpath).click()
                return
            except NOT_YET as exc:
                if time.monotonic() > until:
                    self.shoot("not-clicked")
                    where = f"{self.driver.current_url}\n{self.text()}"
                    raise AssertionError(f"{xpath}: {exc.msg}\n{where}") from exc
                time.sleep(0.2)

    def text(self, selector: str = "body") -> str:
        """What a person reads there."""
        return str(self.run(f"document.querySelector({selector!r}).innerText"))

    def complaints(self) -> list[str]:
        """What the browser's console said since the last call."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # Selenium left it untyped
        return [entry["message"] for entry in entries]

    def shoot(self, name: str) -> None:
        """A picture of the whole page, where DAGSTOP_TEST_PICTURES names a folder to put it in."""
        folder = os.environ.get("DAGSTOP_TEST_PICTURES")
        if not folder:
            return
        size = self.run("[innerWidth, Math.min(6000, document.documentElement.scrollHeight)]")
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.save_screenshot(str(Path(folder, f"{name}.png")))

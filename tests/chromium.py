"""A real Chromium for tests of pages: `browser` of conftest is one, `visit` opens a page in it and waits until its charts are drawn."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


def started(profile: Path) -> Iterator[Any]:
    """A driver that keeps what the console and the network said; skips where there is no Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver here")
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


def visit(browser, page: Path, *, width: int = 1440, dark: bool = False) -> None:
    """Open the page at a width and in a light, and wait until every chart is drawn."""
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    light = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": light})
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    settle(browser)


def settle(browser) -> None:
    """Wait for the charts that can be seen: those in closed parts are drawn when these open."""
    from selenium.webdriver.support.ui import WebDriverWait

    seen = "[...document.querySelectorAll('[data-chart]:not([hidden])')].filter(box => !box.closest('details:not([open])'))"
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(f"return {seen}.every(box => box.dataset.drawn === box.dataset.chart)"))

"""Chromium without a window, a fresh profile or a way out of this machine, and what it tells of a page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

PROGRAMS = {"chromium": "chromium", "chromedriver": "chromium-driver"}
"""What is run, and Debian's package of each."""

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # root can't have one
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1",
    "--window-size=1280,900",
    "--force-device-scale-factor=1",
)
HERE = ("localhost", "127.0.0.1", "")
"""Hosts of requests that stay on this machine; a file and data in an address have none."""

CHECKS = Path(__file__).with_name("accessibility.js").read_text()


def start() -> webdriver.Chrome:
    """Start Chromium with an empty profile; a test fails in one line if it is not installed."""
    found = {program: shutil.which(program) for program in PROGRAMS}
    missing = [PROGRAMS[program] for program, path in found.items() if path is None]
    if missing:
        pytest.fail(f"browser tests need Chromium and its driver: apt-get install {' '.join(missing)}", pytrace=False)
    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in ARGUMENTS:
        options.add_argument(argument)
    return webdriver.Chrome(options, webdriver.ChromeService(found["chromedriver"]))


class Page:
    """An open page.

    Parameters
    ----------
    driver
        The browser that has it open; everything of Selenium's is there.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._errors: list[str] = []
        self._requests: list[str] = []

    def open(self, address: str | Path) -> Page:
        """Open a file or an address, and wait until it is loaded."""
        self.driver.get(address.resolve().as_uri() if isinstance(address, Path) else address)
        return self

    def all(self, selector: str) -> list[WebElement]:
        """Elements by a selector of CSS."""
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> WebElement:
        """The only element of a selector."""
        [element] = self.all(selector)
        return element

    def width(self, pixels: int) -> None:
        """Lay the page out anew for a window of this width."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )

    def scheme(self, name: str) -> None:
        """Prefer ``"light"`` or ``"dark"`` colours."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def overflows(self) -> bool:
        """Whether the page as a whole scrolls sideways."""
        return self.driver.execute_script("return document.documentElement.scrollWidth > window.innerWidth")

    def problems(self) -> list[str]:
        """What someone who sees little, sees nothing or has no mouse misses, a line each; see ``accessibility.js``."""
        return self.driver.execute_script(CHECKS)

    def tabbed(self) -> list[WebElement]:
        """Elements that the Tab key reaches, in order, from the top of the page."""
        self.driver.execute_script("document.activeElement.blur(); window.getSelection().collapse(document.body, 0)")
        reached: list[WebElement] = []
        while True:
            self.driver.switch_to.active_element.send_keys(Keys.TAB)
            element = self.driver.switch_to.active_element
            if element.tag_name == "body" or element in reached:
                return reached
            reached.append(element)

    def until(self, condition: Callable[[], Any], seconds: float = 30) -> Any:
        """What a condition gives once it is true; a TimeoutException if it never is."""
        return WebDriverWait(self.driver, seconds).until(lambda _: condition())

    def errors(self) -> list[str]:
        """What the console has of errors so far, and of warnings."""
        entries = self.driver.get_log("browser")
        self._errors += [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]
        return self._errors

    def forget(self) -> None:
        """Take the errors and requests so far as meant."""
        self.errors(), self.outside()
        self._errors, self._requests = [], []

    def outside(self) -> list[str]:
        """Addresses on other machines that the page asked for so far."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._requests.append(message["params"]["request"]["url"])
            if message["method"] == "Network.webSocketCreated":
                self._requests.append(message["params"]["url"])
        return [url for url in self._requests if (urlsplit(url).hostname or "") not in HERE]

"""An open page for tests of what a browser shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser.chromium import Page, start
from selenium import webdriver


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """Return Chromium, started once for all pages of a process."""
    driver = start()
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium: webdriver.Chrome) -> Iterator[Page]:
    """Return an empty window. When the test ends, an error in the console or a request elsewhere fails it."""
    blank = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    opened = Page(chromium)
    yield opened
    errors, outside = opened.errors(), opened.outside()
    chromium.close()
    chromium.switch_to.window(blank)
    assert errors == []
    assert outside == []

"""The page of a report in a browser."""

import json
from pathlib import Path
from shutil import copyfile

import pytest
from card_files import SPEED
from selenium.webdriver.common.keys import Keys

from lmms_tokendrop.report.kinds import read_sections
from lmms_tokendrop.report.writing import PAGE, write_report

pytestmark = pytest.mark.browser

RESULTS = Path(__file__).resolve().parents[2] / "model_cards" / "results"
FILES = "throughput_vilt.json", "pocket_vilt.json", "budgets_pocket_scenes.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Return the page of a report with lines, bars and wide tables."""
    folder = tmp_path_factory.mktemp("report")
    for name in FILES:
        copyfile(RESULTS / name, folder / name)
    (folder / "speed_32x512.json").write_text(json.dumps(SPEED))
    write_report(read_sections(folder), folder, "Pocket models")
    return folder / PAGE


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_read_it(page, written, scheme):
    page.scheme(scheme)
    page.open(written)
    assert page.problems() == []
    for summary in page.all("summary"):
        summary.click()
    assert page.problems() == []


def test_every_picture_is_there_and_has_its_numbers_below(page, written):
    page.open(written)
    pictures = page.all("figure > img")
    assert len(pictures) == len(page.all("figure > details table")) == 7
    assert all(page.driver.execute_script("return arguments[0].naturalWidth", picture) > 300 for picture in pictures)
    assert "accuracy, % against image tokens" in pictures[2].get_attribute("alt")


def test_contents_lead_to_every_section(page, written):
    page.open(written)
    links = page.all("nav a")
    assert [link.text for link in links] == [heading.text for heading in page.all("h2")]
    links[-1].send_keys(Keys.ENTER)
    assert page.driver.current_url.endswith(links[-1].get_attribute("href"))
    assert page.driver.execute_script("return arguments[0].getBoundingClientRect().top", page.all("h2")[-1]) < 900


def test_the_keyboard_reaches_links_numbers_and_tables_and_opens_them(page, written):
    page.open(written)
    shown = "nav a, summary, section > .scroll"
    reached = page.tabbed()
    assert reached == page.all(shown)
    numbers = next(element for element in reached if element.tag_name == "summary")
    table = page.all("figure > details table")[0]
    assert not table.is_displayed()
    numbers.send_keys(Keys.ENTER)
    assert table.is_displayed()


@pytest.mark.parametrize("width", [360, 1280])
def test_tables_scroll_and_the_page_does_not(page, written, width):
    page.open(written)
    page.width(width)
    assert not page.overflows()
    assert page.problems() == []

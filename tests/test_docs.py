"""Tables are fresh, links lead somewhere, and Python examples run."""

import re
from pathlib import Path

import pytest
from documents import PAGES, ROOT, blocks
from render_docs import TITLE

from lmms_tokendrop import cache_of
from lmms_tokendrop.benchmark.report import render_blocks
from lmms_tokendrop.report.kinds import read_sections
from lmms_tokendrop.report.page import page
from lmms_tokendrop.report.writing import PAGE, PICTURES, TEXT, markdown

README = PAGES["README.md"].read_text()
ELSEWHERE = {"hub.md", "design.md"}
"""Examples of hub.md need a hub, which tests/hub has; those of design.md are files, which test_plugin.py writes."""

EXAMPLES = sorted(name for name, path in PAGES.items() if name not in ELSEWHERE and blocks(path.read_text(), "python"))
"""Pages with examples in Python."""


def anchors(path: Path) -> set[str]:
    """Return what a link to a page may name behind `#`."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_those_of_the_registries_and_results_files(name):
    text = PAGES[name].read_text()
    assert render_blocks(text, ROOT / "model_cards" / "results") == text


def test_the_report_is_that_of_the_results_files():
    folder = ROOT / "docs" / "report"
    sections = read_sections(ROOT / "model_cards" / "results")
    files = set(re.findall(rf"\]\(({PICTURES}/[^)]*)\)", markdown(TITLE, sections)))
    assert (folder / TEXT).read_text() == markdown(TITLE, sections)
    assert {path.relative_to(folder).as_posix() for path in (folder / PICTURES).iterdir()} == files
    drawings = {picture.title: "" for section in sections for picture in section.pictures}
    assert re.sub(r'(src="data:image/svg\+xml,)[^"]*', r"\1", (folder / PAGE).read_text()) == page(
        TITLE, sections, drawings
    )


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings_that_exist(name):
    page = PAGES[name]
    for link in re.findall(r"\]\((?!http)(.+?)\)", page.read_text()):
        file, _, heading = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


def test_the_readme_is_short_and_leads_to_every_page():
    assert README.count("\n") <= 150
    for name, path in PAGES.items():
        assert name == "README.md" or f"]({path.relative_to(ROOT)})" in README


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_python_examples_of_a_page_run_in_order(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks(PAGES[name].read_text(), "python"):
        exec(block, names)
    assert capsys.readouterr().out
    if name == "README.md":
        (average,) = cache_of(names["out"]).report().average_visual_tokens
        assert abs(average - names["reduction"]["visual_tokens"]) < 1

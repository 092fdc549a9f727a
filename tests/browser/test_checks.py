"""What the checks of pages find in pages with a fault each."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

GOOD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Page</title>
<style>{style}</style><main><h1>Page</h1><p>Text</p>{body}</main></html>"""
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


def written(folder: Path, body: str, style: str = "") -> Path:
    path = folder / "page.html"
    path.write_text(GOOD.format(body=body, style=style))
    return path


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (f'<img alt="A pixel" src="{PIXEL}"><label>Budget <input></label><button>Go</button>', None),
        (f'<img src="{PIXEL}">', "no alternative text: <img"),
        ("<input>", "no label: <input"),
        ("<button></button>", "no name: <button"),
        ("<h3>Too deep</h3>", "a heading of level 3 below one of level 1: <h3"),
        ("<h1>Another</h1>", "not one heading of the first level"),
        ("<table><tr><th>a<td>1</table>", "no caption: <table"),
        ('<p id="a">a</p><p id="a">b</p>', "id used twice: <p"),
        ('<p style="color: #888">grey</p>', "contrast 3.54: <p"),  # (1.05) / (0.2462 + 0.05)
        ('<p style="color: #888; font-size: 24px">large</p>', None),
        ('<div style="background: #222"><p style="color: #333">dark</p></div>', "contrast 1.26: <p"),
        ('<svg role="img"><title>A</title><text y="9" fill="#ccc">a</text></svg>', "contrast 1.61: <text"),
        ('<div style="overflow: auto; width: 50px"><p style="width: 90px">w</p></div>', "the keyboard does not reach"),
        ('<p style="color: #fff; display: none">hidden</p>', None),
    ],
)
def test_each_problem_is_found_where_it_is(page, tmp_path, body, problem):
    found = page.open(written(tmp_path, body)).problems()
    if problem is None:
        assert found == []
    else:
        assert any(problem in line for line in found)


def test_colours_are_those_of_the_scheme(page, tmp_path):
    page.open(written(tmp_path, "", "@media (prefers-color-scheme: dark) { p { color: #fffffa } }"))
    assert page.problems() == []
    page.scheme("dark")
    assert any("contrast" in line for line in page.problems())


def test_the_tab_key_reaches_what_can_be_used(page, tmp_path):
    page.open(written(tmp_path, '<a href="#x">a</a><button disabled>b</button><button>c</button><p tabindex="0">d</p>'))
    assert [element.text for element in page.tabbed()] == ["a", "c", "d"]


def test_a_page_that_is_too_wide_for_its_window_overflows(page, tmp_path):
    page.open(written(tmp_path, '<p style="width: 600px">wide</p>'))
    assert not page.overflows()
    page.width(500)
    assert page.overflows()


def test_errors_and_requests_to_other_machines_are_told(page, tmp_path):
    body = '<script>console.error("lost")</script><img alt="a" src="http://example.org/a.png">'
    page.open(written(tmp_path, body))
    assert page.until(page.outside) == ["http://example.org/a.png"]
    assert any("lost" in line for line in page.errors())
    page.forget()

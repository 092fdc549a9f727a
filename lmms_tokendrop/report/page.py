"""A report as one page that needs nothing else: no script, no font, no file beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from string import punctuation
from typing import Any
from urllib.parse import quote

from markdown_it import MarkdownIt

from lmms_tokendrop.report.picture import Picture
from lmms_tokendrop.report.section import Section

UNQUOTED = "".join(sorted(set(punctuation) - set('#%&"'))) + " \n"
"""What stays as it is in the address of a drawing between double quotes, beside letters and digits."""

STYLE = """\
:root { color-scheme: light dark; }
body { background: Canvas; color: CanvasText; font: 15px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 84rem; padding: 1rem; }
main, section, figure { margin: 0; }
h2 { border-top: 1px solid GrayText; margin-top: 2.5rem; padding-top: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid GrayText; padding: .25rem .5rem; text-align: right; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
.scroll { overflow-x: auto; margin: 1rem 0; }
img { background: #fff; display: block; height: auto; max-width: 100%; }
summary { cursor: pointer; padding: .25rem 0; }
li, p { max-width: 60rem; overflow-wrap: anywhere; }
:focus-visible { outline: 3px solid Highlight; outline-offset: 2px; }
"""
"""Of pages that need nothing else, in light and dark colours."""

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
<main>
<h1>{title}</h1>
{body}
</main>
</html>
"""


def whole_page(title: str, body: str, style: str = "") -> str:
    """A page of HTML that needs nothing else; `style` comes after what all pages have."""
    return PAGE.format(title=escape(title), style=STYLE + style, body=body)


def page(title: str, sections: Sequence[Section], drawings: Mapping[str, str]) -> str:
    """Lay a report out as HTML.

    Parameters
    ----------
    title
        Of the report.
    sections
        Its parts.
    drawings
        By the title of each picture, its drawing in SVG.

    Returns
    -------
    str
        The page. Wide tables scroll by themselves, by keyboard too.
    """
    contents = (f'<li><a href="#s{place}">{escape(one.title)}</a></li>' for place, one in enumerate(sections))
    parts = (_section(f"s{place}", one, drawings) for place, one in enumerate(sections))
    return whole_page(title, "\n".join(['<nav aria-label="Contents">\n<ul>', *contents, "</ul>\n</nav>", *parts]))


def _section(anchor: str, section: Section, drawings: Mapping[str, str]) -> str:
    source = f"<p>From <code>{escape(section.source)}</code>.</p>\n" if section.source else ""
    figures = "\n".join(_figure(picture, drawings[picture.title]) for picture in section.pictures)
    text = rendered_markdown(section.text, section.title)
    heading = f'<h2 id="{anchor}">{escape(section.title)}</h2>'
    return f'<section aria-labelledby="{anchor}">\n{heading}\n{source}{figures}\n{text}</section>'


def _figure(picture: Picture, drawing: str) -> str:
    source = f"data:image/svg+xml,{quote(drawing, safe=UNQUOTED)}"
    numbers = rendered_markdown(picture.table, f"Numbers of the picture {picture.title}")
    return (
        f'<figure>\n<img alt="{escape(picture.alternative)}" src="{source}">\n'
        f"<details>\n<summary>Numbers of this picture</summary>\n{numbers}</details>\n</figure>"
    )


def rendered_markdown(text: str, name: str) -> str:
    """Markdown as HTML, in which each table has a name, a scroll bar if it needs one, and headers of its columns."""
    shown = MarkdownIt("commonmark", {"html": False}).enable("table")
    label = escape(name)
    tables = 0

    def opened(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
        nonlocal tables
        tables += 1
        own = f"{label}, table {tables}"
        return f'<div class="scroll" role="region" tabindex="0" aria-label="{own}">\n<table aria-label="{own}">\n'

    shown.add_render_rule("table_open", opened)
    shown.add_render_rule("table_close", lambda *_: "</table>\n</div>\n")
    shown.add_render_rule("th_open", lambda *_: '<th scope="col">')
    return shown.render(text)

"""Write a report: a page, and the same in Markdown with its pictures beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lmms_tokendrop.markdown import escaped
from lmms_tokendrop.report.drawing import svg
from lmms_tokendrop.report.page import page
from lmms_tokendrop.report.picture import Picture
from lmms_tokendrop.report.section import Section

PAGE, TEXT, PICTURES = "report.html", "report.md", "report_pictures"
"""What is written: two files, and a folder that has nothing else."""


def write_report(
    sections: Sequence[Section], out: Path, title: str, progress: Callable[[str, int, int], None] | None = None
) -> str:
    """Write a report.

    Parameters
    ----------
    sections
        What `lmms_tokendrop.report.kinds.read_sections` read.
    out
        Folder of the report.
    title
        Its heading.
    progress
        Takes what is drawn, how many pictures are, and of how many.

    Returns
    -------
    str
        The Markdown.
    """
    text = markdown(title, sections)
    pictures = [picture for section in sections for picture in section.pictures]
    drawings = {}
    for done, picture in enumerate(pictures, 1):
        drawings[picture.title] = svg(picture)
        if progress is not None:
            progress("drawing", done, len(pictures))
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    for stale in (out / PICTURES).glob("*.svg"):
        stale.unlink()
    for name, drawing in drawings.items():
        (out / _file(name)).write_text(drawing, encoding="utf-8")
    (out / TEXT).write_text(text, encoding="utf-8")
    (out / PAGE).write_text(page(title, sections, drawings), encoding="utf-8")
    return text


def markdown(title: str, sections: Sequence[Section]) -> str:
    """A report in Markdown, which shows the files of its pictures."""
    return "\n\n".join([f"# {escaped(title)}", *map(_section, sections)]) + "\n"


def _section(section: Section) -> str:
    source = f"From `{section.source}`." if section.source else ""
    pictures = map(_picture, section.pictures)
    return "\n\n".join(filter(None, (f"## {escaped(section.title)}", source, *pictures, section.text)))


def _picture(picture: Picture) -> str:
    image = f"![{escaped(picture.alternative)}]({_file(picture.title)})"
    return f"{image}\n\n<details>\n<summary>Numbers of this picture</summary>\n\n{picture.table}\n\n</details>"


def _file(title: str) -> str:
    """The file of a picture, below the folder of the report."""
    return f"{PICTURES}/{re.sub(r'[^a-z0-9.]+', '-', title.lower()).strip('-')}.svg"

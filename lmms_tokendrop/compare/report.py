"""The report of a comparison: Markdown, pictures, and one page of both that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

from markdown_it import MarkdownIt

from lmms_tokendrop.compare.plot import comparison_plot
from lmms_tokendrop.results.compared import Row, read_tasks
from lmms_tokendrop.results.compared_table import NOTES, task_table

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }}
table {{ border-collapse: collapse; }}
th, td {{ border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: right; white-space: nowrap; }}
th:nth-child(-n+2), td:nth-child(-n+2) {{ text-align: left; }}
img {{ max-width: 100%; }}
</style>
{body}
</html>
"""


def write_report(folder: Path) -> str:
    """Write ``report.md``, ``report.png`` and ``report.html`` beside the runs of a comparison.

    Parameters
    ----------
    folder
        Of the comparison; every run in it is reported.

    Returns
    -------
    str
        The Markdown.

    Raises
    ------
    ValueError
        If a file there is no run, or if runs can't be compared.
    """
    tasks = read_tasks(folder)
    title = f"Methods compared on {', '.join(tasks)}"
    text = "\n\n".join([f"# {title}", *(f"## {task}\n\n{task_table(rows)}" for task, rows in tasks.items()), NOTES])
    picture = _png(tasks)
    (folder / "report.md").write_text(f"{text}\n")
    (folder / "report.png").write_bytes(picture)
    shown = MarkdownIt("commonmark").enable("table").render(text)
    image = f'<img alt="Scores against costs" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
    (folder / "report.html").write_text(PAGE.format(title=escape(title), body=f"{shown}\n{image}"))
    return text


def _png(tasks: Mapping[str, Sequence[Row]]) -> bytes:
    written = BytesIO()
    comparison_plot(tasks).savefig(written, format="png", dpi=120)
    return written.getvalue()

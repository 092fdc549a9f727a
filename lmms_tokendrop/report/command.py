"""The command ``lmms-tokendrop report``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from lmms_tokendrop.progress import progress_bar
from lmms_tokendrop.user_errors import check_output_folder, one_line_errors


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of results files; those in folders below count too.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the report. Default: that of the results.")] = None,
    title: Annotated[str | None, typer.Option(help="Heading. Default: by the name of the folder.")] = None,
    fill: Annotated[
        list[Path] | None,
        typer.Option(help="Instead, write the tables between <!-- table: NAME --> and <!-- end --> in this document."),
    ] = None,
) -> None:
    """Show all results files of a folder as tables and pictures: one page of HTML, and the same in Markdown."""
    with one_line_errors(ModuleNotFoundError):
        if not folder.is_dir():
            raise ValueError(f"folder={str(folder)!r}; allowed: a folder of results files")
        if fill:
            for name, value in {"out": out, "title": title}.items():
                if value is not None:
                    raise ValueError(f"{name}: has no effect with fill")
            from lmms_tokendrop.benchmark.report import fill_documents

            fill_documents(folder, fill)
            for path in fill:
                typer.echo(path)
            return
        check_output_folder("out", out)
        check_drawing()
        from lmms_tokendrop.report.kinds import read_sections
        from lmms_tokendrop.report.writing import PAGE, TEXT, write_report

        sections = read_sections(folder)
        with progress_bar() as progress:
            write_report(sections, out or folder, title or f"Results in {folder.resolve().name}", progress)
    for name in (TEXT, PAGE):
        typer.echo((out or folder) / name)


def check_drawing() -> None:
    """Refuse with a ModuleNotFoundError, before any work, to write a report where nothing draws its pictures."""
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError("the report has pictures: pip install matplotlib")

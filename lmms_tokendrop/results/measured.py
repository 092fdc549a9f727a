"""Tables of one results file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmms_tokendrop.json_files import read_json
from lmms_tokendrop.markdown import NOT_MEASURED


def measured_table(name: str, render: Callable[[Any], str]) -> Callable[[Path], str]:
    """Make the function that renders a results file.

    Parameters
    ----------
    name
        Of the file.
    render
        From what the file holds to Markdown.

    Returns
    -------
    Callable
        From the folder of the results files to the table, which is `NOT_MEASURED` without the file. It raises a
        ValueError that names the file if that holds something else than `render` reads.
    """

    def table(results: Path) -> str:
        path = results / name
        if not path.exists():
            return NOT_MEASURED
        measured = read_json(path)
        try:
            return render(measured)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path} is not what the measurement writes ({reason})") from error

    return table

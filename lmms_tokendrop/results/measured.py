"""Tables of one results file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lmms_tokendrop.json_files import read_json
from lmms_tokendrop.markdown import NOT_MEASURED

Shown = TypeVar("Shown")


def rendered(path: Path, render: Callable[[Any], Shown]) -> Shown:
    """Render what a results file holds.

    Parameters
    ----------
    path
        The file.
    render
        From what it holds to what is shown.

    Raises
    ------
    ValueError
        If it holds something else than `render` reads; names the file.
    """
    measured = read_json(path)
    try:
        return render(measured)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is not what the measurement writes ({reason})") from error


def measured_table(name: str, render: Callable[[Any], str]) -> Callable[[Path], str]:
    """Make the function that renders the results file of a name.

    Parameters
    ----------
    name
        Of the file.
    render
        From what the file holds to Markdown.

    Returns
    -------
    Callable
        From the folder of the results files to the table, which is `NOT_MEASURED` without the file.
    """

    def table(results: Path) -> str:
        path = results / name
        return rendered(path, render) if path.exists() else NOT_MEASURED

    return table

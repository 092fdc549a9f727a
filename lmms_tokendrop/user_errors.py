"""What a user's mistake looks like at the command line: one line, exit status 1, no traceback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Print ``ValueError``, ``OSError`` and `kinds` as one line and end the command with status 1.

    Messages name the argument, file, row or document, and what is allowed. Any other exception is a fault of this
    package and keeps its traceback.

    Parameters
    ----------
    *kinds
        Further exception classes that a user's input can cause.
    """
    try:
        yield
    except (ValueError, OSError, *kinds) as error:
        typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1) from None


def check_output_file(argument: str, path: Path | None) -> None:
    """Fail before any work if results could not be written to a file.

    Parameters
    ----------
    argument
        What the error calls it.
    path
        The file, which need not exist, nor its folder; None: nothing is written.

    Raises
    ------
    ValueError
        If it is a folder, or would lie in a file.
    """
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{argument}={str(path)!r} is a folder; name a file")
    _refuse_files(argument, path, path.parents)


def check_output_folder(argument: str, path: Path | None) -> None:
    """The same for a folder: a ValueError if it is a file, or would lie in one."""
    if path is not None:
        _refuse_files(argument, path, (path, *path.parents))


def _refuse_files(argument: str, path: Path, places: Iterable[Path]) -> None:
    for place in places:
        if place.exists() and not place.is_dir():
            raise ValueError(f"{argument}={str(path)!r}: {str(place)!r} is a file; name a folder")

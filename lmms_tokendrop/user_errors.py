"""What a user's mistake looks like at the command line: one line, exit status 1, no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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

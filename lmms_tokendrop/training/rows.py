"""Rows of data by the names that a task gives their columns, and errors that name the row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Rows(Protocol):
    """Rows of data.

    Attributes
    ----------
    source
        What errors call the data.
    """

    source: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row, its images as RGB."""

    def value(self, column: str, index: int) -> Any:
        """One value that is no image."""

    def stored(self) -> Iterator[dict[str, Any]]:
        """All rows without their images; none if rows are drawn."""


class RowError(ValueError):
    """What is wrong with a row of data, in one line.

    torch hands an exception of a worker process on with a traceback before its message, which is left out here.
    """

    def __str__(self) -> str:
        return super().__str__().rpartition(f"{type(self).__name__}: ")[2]


@contextmanager
def named_row(rows: Rows, index: int) -> Iterator[None]:
    """Let a ValueError in this block name the data and the row, counted from 0."""
    try:
        yield
    except RowError:
        raise
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise RowError(f"{rows.source}, row {index}: {reason}") from error

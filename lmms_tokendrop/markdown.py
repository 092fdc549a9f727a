"""Markdown of values that come from elsewhere: text, names and numbers that can't become anything else, and tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NOT_MEASURED = "not measured"

ACTIVE = re.compile(r"[\\`*\[\]<>~&$@#]|(?<![^\W_])_|_(?![^\W_])|(?<=www)\.|:(?=//)")
"""What starts a tag, a link, a heading, a formula or emphasis in some Markdown of the Hub or of GitHub."""

LIST_START = re.compile(r"^(\d*)([-+=.)][-+=]*(?=\s|$))")
LARGE = 1e9
"""From here on numbers have an exponent."""


def escaped(value: Any) -> str:
    """Text in one line of Markdown that reads as it is.

    Parameters
    ----------
    value
        Its `str` is shown. White space becomes single spaces, and what can't be printed becomes the sign U+FFFD.

    Returns
    -------
    str
        Markdown. A `|` stays: `markdown_table` takes care of it.
    """
    return LIST_START.sub(r"\1\\\2", ACTIVE.sub(r"\\\g<0>", _one_line(value)))


def code(value: Any) -> str:
    """A name as a code span; one with backticks or backslashes, which a span can't hold in a table, as text."""
    text = _one_line(value)
    return escaped(text) if not text or "`" in text or "\\" in text else f"`{text}`"


def number(value: Any, form: str = ".3f") -> str:
    """A number, with an exponent if it is large.

    Parameters
    ----------
    value
        An int or a float.
    form
        Format of numbers below `LARGE`.

    Raises
    ------
    ValueError
        If it is anything else, infinite or not a number.
    """
    if not is_finite(value):
        raise ValueError(f"{_one_line(repr(value))[:80]} is no finite number")
    if abs(value) < LARGE:
        return format(value, form)
    return format(float(value), "+.3e" if form.startswith("+") else ".3e")


def number_if_any(value: Any, form: str = ".2f", missing: str = "") -> str:
    """As :func:`number`; `missing` for None."""
    return missing if value is None else number(value, form)


def median_and_range(values: Mapping[str, Any] | None, form: str = ".2f", missing: str = "", times: int = 1) -> str:
    """`median`, `low` and `high`, each `times` as large; `missing` for None. Raises as :func:`number` does."""
    if values is None:
        return missing
    median, low, high = (number(times * values[name], form) for name in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def is_finite(value: Any) -> bool:
    """Whether a value is an int or a float that a double can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table of cells in Markdown; a `|` in them starts no cell and a line break no row."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.splitlines()).replace("|", r"\|")


def _one_line(value: Any) -> str:
    text = " ".join(str(value).split())
    return "".join(character if character.isprintable() else "\ufffd" for character in text)

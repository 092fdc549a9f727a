"""A part of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lmms_tokendrop.report.picture import Picture


@dataclass(frozen=True)
class Section:
    """What one results file holds, or a folder of runs.

    Parameters
    ----------
    title
        Its heading, without markup.
    text
        Tables and notes in Markdown.
    pictures
        Of the same numbers.
    source
        Where they are from: a file, or a folder of runs.
    """

    title: str
    text: str
    pictures: Sequence[Picture] = field(default=())
    source: str = ""

"""Answers and words of the pocket encoders, whose head picks one of a fixed list of answers."""

from __future__ import annotations

from lmms_tokendrop.pocket.vocabulary import (
    COLOR_NAMES,
    DIGIT_NAMES,
    GROUND_NAMES,
    QUESTION_WORDS,
    SHAPE_NAMES,
    TEXTURE_NAMES,
    YES_NO,
)

LABELS = [*COLOR_NAMES, *SHAPE_NAMES, *TEXTURE_NAMES, *DIGIT_NAMES, *GROUND_NAMES, *YES_NO]
"""Every answer to a question about a scene; the order is fixed, because trained weights depend on it."""

WORDS = list(dict.fromkeys([*LABELS, *QUESTION_WORDS, "?"]))
"""Every word of a question."""

"""The heads of encoders: which one a checkpoint has, and what it can answer."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_tokendrop.catalogue import ENCODER_HEADS

HEADS = {head.name: head for head in ENCODER_HEADS}

SAME_FORM = {"question_answering", "visual_entailment"}
"""Heads with the same parameters."""

CANDIDATES = "candidates"
"""Entry of a task's ``generation_kwargs`` that asks for a ranking: the column whose texts are ranked for each image."""


def head_of(class_names: Sequence[str]) -> str | None:
    """Return the head that a class name ends with; None if there is none."""
    for name, head in HEADS.items():
        if any(class_name.endswith(f"For{head.ending}") for class_name in class_names):
            return name
    return None


def choose_head(class_names: Sequence[str], wanted: str | None) -> str:
    """Return the head to load a checkpoint with.

    Parameters
    ----------
    class_names
        ``architectures`` of the checkpoint's configuration.
    wanted
        What the model argument ``head`` says.

    Raises
    ------
    ValueError
        If the checkpoint has another head, or if neither says which it has.
    """
    saved = head_of(class_names)
    if wanted is not None and wanted not in HEADS:
        raise ValueError(f"head={wanted!r}; allowed: {', '.join(HEADS)}")
    if wanted is None and saved is None:
        raise ValueError(
            f"the checkpoint was saved as {', '.join(class_names) or 'no known class'}, which says no head to answer "
            f"with; allowed for head=: {', '.join(HEADS)}"
        )
    if wanted is not None and saved not in (None, wanted) and {wanted, saved} != SAME_FORM:
        raise ValueError(f"head={wanted}: the checkpoint has the head {saved}, whose parameters are others")
    return wanted or saved

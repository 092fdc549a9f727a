"""The encoders that can be trained, and their classes. Imports no torch before it returns one."""

from __future__ import annotations

from typing import Any

from lmms_tokendrop.catalogue import ENCODER_HEADS, architecture, architectures

TASKS = tuple(head.training for head in ENCODER_HEADS if head.training is not None)
"""What can be trained."""


def trainable() -> tuple[str, ...]:
    """Names of the encoders."""
    return tuple(family.name for family in architectures() if family.token_types is not None)


def encoder_class(name: str) -> Any:
    """Import an encoder's class without head."""
    family = architecture(name)
    return family.load(f"{family.reduced}Model")


def head_class(name: str, task: str) -> Any:
    """Import an encoder's class with the head of a task."""
    family = architecture(name)
    [head] = [head for head in family.heads if head.training == task]
    return family.load(family.model_class(head))

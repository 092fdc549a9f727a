"""What the fields of an entry may be."""

from __future__ import annotations

import re
from typing import Any

PARTS = {
    "decoder": "a language model that reads visual tokens and writes text",
    "fusion": "an encoder whose layers read text and image together",
    "co_attention": "layers in which text and image read each other in turn",
    "clip_tower": "a CLIP tower whose blocks can drop or merge patches",
    "cls_attention": "the attention of the tower's CLS token to its patches",
    "patch_grid": "patches in rows and columns, the same number in every picture or tile",
    "newlines": "a token behind each row of a picture, and other ways to lay its tiles end to end",
}
"""Words for what a model has for a reducer to work with, and what they mean."""

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def owner_of(kind: str, name: Any) -> str:
    """What errors call an entry; a ValueError if its name is none."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{kind}: name={name!r}; allowed: lower case words joined by _, such as 'cls_attention'")
    return f"{kind} {name!r}"


def check_texts(owner: str, **texts: Any) -> None:
    """Raise a ValueError for a field that is no text or an empty one."""
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{owner}: {name}={text!r}; allowed: a text that is not empty")


def check_parts(owner: str, field_name: str, parts: Any, kind: type, least: int = 0) -> None:
    """Raise a ValueError unless a field is a `kind` of words of `PARTS`, and has as many as that."""
    unknown = [part for part in parts if part not in PARTS] if isinstance(parts, kind) else [parts]
    if unknown or len(parts) < least:
        found = ", ".join(map(repr, unknown)) or "none"
        raise ValueError(f"{owner}: {field_name} has {found}; allowed: a {kind.__name__} of {', '.join(PARTS)}")


def check_reference(owner: str, field_name: str, reference: Any) -> None:
    """Raise a ValueError unless an item of a field is the dotted name of a class."""
    if not isinstance(reference, str) or not REFERENCE.fullmatch(reference):
        raise ValueError(f"{owner}: {field_name} has {reference!r}; allowed: 'module:Class'")

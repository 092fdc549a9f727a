"""The lmms-eval model classes: an attribute for each variant, made when it is asked for."""

from __future__ import annotations

from typing import Any

from lmms_tokendrop.catalogue import architecture, method, variants
from lmms_tokendrop.evaluation.adapter import TokenDropAdapter
from lmms_tokendrop.evaluation.encoder import EncoderTokenDrop
from lmms_tokendrop.evaluation.generative import GenerativeTokenDrop


def __getattr__(name: str) -> type[TokenDropAdapter]:
    """Make the class of a variant; its name is the variant's."""
    known = {entry.model_id: entry for entry in variants()}
    if name not in known:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; variants: {', '.join(known)}")
    entry = known[name]
    base = GenerativeTokenDrop if architecture(entry.architecture).generates else EncoderTokenDrop
    paper = method(entry.method).paper
    source = "" if paper is None else f"\n\n{paper.title}, {paper.url}"
    contents: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": f"{entry.description}.{source}",
        "model_id": entry.model_id,
    }
    globals()[name] = type(name, (base,), contents)
    return globals()[name]


def __dir__() -> list[str]:
    return [entry.model_id for entry in variants()]

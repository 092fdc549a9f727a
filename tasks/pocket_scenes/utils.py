"""Functions of the pocket_scenes tasks; they need no package, so that stock models can be run on them too."""

from __future__ import annotations

from typing import Any


def doc_to_visual(doc: dict[str, Any]) -> list[Any]:
    """Picture of a question; all bundled ones are RGB."""
    return [doc["image"]]


def doc_to_text(doc: dict[str, Any]) -> str:
    """Text of a question."""
    return doc["question"]


def doc_to_target(doc: dict[str, Any]) -> str:
    """Right answer."""
    return doc["answer"]


def doc_to_choice(doc: dict[str, Any]) -> list[str]:
    """All answers that the question allows."""
    return list(doc["choices"])


def doc_to_index(doc: dict[str, Any]) -> int:
    """Position of the right answer among the choices."""
    return list(doc["choices"]).index(doc["answer"])


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Score one generated answer: 1 if it equals the right one, case and a final full stop aside."""
    given = results[0].strip().rstrip(".").strip().lower()
    return {"accuracy": float(given == doc["answer"].lower())}

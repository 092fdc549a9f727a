"""Scoring of the tokendrop_vqav2 task."""

from __future__ import annotations

from typing import Any

from lmms_eval.tasks.vqav2.utils import vqav2_process_results_val

from lmms_tokendrop.images import to_rgb


def doc_to_visual(doc: dict[str, Any]) -> list[Any]:
    """Picture of a question."""
    return [to_rgb(doc["image"])]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Score one answer against those of ten annotators, with lmms-eval's normalisation.

    The score is the mean, over the annotators, of min(1, n / 3), where n of the other nine gave the answer.

    Raises
    ------
    ValueError
        If the question has no annotations, as in VQAv2's test splits.
    """
    if not doc["answers"]:
        raise ValueError(f"question {doc['question_id']} has no annotated answers; only VQAv2's server can score it")
    return {"vqa_score": vqav2_process_results_val(doc, results)["exact_match"]}

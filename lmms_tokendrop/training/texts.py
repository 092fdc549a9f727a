"""Texts in rows of data: which are allowed, and soft scores of answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from reprlib import repr as shortened
from typing import Any

from lmms_tokendrop.evaluation.encoder_engine import normalized


def checked_text(column: str, value: Any) -> str:
    """A text, or a ValueError that names the column."""
    if not isinstance(value, str):
        raise ValueError(f"{column}={shortened(value)}; allowed: a text")
    return value


def written_captions(captions: Any) -> list[str]:
    """The captions of an image: one, or a list."""
    written = captions if isinstance(captions, list) else [captions]
    if not written or not all(isinstance(caption, str) for caption in written):
        raise ValueError(f"captions={shortened(captions)}; allowed: a text, or a list of texts")
    return written


def written_answers(answers: Any) -> list[str]:
    """The answers to a question: one, or those of all annotators, as texts or in VQAv2's dicts."""
    given = answers if isinstance(answers, list) else [answers]
    written = [answer.get("answer") if isinstance(answer, dict) else answer for answer in given]
    if not written or not all(isinstance(answer, str) for answer in written):
        raise ValueError(
            f"answers={shortened(answers)}; allowed: a text, or a list of texts or of dicts with a text 'answer'"
        )
    return written


def answer_scores(answers: str | Sequence[str | dict[str, Any]]) -> dict[str, float]:
    """Soft scores of the answers to a question.

    Parameters
    ----------
    answers
        One right answer, or those of all annotators, as texts or as dicts with `answer`. The latter are written as
        the VQA evaluation writes them (articles and most punctuation go, numbers become digits).

    Returns
    -------
    dict of str to float
        From 0.3 to 1.

    Raises
    ------
    ValueError
        If there is no answer, or if one is something else.
    """
    written = written_answers(answers)
    if isinstance(answers, str):
        return {normalized(answers): 1.0}
    counts = Counter(normalized(vqa_processor()(answer)) for answer in written)
    return {answer: min(1.0, round(0.3 * count, 1)) for answer, count in counts.items()}


@cache
def vqa_processor() -> Any:
    """The normalisation of the VQA evaluation."""
    from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor

    return EvalAIAnswerProcessor()

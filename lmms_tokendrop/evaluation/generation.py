"""What a task's generation settings mean for ``model.generate``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig

logger = logging.getLogger(__name__)

DEFAULT_NEW_TOKENS = 1024
SAMPLING_OPTIONS = ("temperature", "top_p", "top_k", "min_p", "typical_p")


@dataclass(frozen=True)
class GenerationSettings:
    """Options for ``model.generate`` and the strings that end an answer.

    Parameters
    ----------
    options
        Keyword arguments of ``generate``.
    until
        The answer is cut before the first of these.
    """

    options: dict[str, Any]
    until: tuple[str, ...]

    @classmethod
    def from_task(cls, task_options: Mapping[str, Any]) -> GenerationSettings:
        """Translate a task's ``generation_kwargs``.

        Sampling is on if the task says so or gives a temperature above 0. Names that ``generate`` doesn't know are
        left out with a warning: tasks carry options for other models.
        """
        options = dict(task_options)
        until = options.pop("until", None) or ()
        until = (until,) if isinstance(until, str) else tuple(until)
        new_tokens = options.pop("max_gen_toks", None) or DEFAULT_NEW_TOKENS
        options.setdefault("max_new_tokens", new_tokens)
        options.setdefault("do_sample", (options.get("temperature") or 0) > 0)
        if not options["do_sample"]:
            for name in SAMPLING_OPTIONS:
                options.pop(name, None)
        known = vars(GenerationConfig())
        unknown = sorted(set(options) - set(known))
        if unknown:
            logger.warning("generate() has no option %s; left out", ", ".join(unknown))
        options = {name: value for name, value in options.items() if name in known and value is not None}
        return cls(options, tuple(stop for stop in until if stop))

    def cut(self, text: str) -> str:
        """Return the text before the first stop string."""
        for stop in self.until:
            text = text.split(stop)[0]
        return text


def answer_length(new_ids: Sequence[int], eos_token_id: int | Sequence[int] | None) -> int:
    """Count a row's generated tokens up to its end token, which counts; what follows is padding."""
    ends = {eos_token_id} if isinstance(eos_token_id, int) else set(eos_token_id or ())
    for position, token in enumerate(new_ids):
        if token in ends:
            return position + 1
    return len(new_ids)

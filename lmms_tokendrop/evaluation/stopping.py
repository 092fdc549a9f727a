"""End each answer of a batch with its stop string."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria

BYTES_PER_CHARACTER = 4
SPARE_TOKENS = 8


class AnswerEnds(StoppingCriteria):
    """Ends a row when its answer has a stop string.

    The answer's text decides, not its tokens, so that any tokenizer will do and that the text before the stop string
    is the same as if a longer answer were cut. The prompt is not searched.

    Parameters
    ----------
    tokenizer
        Decodes the answers.
    until
        The stop strings; with none, no row ends here.
    prompt_length
        Number of input tokens before the answers.
    """

    def __init__(self, tokenizer: Any, until: Sequence[str], prompt_length: int) -> None:
        self.tokenizer = tokenizer
        self.until = until
        self.prompt_length = prompt_length
        self.lengths: dict[int, int] = {}
        # A stop string takes at most one token a byte: most steps need to decode no more than this.
        self.tail = BYTES_PER_CHARACTER * max(map(len, until), default=0) + SPARE_TOKENS

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return which rows have ended."""
        if self.until:
            for row, ids in enumerate(input_ids[:, self.prompt_length :].tolist()):
                if row not in self.lengths and self._ended(ids):
                    self.lengths[row] = len(ids)
        ended = [row in self.lengths for row in range(len(input_ids))]
        return torch.tensor(ended, device=input_ids.device)

    def length(self, row: int) -> float:
        """Return the number of a row's tokens up to its stop string, infinite if it has none."""
        return self.lengths.get(row, math.inf)

    def _ended(self, ids: list[int]) -> bool:
        if not any(stop in self._text(ids[-self.tail :]) for stop in self.until):
            return False
        text = self._text(ids)
        place = min((text.find(stop) for stop in self.until if stop in text), default=None)
        return place is not None and not self._may_start_before(place, text)

    def _may_start_before(self, place: int, text: str) -> bool:
        """Whether the text ends in the beginning of a stop string that would cut it before ``place``."""
        return any(stop.startswith(text[start:]) for stop in self.until for start in range(place))

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

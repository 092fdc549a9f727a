"""FastV: one drop in an early decoder layer, by what the last token or the text attends (arXiv 2403.06764)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..core.decoder_options import NewlineOptions
from ..core.options import option
from ..core.reducer import Context, Stage
from ..core.selection import text_attention
from .one_drop import OneDrop, OneDropOptions

PRESETS = {
    "k2-r25": {"K": 2, "R": 0.25},
    "k2-r50": {"K": 2, "R": 0.5},
    "k2-r75": {"K": 2, "R": 0.75},
    "k3-r50": {"K": 3, "R": 0.5},
}
"""Settings of the paper and of its code for lmms-eval (the last one)."""


@dataclass
class FastVOptions(OneDropOptions, NewlineOptions):
    """Options of FastV. A count budget, `R`, and a `preset` exclude each other; `K` goes with all but the preset."""

    presets: ClassVar[dict[str, dict]] = PRESETS
    usual: ClassVar[dict[str, Any]] = {"R": 0.5}

    preset: str | None = option(None, "Named `K` and `R` of the FastV paper.", allowed=tuple(PRESETS))
    query: str = option(
        "last",
        "Whose attention scores: the prompt's `last` token's, or the mean of its `text`.",
        allowed=("last", "text"),
    )


class FastV(OneDrop):
    """Behind layer `K`'s attention, drop the visual tokens that get least of it; all positions stay as they were."""

    Options: type[Any] = FastVOptions

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """Head-mean attention `[batch, length]` float32 of the last text token, or of the mean text token."""
        return text_attention(context, self.options.query)

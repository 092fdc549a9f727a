"""FastV: one drop in an early decoder layer, by what the last token or the text attends (arXiv 2403.06764)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..core.decoder_options import BudgetOptions, NewlineOptions, OneFormatOptions
from ..core.options import option
from ..core.reducer import Context, Host, Stage, TokenReducer
from ..core.selection import last_text

PAPER_R = 0.5

PRESETS = {
    "k2-r25": {"K": 2, "R": 0.25},
    "k2-r50": {"K": 2, "R": PAPER_R},
    "k2-r75": {"K": 2, "R": 0.75},
    "k3-r50": {"K": 3, "R": PAPER_R},
}
"""Settings of the paper and of its code for lmms-eval (the last one)."""


@dataclass
class FastVOptions(OneFormatOptions, NewlineOptions, BudgetOptions):
    """Options of FastV. A count budget, `R`, and a `preset` exclude each other; `K` goes with all but the preset."""

    presets: ClassVar[dict[str, dict]] = PRESETS
    alternatives: ClassVar[tuple] = (*BudgetOptions.alternatives, frozenset({"R"}), frozenset({"preset"}))

    preset: str | None = option(None, "Named `K` and `R` of the FastV paper.", allowed=tuple(PRESETS))
    K: int = option(
        2,
        "Decoder layers, counted from 1, that receive every visual token: the attention in the last of them scores, "
        "and the layers behind it receive what is left.",
        low=1,
    )
    R: float | None = option(
        None,
        "Share of the visual tokens per `scope` that leaves, newlines not counted where all of these leave; what stays "
        "is rounded up, and is one token per image at least. Default without a budget or preset: 0.5, in place of "
        "that of `keep_ratio`.",
        low=0,
        high=1,
    )
    query: str = option(
        "last",
        "Whose attention scores: the prompt's `last` token's, or the mean of its `text`.",
        allowed=("last", "text"),
    )

    def __post_init__(self) -> None:
        if self.visual_tokens is None and self.keep_ratio is None and self.R is None:
            self.R = PAPER_R
        super().__post_init__()

    @classmethod
    def check_exclusions(cls, options: dict) -> None:
        """Also, a preset has its own `K`."""
        super().check_exclusions(options)
        if options.get("preset") is not None and "K" in options:
            raise ValueError("token_reduction: K, preset exclude each other; give K and R, or a preset")


class FastV(TokenReducer):
    """Behind layer `K`'s attention, drop the visual tokens that get least of it; all positions stay as they were."""

    Options: type[Any] = FastVOptions

    def __init__(self, options: Any, host: Host):
        super().__init__(options, host)
        last = host.num_layers - 1
        if last < options.K:
            raise ValueError(f"K={options.K}: no decoder layer of {host.num_layers} is behind it; allowed: 1 to {last}")

    def stages(self) -> tuple[Stage, ...]:
        """One stage, behind the attention of the `K`-th layer."""
        return (Stage("decoder", self.options.K - 1),)

    def count(self, stage: Stage, counts: Any) -> torch.Tensor:
        """What `R` leaves of the unreduced image, or the budget."""
        if self.options.R is None:
            return counts.fitted(stage, self)
        kept = torch.ceil(counts.available * (1 - self.options.R) - 1e-6).long()
        return torch.maximum(kept, counts.least())

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """Head-mean attention `[batch, length]` float32 of the last text token, or of the mean text token."""
        last = last_text(context).unsqueeze(-1)
        place = torch.arange(context.valid.shape[1], device=context.valid.device)
        rows = context.text_rows if self.options.query == "text" else place == last
        return context.attention_rows(rows).mean(1).sum(1) / rows.sum(-1, keepdim=True).clamp_min(1)

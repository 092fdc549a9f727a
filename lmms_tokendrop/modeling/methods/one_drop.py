"""What methods share that drop once, behind an early decoder layer: its number, and the share that leaves."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..core.decoder_options import BudgetOptions, OneFormatOptions, share_option
from ..core.options import option
from ..core.reducer import Host, Stage, TokenReducer


@dataclass
class OneDropOptions(OneFormatOptions, BudgetOptions):
    """A count budget, `R`, and a `preset` exclude each other; `K` goes with all but the preset."""

    alternatives: ClassVar[tuple] = (*BudgetOptions.alternatives, frozenset({"R"}), frozenset({"preset"}))

    keep_ratio: float | None = share_option("without a budget, `R` decides.")
    K: int = option(
        2,
        "Decoder layers, counted from 1, that receive every visual token: what the last of them computes decides, and "
        "the layers behind it receive what is left.",
        low=1,
    )
    R: float | None = option(
        None,
        "Share of the visual tokens per `scope` that leaves, newlines not counted where all of these leave; what stays "
        "is rounded up, and is one token per image at least. Default without a budget or preset: the paper's, 0.5 of "
        "fastv and 0.778 of dart.",
        low=0,
        high=1,
    )

    @classmethod
    def check_exclusions(cls, options: dict) -> None:
        """Also, a preset has its own `K`."""
        super().check_exclusions(options)
        if options.get("preset") is not None and "K" in options:
            raise ValueError("token_reduction: K, preset exclude each other; give K and R, or a preset")


class OneDrop(TokenReducer):
    """Drops visual tokens behind the `K`-th layer of a decoder."""

    Options: type[Any] = OneDropOptions
    point: ClassVar[str] = "before_ffn"

    def __init__(self, options: Any, host: Host):
        super().__init__(options, host)
        last = host.num_layers - 1
        if last < options.K:
            raise ValueError(f"K={options.K}: no decoder layer of {host.num_layers} is behind it; allowed: 1 to {last}")

    def stages(self) -> tuple[Stage, ...]:
        """One, at the `K`-th layer."""
        return (Stage("decoder", self.options.K - 1, self.point),)

    def count(self, stage: Stage, counts: Any) -> torch.Tensor:
        """What `R` leaves of the unreduced image, or the budget."""
        if self.options.R is None:
            return counts.fitted(stage, self)
        kept = torch.ceil(counts.available * (1 - self.options.R) - 1e-6).long()
        return torch.maximum(kept, counts.least())

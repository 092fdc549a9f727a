"""PyramidDrop: a share of the visual tokens leaves in some layers, by the last token's attention (arXiv 2410.17247)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..core.decoder_options import BudgetOptions, NewlineOptions, OneFormatOptions, PositionOptions, share_option
from ..core.drop_layers import drop_layers, layers_option
from ..core.options import option
from ..core.reducer import Context, Host, Stage, TokenReducer
from ..core.selection import between, last_text
from ..ops.token_ops import rounded_down

PAPER_LAYERS = (7, 15, 23)

PRESETS: dict[str, dict] = {"paper": {"stage_ratio": 0.5}}
"""The setting of the paper: 50, 25 and 12.5 % of the tokens behind 8, 16 and 24 of 32 layers."""


@dataclass
class PyramidDropOptions(OneFormatOptions, PositionOptions, NewlineOptions, BudgetOptions):
    """Options of PyramidDrop. A count budget, `stage_ratio` and a `preset` exclude each other."""

    presets: ClassVar[dict[str, dict]] = PRESETS
    alternatives: ClassVar[tuple] = (*BudgetOptions.alternatives, frozenset({"stage_ratio"}), frozenset({"preset"}))
    usual: ClassVar[dict[str, Any]] = PRESETS["paper"]

    preset: str | None = option(None, "The `stage_ratio` of the PyramidDrop paper.", allowed=tuple(PRESETS))
    keep_ratio: float | None = share_option("without a budget, `stage_ratio` decides.")
    stage_ratio: float | None = option(
        None,
        "Share that each drop leaves of the visual tokens per `scope` that the one before left, counted exactly and "
        "rounded down; one token per image at least. Default without a budget or preset: 0.5.",
        low=0,
        high=1,
    )
    layers: list[int] | None = layers_option("7, 15, 23")


class PyramidDrop(TokenReducer):
    """Behind some decoder layers, drop the visual tokens that the last text token attends least in the next layer.

    The next layer's attention is computed for that token beforehand, on the states and positions before the drop.
    """

    Options: type[Any] = PyramidDropOptions

    def __init__(self, options: Any, host: Host):
        super().__init__(options, host)
        self.layers = drop_layers(options.layers, host.num_layers, PAPER_LAYERS)

    def stages(self) -> tuple[Stage, ...]:
        """The drops, each behind its layer."""
        return tuple(Stage("decoder", layer, "after_block") for layer in self.layers)

    def count(self, stage: Stage, counts: Any) -> torch.Tensor:
        """A power of the ratio, of the unreduced image's tokens; or what the budget leaves."""
        if self.options.stage_ratio is None:
            return counts.fitted(stage, self)
        share = self.options.stage_ratio ** (1 + self.layers.index(stage.layer))
        return between(rounded_down(counts.available.double() * share), counts)

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """Head-mean attention `[batch, length]` float32 of the last text token, in the layer to come."""
        return context.next_attention_rows(last_text(context)).mean(1)[:, 0]

"""After STAR-Pro: a diverse pool before the decoder, from which the text chooses in its layers (arXiv 2609.05916)."""

from dataclasses import dataclass
from typing import Any

import torch

from ..core.drop_layers import drop_layers, layers_option
from ..core.feature_selection import FeatureOptions
from ..core.options import option
from ..core.reducer import Context, Host, Stage, TokenReducer
from ..core.selection import text_attention
from ..core.token_groups import TokenGroups
from ..ops.greedy import pivoted_qr

LAYERS = (7, 15, 23)


@dataclass
class StarProLikeOptions(FeatureOptions):
    """Options of a pool and of what the text chooses from it."""

    pool: float = option(
        2.0, "Tokens that enter the decoder, for each token of the budget; where an image has fewer, all.", low=1
    )
    layers: list[int] | None = layers_option("7, 15, 23")
    query: str = option(
        "text",
        "Whose attention scores: the mean of the `text` behind the image, or its `last` token.",
        allowed=("text", "last"),
    )


class StarProLike(TokenReducer):
    """Before the first layer keep a pool, and after some layers what the text attends most of it.

    The pool are the pivots of a QR factorisation of the projected features: always the one of which those before leave
    the longest rest. What later stages leave is nested, and falls so that the average over layers is the budget.
    """

    Options: type[Any] = StarProLikeOptions

    def __init__(self, options: Any, host: Host):
        super().__init__(options, host)
        self.layers = drop_layers(options.layers, host.num_layers, LAYERS)
        self.drop_layers = self.layers if "decoder" in host.places else ()

    def stages(self) -> tuple[Stage, ...]:
        """The place before the first layer, and decoder layers."""
        return (Stage("features"), *(Stage("decoder", layer) for layer in self.layers))

    def count(self, stage: Stage, counts: Any) -> torch.Tensor:
        """The pool, the budget itself if nothing leaves later, and then what the budget leaves."""
        if stage.place == "decoder":
            return counts.fitted(stage, self)
        target = self.options.budget().target(counts.available)
        pool = torch.round((self.options.pool if self.drop_layers else 1.0) * target).long()
        return torch.maximum(torch.minimum(pool, counts.available), counts.least())

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """Minus the number of the pivot, or head-mean attention."""
        if stage.place == "decoder":
            return text_attention(context, self.options.query)
        groups, count = TokenGroups.of(context), self.count(stage, context.counts)
        return groups.spread(-pivoted_qr(groups.gather(context.hidden_states).float(), groups.valid, count), context)

"""After HiPrune: anchors of a middle block, their neighbours, and the best of a deep block (arXiv 2508.00553)."""

from dataclasses import dataclass
from typing import Any

import torch

from ..core.feature_selection import FeatureOptions, FeatureReducer, cls_row, shown_patches
from ..core.options import option
from ..core.reducer import Context, Host, Keep, Stage
from ..ops.token_ops import top

PAPER_BLOCK = 9
PAPER_DEPTH = 24
NEIGHBOURHOOD = 5
"""An anchor and the patches above, below and on both sides."""


@dataclass
class HiPruneLikeOptions(FeatureOptions):
    """Options of anchors, neighbours and deep patches."""

    anchor_ratio: float = option(
        0.1, "Share of a tile's tokens that anchors and their neighbours would be, five for each anchor.", low=0, high=1
    )
    anchor_block: int | None = option(
        None, "Block of the tower (zero-based) whose attention chooses anchors; default: 9 of 24, scaled.", low=0
    )
    attention: str = option(
        "received",
        "Which attention counts in both blocks: what all tokens give (`received`), or what CLS gives (`cls`).",
        allowed=("received", "cls"),
    )


class HiPruneLike(FeatureReducer):
    """Keep, per tile, anchors with their neighbours, and for the rest what a deep block attends most.

    Of `n` tokens, `round(anchor_ratio * n / 5)` are anchors: the patches with most attention in a middle block. Their
    neighbours in the grid stay with them. The other tokens are those with most attention in the block whose output is
    read. Where anchors and neighbours are too many, neighbours of least attention leave first.
    """

    Options: type[Any] = HiPruneLikeOptions

    def __init__(self, options: Any, host: Host):
        super().__init__(options, host)
        scaled = max(0, (PAPER_BLOCK + 1) * host.vision_layers // PAPER_DEPTH - 1)
        self.anchor_block = scaled if options.anchor_block is None else options.anchor_block
        if self.anchor_block >= host.feature_block:
            raise ValueError(
                f"anchor_block={self.anchor_block}: anchors are chosen before the block whose output is read; "
                f"allowed: 0 to {host.feature_block - 1}"
            )

    def stages(self) -> tuple[Stage, ...]:
        """The middle block, behind which nothing leaves, and the deep one."""
        return (Stage("vision", self.anchor_block, "after_block"), *super().stages())

    def count(self, stage: Stage, counts: Any):
        """All, and then what the budget leaves."""
        return (counts.text, counts.image) if stage.layer == self.anchor_block else super().count(stage, counts)

    def keep(self, stage: Stage, context: Context) -> Keep:
        """Hand on the attention of the middle block; decide behind the deep one."""
        if stage.layer == self.anchor_block:
            return Keep.of(context.valid, carry={"middle": self._attention(context)})
        return super().keep(stage, context)

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """Attention of the deep block, and above it neighbours, and anchors."""
        patches, grid = shown_patches(context), context.provided("tiles").grid
        count = self.count(stage, context.counts)[1] - 1
        anchors = torch.round(self.options.anchor_ratio * count.double() / NEIGHBOURHOOD).long()
        anchor = top(context.carry["middle"], patches, anchors)
        near = torch.nn.functional.pad(beside(anchor[:, 1:].unflatten(1, grid)).flatten(1), (1, 0))
        level = torch.where(anchor, 2, near.long())
        return (self._attention(context).double() + level).masked_fill(~patches, float("-inf"))

    def _attention(self, context: Context) -> torch.Tensor:
        """`[tiles, length]` float32, below 1, what each token is attended in the block just run."""
        if self.options.attention == "cls":
            return cls_row(context)
        query, key = context.provided("projections")
        heads = zip((query / query.shape[-1] ** 0.5).unbind(1), key.unbind(1), strict=True)
        return sum((each @ other.transpose(1, 2)).float().softmax(-1).mean(1) for each, other in heads) / query.shape[1]


def beside(marked: torch.Tensor) -> torch.Tensor:
    """Cells above, below, to the left or to the right of a marked one, `[tiles, height, width]`."""
    wide = torch.nn.functional.pad(marked, (1, 1, 1, 1))
    return wide[:, :-2, 1:-1] | wide[:, 2:, 1:-1] | wide[:, 1:-1, :-2] | wide[:, 1:-1, 2:]

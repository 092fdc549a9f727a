"""DART: of the visual tokens stay those that are least like a few pivots (arXiv 2502.11494)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..core.options import option
from ..core.reducer import Context, Keep, Stage
from ..core.token_groups import TokenGroups
from ..ops.token_ops import ordered_indices, ranks, top
from .one_drop import OneDrop, OneDropOptions

PRESETS = {
    "k2-r66.7": {"K": 2, "R": 0.667},
    "k2-r77.8": {"K": 2, "R": 0.778},
    "k2-r88.9": {"K": 2, "R": 0.889},
}
"""Reduction ratios of the paper: 192, 128 and 64 of 576 tokens behind two layers."""


@dataclass
class DartOptions(OneDropOptions):
    """Options of DART. A count budget, `R`, and a `preset` exclude each other; `K` goes with all but the preset."""

    presets: ClassVar[dict[str, dict]] = PRESETS
    usual: ClassVar[dict[str, Any]] = {"R": 0.778}

    preset: str | None = option(None, "Named `K` and `R` of the DART paper.", allowed=tuple(PRESETS))
    image_pivots: int = option(
        4, "Visual tokens per `scope` that are pivots, those of the largest keys; they stay, if there is room.", low=1
    )
    text_pivots: int = option(4, "Text tokens behind the image that are pivots, those of the largest keys.", low=0)


class Dart(OneDrop):
    """Behind layer `K`, keep the pivots and, for each in turn, those of the others that are least like it.

    The size of a key is the sum of its absolute values over all heads, rotated. The pivots of an image are followed by
    those of the text, each by falling size. The places that the pivots leave are shared out evenly among all of them,
    the first ones getting what is over; each takes the tokens of lowest cosine to it that none has taken, on states
    behind the decoder's last norm. Positions stay as they were; newlines leave.
    """

    Options: type[Any] = DartOptions
    point = "after_block"

    def keep(self, stage: Stage, context: Context) -> Keep:
        """Choose pivots, and let each choose."""
        count = self.count(stage, context.counts)
        groups = TokenGroups.of(context)
        row, place, valid = groups.row, groups.place, groups.valid
        size = context.keys_by_head().float().abs().sum((1, 3)).to(place.device)
        unit = torch.nn.functional.normalize(context.normed_states().float(), dim=-1)
        kept = count.clamp_max(self.options.image_pivots).unsqueeze(-1)
        rank = ranks(groups.gather(size).masked_fill(~valid, -1.0))
        ours = place.gather(1, rank.argsort(dim=-1))[:, : self.options.image_pivots]
        text = ordered_indices(context.text_rows, size)[:, : self.options.text_pivots][row[:, 0]]
        pivots = torch.cat([torch.where(torch.arange(ours.shape[1], device=ours.device) < kept, ours, -1), text], dim=1)
        device = unit.device
        vectors = unit[row[:, :1].to(device), pivots.clamp_min(0).to(device)]
        likeness = (unit[row.to(device), place.to(device)] @ vectors.transpose(1, 2)).to(place.device)
        chosen = least_like(likeness, valid, valid & (rank < kept), even_shares(pivots >= 0, count - kept.squeeze(-1)))
        return context.best(groups.spread(chosen, context), count)


def even_shares(there: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """`total [groups]` shared out among the pivots that `there [groups, pivots]` marks; the first ones get the rest."""
    number, turn = there.sum(-1, keepdim=True), there.cumsum(-1) - 1
    total = total.unsqueeze(-1)
    return there * (total // number + (turn < total % number))


def least_like(likeness: torch.Tensor, valid: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Let each pivot in turn choose the tokens that are least like it.

    Parameters
    ----------
    likeness : torch.Tensor
        `[groups, tokens, pivots]`.
    valid, chosen : torch.BoolTensor
        `[groups, tokens]`: False for padding, and True for what is chosen already.
    shares : torch.LongTensor
        `[groups, pivots]`, tokens that each chooses.

    Returns
    -------
    torch.BoolTensor
        `[groups, tokens]`, all that is chosen.
    """
    for pivot in range(shares.shape[1]):
        chosen = chosen | top(-likeness[..., pivot], valid & ~chosen, shares[:, pivot])
    return chosen

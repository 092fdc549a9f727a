"""Token merging, ToMe: merge the most similar tokens in every block (ICLR 2023, arXiv 2210.09461)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..core.fusion_selection import FusionCounts
from ..core.options import Options, option
from ..core.reducer import Context, Host, Keep, Stage, TokenReducer
from ..ops.token_ops import bipartite_targets, ordered_indices


@dataclass
class PairToMeOptions(Options):
    """Options of ToMe in METER."""

    r: int = option(
        180, "Tokens that merge in each pair; the default costs what PuMer's setting for VQAv2 costs.", low=1
    )
    schedule: str = option(
        "constant", "The same `r` in every block, or linearly from twice that to 0.", allowed=("constant", "decreasing")
    )
    proportional_attention: bool = option(True, "Add the logarithm of a token's size to the logits of its key.")


@dataclass
class ToMeOptions(PairToMeOptions):
    """Options of ToMe."""

    r: int = option(13, "Tokens that merge in each block.", low=1)
    merge_scope: str = option(
        "image", "Merge image tokens, or the whole sequence jointly, text with image.", allowed=("image", "joint")
    )


@dataclass
class TowerOptions(Options):
    """Options of ToMe in a vision tower."""

    vision_r: int | None = option(
        None, "Patches that merge in each block of the CLIP tower; vision_tome: 24, pumer: none.", low=1
    )


@dataclass
class LlavaTowerOptions(Options):
    """Options of ToMe in the vision tower of a model that writes."""

    vision_r: int = option(
        12,
        "Patches of a tile that merge in each block of the CLIP tower; the default leaves 300 of 576 behind 23 blocks.",
        low=1,
    )


class TokenMerging(TokenReducer):
    """Merge the most similar tokens in blocks, before their FFN: matched by keys, weighted by size.

    Attributes
    ----------
    place : str
        Where the blocks are.
    merged : list[int]
        Tokens that merge in each block.
    """

    place: ClassVar[str] = "fusion"
    merged: list[int]

    def stages(self) -> tuple[Stage, ...]:
        """One stage in each block that merges."""
        return tuple(Stage(self.place, block) for block, merged in enumerate(self.merged) if merged)

    def count(self, stage: Stage, counts: FusionCounts):
        """So many fewer, at most half of those that may merge; in the joint form their sum is meant."""
        candidates = counts.text + counts.image if self.joint else counts.image
        return counts.text, counts.image - most_merged(candidates, self.merged[stage.layer])

    def keep(self, stage: Stage, context: Context) -> Keep:
        """Match and merge, weighted by size."""
        tokens = context.tokens
        among = tokens.valid if self.joint else tokens.image
        merged = most_merged(among.sum(-1), self.merged[stage.layer])
        target = bipartite_targets(context.keys(), ordered_indices(among), merged)
        return Keep.merged(target.masked_fill(~tokens.valid, -1), weights=tokens.size)


class ToMe(TokenMerging):
    """Merge `r` tokens in every block, before its FFN.

    Keys, averaged over heads, are matched; merged tokens are means weighted by the number of tokens that each stands
    for, and attention adds the logarithm of that number to a key's logits (`proportional_attention`). `merge_scope`
    "image" merges image tokens and protects the image's CLS; "joint" matches the whole sequence, text with image, and
    protects the text's CLS. `schedule` "decreasing" falls linearly from 2r in the first block to 0 in the last.
    """

    Options: type[Any] = ToMeOptions

    def __init__(self, options, host: Host):
        super().__init__(options, host)
        self.joint = getattr(options, "merge_scope", "image") == "joint"
        self.proportional_attention = frozenset({"fusion"} if options.proportional_attention else ())
        self.merged = merge_schedule(options.r, options.schedule, host.num_layers)


class PairToMe(ToMe):
    """Merge `r` image tokens in every pair of METER's layers, behind the attentions of the text's layer.

    The image's keys for the text, averaged over heads, are matched; merged tokens are means weighted by the number of
    tokens that each stands for, and attention to the image adds the logarithm of that number to a key's logits
    (`proportional_attention`). The image's CLS is protected. `schedule` "decreasing" falls linearly from 2r in the
    first pair to 0 in the last.
    """

    Options: type[Any] = PairToMeOptions


class TowerToMe(TokenMerging):
    """Merge `vision_r` patches in each block of the CLIP tower, before its MLP, and nothing afterwards.

    As ToMe does in ViT: matched by keys, weighted by size, with proportional attention; CLS is protected.
    """

    Options: type[Any] = TowerOptions
    proportional_attention = frozenset({"vision"})
    place = "vision"

    def __init__(self, options, host: Host):
        super().__init__(options, host)
        self.merged = [options.vision_r or 24] * host.vision_layers


class LlavaTowerToMe(TowerToMe):
    """The same before a decoder, whose tower has twice the blocks of METER's."""

    Options = LlavaTowerOptions


def most_merged(candidates: torch.Tensor, r: int) -> torch.Tensor:
    """How many of `candidates [batch]` tokens merge away: `r`, at most half of them, and never the first."""
    return torch.clamp((candidates - 1) // 2, max=r)


def merge_schedule(r: int, schedule: str, num_layers: int) -> list[int]:
    """Tokens that merge in each block.

    Parameters
    ----------
    r : int
        Mean over blocks.
    schedule : {"constant", "decreasing"}
        The same number in every block, or linearly from 2r to 0, rounded down.
    num_layers : int
        Number of blocks.
    """
    if schedule == "constant" or num_layers == 1:
        return [r] * num_layers
    return [2 * r * (num_layers - 1 - layer) // (num_layers - 1) for layer in range(num_layers)]

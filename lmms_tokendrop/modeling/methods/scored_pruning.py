"""Pruning of image tokens by a score, at PuMer's places in an encoder of text and image."""

from dataclasses import dataclass
from typing import ClassVar

from ..core.fusion_selection import BlockOptions, FusionCounts, LayeredReducer, share
from ..core.options import option
from ..core.reducer import Host, Stage

DEFAULT_PRUNE_RATIO = 0.4


@dataclass
class PruningOptions(BlockOptions):
    """Options of pruning by a score."""

    prune_ratio: float | None = option(
        None, "Share of the image tokens before a stage that leaves; default: 0.4.", low=0, high=1
    )


class ScoredPruning(LayeredReducer):
    """Drop `round(prune_ratio * I)` of I image tokens in some blocks, before their FFN; the image's CLS stays.

    The default drops as many image tokens as PuMer's published settings drop and merge.
    """

    Options = PruningOptions

    def __init__(self, options, host: Host):
        super().__init__(options, host)
        self.prune_ratio = DEFAULT_PRUNE_RATIO if options.prune_ratio is None else options.prune_ratio
        if not self.prune_ratio:
            raise ValueError(f"{options.method}: prune_ratio is 0, so nothing would happen")

    def count(self, stage: Stage, counts: FusionCounts):
        """At least one image token stays."""
        return counts.text, (counts.image - share(counts.image, self.prune_ratio)).clamp_min(1)


class InPairs:
    """Where PuMer acts in METER's pairs of layers; comes first in a reducer's bases."""

    default_layers: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)
    paper_depth: ClassVar[int] = 6

"""What the reducers of encoders of text and image share: layers, shares of counts, pruning by score."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..ops.token_ops import ranks
from .fusion_tokens import FusionTokens
from .options import Options, option
from .reducer import Host, Keep, Stage, TokenReducer


@dataclass(frozen=True)
class FusionCounts:
    """What the counts of a stage can be computed from, `[batch]` each; CLS tokens included, padding excluded.

    Attributes
    ----------
    text, image : torch.LongTensor
        Tokens before the stage.
    first_text, first_image : torch.LongTensor
        Tokens of the unreduced sequence.
    """

    text: torch.Tensor
    image: torch.Tensor
    first_text: torch.Tensor
    first_image: torch.Tensor

    def fitted(self, stage: Any, reducer: TokenReducer):
        """A count budget is for decoders."""
        raise ValueError(f"{type(reducer).__name__}: no count is stated for {stage}; a budget is for decoders")


@dataclass
class BlockOptions(Options):
    """Where a method acts."""

    layers: list[int] | None = option(
        None,
        "Blocks (zero-based) that drop or merge, in METER 0, 2, 4, ... for the first, second, third pair; default, "
        "scaled: 2, 5, 8 (dynamicvit: 3, 6, 9), in METER 0, 2, 4, 6 (2, 6, 10) of 12.",
    )


class LayeredReducer(TokenReducer):
    """Acts in some of the encoder's layers, before their FFN.

    Attributes
    ----------
    default_layers : tuple[int, ...]
        Zero-based layers of an encoder of 12.
    default_pairs : tuple[int, ...]
        Zero-based pairs of an encoder of 6 pairs of layers.
    point : str
        Where in the layers.
    """

    default_layers: ClassVar[tuple[int, ...]] = (2, 5, 8)
    default_pairs: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)
    point: ClassVar[str] = "before_ffn"

    def __init__(self, options, host: Host):
        super().__init__(options, host)
        self.layers = self._scaled() if options.layers is None else self._checked(options.layers)

    def stages(self) -> tuple[Stage, ...]:
        """One stage in each of the layers."""
        return tuple(Stage("fusion", layer, self.point) for layer in self.layers)

    def _scaled(self) -> tuple[int, ...]:
        """The default: layer l of stage s becomes `max(s, (l + 1) * num_layers // depth - 1)`."""
        number, in_pairs = self.host.num_layers, self.host.in_pairs
        default, depth = (self.default_pairs, 6) if in_pairs else (self.default_layers, 12)
        scaled = (max(stage, (layer + 1) * number // depth - 1) for stage, layer in enumerate(default))
        return tuple(layer for layer in scaled if layer < number)

    def _checked(self, layers: list[int]) -> tuple[int, ...]:
        """Layers that were given; of an encoder with pairs of layers, the pairs.

        In pairs, both layers are counted: pair p has the layers 2p, the text's, in which tokens leave, and 2p + 1, the
        image's.

        Raises
        ------
        ValueError
            If a layer lies past the last one, or is not the text's of a pair, where it could not act.
        """
        number, step = self.host.num_layers, 2 if self.host.in_pairs else 1
        wrong = [layer for layer in layers if layer % step or layer >= step * number]
        if wrong:
            allowed = f"an encoder of {number} layers; allowed are 0 to {number - 1}"
            if self.host.in_pairs:
                even = f"the even numbers from 0 to {2 * number - 2}"
                allowed = f"{number} pairs of layers; allowed are the text's layers, {even}"
            raise ValueError(f"layers={list(layers)}: layer {wrong[0]} can't act in {allowed}")
        return tuple(layer // step for layer in layers)


def share(counts: torch.Tensor, ratio: float) -> torch.Tensor:
    """`round(ratio * count)` of `counts [batch]`, halves to even."""
    return torch.round(ratio * counts.double()).long()


def keep_best_of_image(tokens: FusionTokens, scores: torch.Tensor, count: tuple) -> Keep:
    """Keep, of each row, the text, the image's CLS and its best other tokens.

    Parameters
    ----------
    tokens : FusionTokens
        The tokens.
    scores : torch.Tensor
        `[batch, length]`, read at image tokens.
    count : tuple[torch.LongTensor, torch.LongTensor]
        `[batch]` each, tokens of text and image that stay, the CLS included.
    """
    best = ranks(image_priority(tokens, scores)) < count[1].unsqueeze(-1)
    return Keep.of(tokens.text | (tokens.image & best))


def image_priority(tokens: FusionTokens, scores: torch.Tensor, protect: bool = True) -> torch.Tensor:
    """Scores with everything that is not of the image below all and, to `protect` it, the image's CLS above all."""
    scores = scores.masked_fill(~tokens.image, float("-inf"))
    return scores.masked_fill(tokens.image_cls & tokens.image, float("inf")) if protect else scores


DEFAULT_PRUNE_RATIO = 0.4


def prune_option(usual: float):
    """The option `prune_ratio`, given its usual value."""
    return option(None, f"Share of the image tokens before a stage that leaves; default: {usual}.", low=0, high=1)


@dataclass
class PruningOptions(BlockOptions):
    """Options of pruning by a score."""

    prune_ratio: float | None = prune_option(DEFAULT_PRUNE_RATIO)


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


@dataclass
class ImageSizeOptions(Options):
    """The size of images."""

    image_size: int | None = option(
        None,
        "Side in pixels to which images of the model's own size, and others in proportion, are reduced; "
        "smres: five sixths; to whole patches, of which there must be fewer.",
        low=1,
    )

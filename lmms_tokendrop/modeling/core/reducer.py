"""The protocol between a token reducer, which decides what stays, and the framework, which does the rest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import nn

from .applying import Keep
from .options import Options, checked_number

PLACES = {
    "vision": ("before_ffn", "after_block"),
    "features": ("before_block",),
    "decoder": ("before_ffn", "after_block"),
    "fusion": ("before_ffn", "before_block"),
    "decode": ("after_prefill", "after_token"),
}
"""Where tokens may leave, and the points of a layer there: in the blocks of a vision tower; of what it gave, before the
decoder; in the layers of a decoder during prefill; in those of an encoder that reads text and image together; and in
the layers of a decoder's cache. "before_ffn" is behind the residual connection of the attention. A decoder's layer has
one stage at most: "before_ffn", which spares its MLP what leaves, or "after_block", which may read what it gave."""


@dataclass(frozen=True)
class Stage:
    """A place at which tokens may leave.

    Attributes
    ----------
    place : str
        One of `PLACES`.
    layer : int
        Zero-based layer; -1 for "features", which lie before the first one.
    point : str
        Point of the layer; default: the place's first one.
    every : int
        At "after_token": after how many generated tokens the method is asked; elsewhere 1.

    Raises
    ------
    ValueError
        For an unknown place, a point that the place does not have, or an `every` that has no meaning.
    """

    place: str
    layer: int = -1
    point: str = ""
    every: int = 1

    def __post_init__(self):
        if self.place not in PLACES:
            raise ValueError(f"Stage: place={self.place!r}; allowed: {', '.join(map(repr, PLACES))}")
        points = PLACES[self.place]
        object.__setattr__(self, "point", self.point or points[0])
        if self.point not in points:
            raise ValueError(f"Stage: point={self.point!r} in {self.place!r}; allowed: {', '.join(map(repr, points))}")
        high = None if self.point == "after_token" else 1
        checked_number(f"Stage: every at {self.point!r}", self.every, whole=True, low=1, high=high)


@dataclass
class Context:
    """What a reducer may read at a stage. Reducers do not write to it.

    Attributes
    ----------
    tokens : VisualTokens or FusionTokens
        `[batch, length]`, what the tokens are.
    valid : torch.BoolTensor
        `[batch, length]`, False for padding.
    hidden_states : torch.Tensor or None
        `[batch, length, channels]`; None in a cache.
    counts : Any
        What a count can be computed from, see the place's run.
    text_rows : torch.BoolTensor
        `[batch, length]`, text that may judge the image: all of it, in decoders what can see an image.
    sample_seeds : torch.LongTensor
        `[batch]`.
    carry : dict[str, torch.Tensor]
        `[batch, length]` each, what the stage before handed on.
    providers : Mapping[str, Callable]
        What else there is at this place, by name.
    """

    tokens: Any
    valid: torch.Tensor
    hidden_states: torch.Tensor | None
    counts: Any
    text_rows: torch.Tensor
    sample_seeds: torch.Tensor
    carry: Mapping[str, torch.Tensor] = field(default_factory=dict)
    providers: Mapping[str, Callable] = field(default_factory=dict)

    def attention_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Softmax attention of the queries that `rows [batch, length]` marks, in the layer just run.

        It is `[batch, heads, queries, length]` float32, zero where a row has fewer queries than the longest.
        """
        return self.provided("attention_rows", rows)

    def next_attention_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """The same in the layer that comes next, as if nothing left; "after_block" of a decoder only."""
        return self.provided("next_attention_rows", rows)

    def keys(self) -> torch.Tensor:
        """Mean over heads of the layer's keys, `[batch, length, head_dim]`."""
        return self.provided("keys")

    def keys_by_head(self) -> torch.Tensor:
        """The layer's keys, rotated, `[batch, key heads, length, head_dim]`; in decoders."""
        return self.provided("keys_by_head")

    def normed_states(self) -> torch.Tensor:
        """`hidden_states` behind the decoder's last norm; "after_block" of a decoder only."""
        return self.provided("normed_states")

    def queries(self) -> torch.Tensor:
        """Mean over heads of the layer's queries, `[batch, length, head_dim]`."""
        return self.provided("queries")

    def cls_attention(self) -> torch.Tensor:
        """Head-mean attention `[batch, length]` float32 of the vision tower's CLS query in its last block."""
        return self.provided("cls_attention")

    def best(self, scores: torch.Tensor, count: Any, **details) -> Keep:
        """Keep the visual tokens of highest `scores [batch, length]`, as many as the method counts."""
        return self.provided("best", scores, count, **details)

    def provided(self, name: str, *arguments, **details):
        """What a provider gives.

        Raises
        ------
        ValueError
            If there is no such provider here: absent data is never a neutral value.
        """
        if name not in self.providers:
            there = ", ".join(sorted(self.providers)) or "nothing"
            raise ValueError(f"{name} is not provided at this place of this architecture; provided: {there}")
        return self.providers[name](*arguments, **details)


@dataclass(frozen=True)
class Host:
    """What a reducer may know of the model that it is built for.

    Attributes
    ----------
    num_layers : int
        Layers of the decoder, or of the encoder of text and image (METER: pairs of them).
    hidden_size : int
        Channels of these layers.
    image_size : int
        Side of the images that the vision encoder was made for, in pixels.
    vision_layers : int
        Blocks of a vision tower; 0 where there is none.
    in_pairs : bool
        Whether each of the layers is a pair, of the text's and the image's, of which options count both (METER).
    feature_block : int
        Last block of the tower whose output a decoder reads; -1: none.
    checkpoint : str
        Folder or repository that the model was loaded from; empty: it was not.
    places : frozenset[str]
        Places at which the reducer is asked; in a composition the others are another method's.
    """

    num_layers: int
    hidden_size: int
    image_size: int
    vision_layers: int = 0
    in_pairs: bool = False
    feature_block: int = -1
    checkpoint: str = ""
    places: frozenset[str] = frozenset(PLACES)


class TokenReducer(nn.Module):
    """Decides which tokens stay. One subclass per method.

    Parameters
    ----------
    options : Options
        Of the class's `Options`.
    host : Host
        The model.

    Attributes
    ----------
    Options : type[Options]
        The options of the method.
    needs : frozenset[str]
        Providers that the model has to compute before the method asks: `"cls_attention"`, `"questions"`.
    builds_on : Mapping[str, str]
        Places whose stages read what the method's own stages at another place carried, and that place.
    joint : bool
        Whether text and image merge with each other, so that only the sum of their counts is known beforehand.
    proportional_attention : frozenset[str]
        Places where attention logits get the logarithm of the key's size.
    counts_padding : bool
        Whether padding is treated as tokens whose `key_weight`, which the first stage finds in its carry, is 0.
    sequential : bool
        Whether, in layers for each modality, the image's reads the text as the text's left it, not as it was before.
    adds : bool
        Whether tokens join (`Keep.added`, `Keep.mixed`), which no mask of the unreduced model can imitate.
    soft_training : bool
        Whether tokens stay in training, and a policy with gradients says which are there (`soft_policy`).
    image_size : int or None
        Side to which images of the encoder's own size, and others in proportion, are reduced first; None: as they come.
    protected_share : float
        Share of the tokens of each tile before the decoder, rounded up, that its layers never drop. A composition gives
        the largest of its methods to all of them, and one that drops in the tower leaves room for it.
    """

    Options: type[Any] = Options
    needs: frozenset[str] = frozenset()
    builds_on: ClassVar[Mapping[str, str]] = {}
    joint: bool = False
    proportional_attention: frozenset[str] = frozenset()
    counts_padding: bool = False
    sequential: bool = False
    adds: bool = False
    soft_training: bool = False
    image_size: int | None = None
    protected_share: float = 0.0

    def __init__(self, options: Any, host: Host):
        super().__init__()
        self.options = options
        self.host = host

    @property
    def image_scale(self) -> float:
        """Factor by which the sides of images are reduced first."""
        return 1.0 if self.image_size is None else self.image_size / self.host.image_size

    def stages(self) -> tuple[Stage, ...]:
        """Places at which the method acts."""
        return ()

    def stages_at(self, *places: str) -> tuple[Stage, ...]:
        """Those of some places, declared once: every generated token asks for them."""
        return tuple(stage for stage in self._declared if stage.place in places)

    @cached_property
    def _declared(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in self.stages() if stage.place in self.host.places)

    @cached_property
    def drop_layers(self) -> tuple[int, ...]:
        """Decoder layers after which a budget lets tokens leave, -1 before the first; in a composition those of all.

        Stages that others build on only prepare these.
        """
        stages = self.stages_at("features", "decoder")
        return tuple(stage.layer for stage in stages if stage.place not in self.builds_on.values())

    def count(self, stage: Stage, counts: Any) -> Any:
        """How many tokens a stage leaves, computed before any score; None: it depends on the data.

        Parameters
        ----------
        stage : Stage
            One of the method's stages.
        counts : Any
            `Context.counts`. By default they say what a budget leaves.

        Returns
        -------
        Any
            In decoders `[groups]` visual tokens; in fusion encoders and towers `[batch]` tokens of the text and of
            the image, a pair.
        """
        return counts.fitted(stage, self)

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """Scores `[batch, length]`, read at visual tokens: the highest stay."""
        raise NotImplementedError

    def keep(self, stage: Stage, context: Context) -> Keep:
        """Decide what stays at a stage; by default the tokens of highest score."""
        return context.best(self.score(stage, context), self.count(stage, context.counts))

    def soft_policy(self, stage: Stage, hidden_states: torch.Tensor, tokens: Any, policy: torch.Tensor) -> torch.Tensor:
        """The policy `[batch, length]` after a stage in training, given the one before it."""
        raise NotImplementedError

    def module_macs(self, text: int, image: int) -> int:
        """Multiply-accumulates of the method's own trained modules, from the counts of the input."""
        return 0


class NoReduction(TokenReducer):
    """The unreduced model, through the same code."""

"""The protocol between a token reducer, which decides what stays, and the framework, which does the rest."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from .token_matching import merge_groups
from .token_ops import left_padded_indices, right_padded_indices
from .visual_tokens import VisualTokens


@dataclass(frozen=True)
class Stage:
    """A place at which tokens may leave.

    Attributes
    ----------
    where : {"vision", "prefill", "decode", "fusion"}
        The vision encoder, the decoder during prefill, the cache afterwards, or an encoder that reads text and image
        together.
    layer : int
        Zero-based layer; for "prefill", -1 is the place before the first decoder layer.
    point : {"after_block", "before_ffn", "before_block"}
        Where in the layer; "before_ffn" is behind the residual connection of the attention.
    """

    where: str
    layer: int
    point: str = "after_block"


@dataclass
class VisionContext:
    """What a reducer may read at a vision stage. One row per tile.

    Attributes
    ----------
    hidden_states : torch.Tensor
        `[tiles, cells, channels]`, patches only.
    grid : tuple[int, int]
        Height and width of the patch grid.
    alive : torch.BoolTensor
        `[tiles, cells]`; False for cells that unpadding removes.
    image, request : torch.LongTensor
        `[tiles]`, the image, and the request, that a tile belongs to.
    line : torch.LongTensor
        `[tiles, cells]`, row of the image that ends in a newline, unique over images; -1 for none.
    line_owner : torch.LongTensor
        `[lines]`, the tile (row of this context) that the newline of a line ends.
    num_layers : int
        Number of decoder layers.
    """

    hidden_states: torch.Tensor | None
    grid: tuple[int, int]
    alive: torch.Tensor
    image: torch.Tensor
    request: torch.Tensor
    line: torch.Tensor
    line_owner: torch.Tensor
    num_layers: int


@dataclass
class StageContext:
    """What a reducer may read at a decoder stage. Reducers do not write to it.

    Attributes
    ----------
    tokens : VisualTokens
        `[batch, length]`, provenance of the sequence as it is now.
    valid : torch.BoolTensor
        `[batch, length]`; False for padding.
    text_rows : torch.BoolTensor
        `[batch, length]`, text of the prompt that can see an image.
    groups : torch.LongTensor
        `[batch, length]`, group of each visual token in the reducer's scope; -1 for text.
    full, full_newlines : torch.Tensor
        `[groups]`, tokens that the unreduced model processes, and the newlines among them.
    processed : list[torch.Tensor]
        `[groups]` per decoder layer so far: what the layer received.
    num_layers : int
        Number of decoder layers.
    sample_seeds : torch.LongTensor
        `[batch]`.
    attention_rows : Callable
        `attention_rows(rows)`: softmax attention, after the layer just run, of the marked queries, from `rows
        [batch, length]` to `(probabilities [batch, heads, queries, length], query_valid [batch, queries])`.
    """

    tokens: VisualTokens
    valid: torch.Tensor
    text_rows: torch.Tensor
    groups: torch.Tensor
    full: torch.Tensor
    full_newlines: torch.Tensor
    processed: list[torch.Tensor]
    num_layers: int
    sample_seeds: torch.Tensor
    attention_rows: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Keep:
    """A decision: which tokens stay.

    Attributes
    ----------
    index : torch.LongTensor
        `[batch, kept]`, ascending, padded on the left.
    valid : torch.BoolTensor
        `[batch, kept]`; False for padding.
    merge : Callable or None
        Applied to states before the gather; writes merged values into their slots.
    forced_merges : torch.LongTensor or None
        `[images]`, windows that merge only because the budget needs it (vision stages).
    order : torch.LongTensor or None
        `[tiles, cells]`, the order in which cells enter the decoder, where it is not the raster (vision stages).
    target : torch.LongTensor or None
        `[batch, length]`, the token that each token becomes part of: itself if it stays, -1 if it leaves (fusion
        stages, whose `index` is padded on the right).
    carry : dict[str, torch.Tensor]
        `[batch, length]` each, gathered like states and handed to the next stage; attention weighs keys by an entry
        `key_weight` (fusion stages).
    """

    index: torch.Tensor
    valid: torch.Tensor
    merge: Callable[[torch.Tensor], torch.Tensor] | None = None
    forced_merges: torch.Tensor | None = None
    order: torch.Tensor | None = None
    target: torch.Tensor | None = None
    carry: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def from_mask(cls, keep: torch.Tensor, **details) -> "Keep":
        """From `[batch, length]`, True for tokens that stay."""
        index, valid = left_padded_indices(keep)
        return cls(index, valid, **details)

    @classmethod
    def from_target(cls, target: torch.Tensor, weights: torch.Tensor | None = None, **details) -> "Keep":
        """From `[batch, length]`, the token that each token becomes part of, itself or -1 (fusion stages).

        Tokens of one target become their mean, weighted by `weights [batch, length]` if given.
        """
        places = torch.arange(target.shape[1], device=target.device)
        index, valid = right_padded_indices(target == places)

        def merge(states: torch.Tensor) -> torch.Tensor:
            return merge_groups(states, target, weights)

        merges = bool(((target >= 0) & (target != places)).any())
        return cls(index, valid, merge=merge if merges else None, target=target, **details)


class TokenReducer(nn.Module):
    """Decides which visual tokens stay. One subclass per method.

    Parameters
    ----------
    config : TokenReductionConfig
        The options.
    num_layers : int
        Number of decoder layers.

    Attributes
    ----------
    options : frozenset[str]
        Names of the options that the method reads.
    merges : bool
        Whether the method writes merged values.
    """

    options: frozenset[str] = frozenset()
    merges: bool = False

    def __init__(self, config, num_layers: int):
        super().__init__()
        self.config = config
        self.num_layers = num_layers

    def stages(self) -> tuple[Stage, ...]:
        """Places at which the method acts."""
        return ()

    def keep(self, stage: Stage, context) -> Keep:
        """Decide what stays at a stage, from a :class:`VisionContext` or a :class:`StageContext`."""
        raise NotImplementedError

    def key_tokens(self, cls_attention: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        """Mark key tokens, `[tiles, tokens]`, given the CLS attention and which tokens are alive."""
        return torch.zeros_like(alive)


@dataclass(frozen=True)
class Sequence:
    """The tokens inside the decoder, without their states.

    Attributes
    ----------
    index : torch.LongTensor
        `[batch, length]`, place of each token in its unreduced sequence; -1 for padding.
    position_ids : torch.LongTensor
        `[batch or 1, length]`, rotary positions in the unreduced sequence.
    tokens : VisualTokens
        `[batch, length]`.
    padded : bool
        Whether any entry is padding.
    """

    index: torch.Tensor
    position_ids: torch.Tensor
    tokens: VisualTokens
    padded: bool

    @property
    def valid(self) -> torch.Tensor:
        """`[batch, length]`, False for padding."""
        return self.index >= 0


def apply_keep(sequence: Sequence, hidden_states: torch.Tensor, keep: Keep) -> tuple[Sequence, torch.Tensor]:
    """Slice everything that belongs to the sequence. The one place that does.

    Parameters
    ----------
    sequence : Sequence
        The tokens before the stage.
    hidden_states : torch.Tensor
        `[batch, length, channels]`.
    keep : Keep
        The decision.

    Returns
    -------
    tuple[Sequence, torch.Tensor]
        The tokens after the stage and their states; order and positions of what stays are unchanged.

    Raises
    ------
    RuntimeError
        If text would leave, an image would lose all its tokens, or the order would change.
    """
    tokens = sequence.tokens.select(keep.index, keep.valid)
    index = sequence.index.gather(1, keep.index).masked_fill(~keep.valid, -1)
    _check(sequence, tokens, index)
    if keep.merge is not None:
        hidden_states = keep.merge(hidden_states)
    if torch.equal(index, sequence.index):
        return sequence, hidden_states
    kept = Sequence(
        index=index,
        position_ids=sequence.position_ids.expand(len(index), -1).gather(1, keep.index),
        tokens=tokens,
        padded=not bool(keep.valid.all()),
    )
    places = keep.index.to(hidden_states.device).unsqueeze(-1).expand(-1, -1, hidden_states.shape[-1])
    return kept, hidden_states.gather(1, places)


def _check(before: Sequence, kept: VisualTokens, index: torch.Tensor) -> None:
    text_before = (before.valid & ~before.tokens.visual).sum(-1)
    text_after = ((index >= 0) & ~kept.visual).sum(-1)
    ascending = (index.diff(dim=-1) > 0) | (index[:, :-1] < 0)
    if not bool((text_before == text_after).all()):
        raise RuntimeError("A stage tried to drop text, or to keep padding")
    if before.tokens.groups("image")[1] != kept.groups("image")[1]:
        raise RuntimeError("A stage tried to drop every visual token of an image")
    if not bool(ascending.all()):
        raise RuntimeError("A stage tried to change the order of tokens")

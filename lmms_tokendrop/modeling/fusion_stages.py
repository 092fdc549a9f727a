"""The protocol of stages in an encoder that reads text and image together (where="fusion")."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from .stages import Keep, Stage, TokenReducer
from .token_matching import group_sizes


@dataclass(frozen=True)
class FusionTokens:
    """The tokens inside the encoder, without their states. Token 0 of each row is the text's CLS.

    Attributes
    ----------
    valid : torch.BoolTensor
        `[batch, length]`, False for padding.
    image : torch.BoolTensor
        `[batch, length]`, True for the tokens of the image, its CLS included.
    image_cls : torch.BoolTensor
        `[batch, length]`, True for the image's CLS.
    place : torch.LongTensor
        `[batch, length]`, place in the unreduced sequence; -1 for padding.
    size : torch.Tensor
        `[batch, length]` float32, number of unreduced tokens that a token is made of; 0 for padding.
    owner : torch.LongTensor
        `[batch, unreduced length]`, the token that each unreduced token is part of; -1 if it left.
    """

    valid: torch.Tensor
    image: torch.Tensor
    image_cls: torch.Tensor
    place: torch.Tensor
    size: torch.Tensor
    owner: torch.Tensor

    @classmethod
    def start(cls, text_valid: torch.Tensor, image_valid: torch.Tensor) -> "FusionTokens":
        """Of an unreduced sequence, from `[batch, text]` and `[batch, image]`, the image's CLS first."""
        valid = torch.cat([text_valid, image_valid], dim=1).bool()
        place = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
        image = valid & (place >= text_valid.shape[1])
        place = place.masked_fill(~valid, -1)
        return cls(valid, image, place == text_valid.shape[1], place, valid.float(), place)

    @property
    def text(self) -> torch.Tensor:
        """`[batch, length]`, True for the tokens of the text."""
        return self.valid & ~self.image

    def counts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens of the text and of the image, `[batch]` each."""
        return self.text.sum(-1), self.image.sum(-1)


@dataclass
class FusionContext:
    """What a reducer may read at a fusion stage. Reducers do not write to it.

    Attributes
    ----------
    hidden_states : torch.Tensor
        `[batch, length, channels]`.
    tokens : FusionTokens
        The tokens as they are now.
    sample_seeds : torch.LongTensor
        `[batch]`.
    first_counts : tuple[torch.Tensor, torch.Tensor]
        Tokens of the text and of the image of the unreduced sequence, `[batch]` each.
    keys, queries : Callable
        `keys()`: mean over heads of the layer's keys (queries), `[batch, length, head_dim]`; before_ffn only.
    attention_rows : Callable
        `attention_rows(rows)`: softmax attention of the queries that `rows [batch, length]` marks, as
        `[batch, heads, queries, length]` float32, zero where a row has fewer queries; before_ffn only.
    """

    hidden_states: torch.Tensor
    tokens: FusionTokens
    sample_seeds: torch.Tensor
    first_counts: tuple[torch.Tensor, torch.Tensor]
    keys: Callable[[], torch.Tensor] | None = None
    queries: Callable[[], torch.Tensor] | None = None
    attention_rows: Callable[[torch.Tensor], torch.Tensor] | None = None


class FusionReducer(TokenReducer):
    """Decides which tokens of an encoder of text and image stay. One subclass per method.

    Parameters
    ----------
    config : FusionReductionConfig
        The options.
    num_layers, hidden_size : int
        Blocks and channels of the encoder.
    image_size : int
        Side of the images that the encoder was made for.

    Attributes
    ----------
    joint : bool
        Whether text and image merge with each other, so that only the sum of their counts is known beforehand.
    proportional_attention : bool
        Whether attention logits get the logarithm of the key's size.
    soft_training : bool
        Whether tokens stay in training, and a policy with gradients says which are there (`soft_policy`).
    image_size : int or None
        Side to which images of the encoder's own size, and others in proportion, are reduced first; None: as they come.
    """

    joint: bool = False
    proportional_attention: bool = False
    soft_training: bool = False
    image_size: int | None = None

    def __init__(self, config, num_layers: int, hidden_size: int, image_size: int):
        super().__init__(config, num_layers)

    def counts(
        self,
        stage: Stage,
        text: torch.Tensor,
        image: torch.Tensor,
        first: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens of text and image that a stage leaves.

        Parameters
        ----------
        stage : Stage
            One of the method's stages.
        text, image : torch.LongTensor
            `[batch]`, tokens before the stage, the CLS tokens included, padding excluded.
        first : tuple[torch.Tensor, torch.Tensor]
            The same of the unreduced sequence.

        Returns
        -------
        tuple[torch.LongTensor, torch.LongTensor]
            `[batch]` each; for `joint` methods only their sum is meant.
        """
        return text, image

    def plan(self, text: int, image: int, num_layers: int) -> tuple[list[int], list[int]]:
        """Tokens that the attention and the FFN of each layer process, from the counts of the input alone."""
        first = (torch.tensor([text]), torch.tensor([image]))
        now = first
        stages = {(stage.layer, stage.point): stage for stage in self.stages()}
        attention: list[int] = []
        ffn: list[int] = []
        for layer in range(num_layers):
            for point, lengths in (("before_block", attention), ("before_ffn", ffn)):
                if (layer, point) in stages:
                    now = self.counts(stages[layer, point], *now, first)
                lengths.append(int(now[0] + now[1]))
        return attention, ffn

    def soft_policy(self, stage: Stage, hidden_states: torch.Tensor, tokens: FusionTokens, policy: torch.Tensor):
        """The policy `[batch, length]` after a stage in training, given the one before it."""
        raise NotImplementedError

    def module_macs(self, text: int, image: int) -> int:
        """Multiply-accumulates of the method's own trained modules, from the counts of the input."""
        return 0


class NoFusionReduction(FusionReducer):
    """The unreduced model, through the same code."""


@dataclass
class FusionReport:
    """What happened to the tokens of a batch.

    Attributes
    ----------
    received : list[FusionTokens]
        Per layer, what its attention processed.
    left : list[FusionTokens]
        Per layer, what its FFN processed.
    patches : torch.LongTensor or None
        `[batch, image length - 1, 2]`, row and column of each patch of the unreduced sequence; -1 for padding.
    policies : list[torch.Tensor]
        `[batch, length]` per stage, which tokens are there, where training keeps them all (DynamicViT).
    """

    received: list[FusionTokens] = field(default_factory=list)
    left: list[FusionTokens] = field(default_factory=list)
    patches: torch.Tensor | None = None
    policies: list[torch.Tensor] = field(default_factory=list)

    @property
    def text_tokens(self) -> list[list[int]]:
        """Tokens of the text that each layer received, per layer and row."""
        return [tokens.counts()[0].tolist() for tokens in self.received]

    @property
    def image_tokens(self) -> list[list[int]]:
        """Tokens of the image that each layer received, its CLS included, per layer and row."""
        return [tokens.counts()[1].tolist() for tokens in self.received]

    @property
    def average_image_tokens(self) -> list[float]:
        """Mean over layers of the tokens of the image that a layer received, per row."""
        return torch.tensor(self.image_tokens, dtype=torch.float64).mean(0).tolist()

    @property
    def average_image_tokens_left(self) -> list[float]:
        """The same after each layer's stage."""
        counts = torch.stack([tokens.counts()[1] for tokens in self.left])
        return counts.double().mean(0).tolist()


def apply_fusion_keep(
    tokens: FusionTokens, hidden_states: torch.Tensor, keep: Keep, joint: bool = False
) -> tuple[FusionTokens, torch.Tensor]:
    """Slice everything that belongs to the sequence. The one place that does in fusion encoders.

    Parameters
    ----------
    tokens : FusionTokens
        The tokens before the stage.
    hidden_states : torch.Tensor
        `[batch, length, channels]`.
    keep : Keep
        The decision, with a `target`.
    joint : bool
        Whether text and image may merge with each other.

    Returns
    -------
    tuple[FusionTokens, torch.Tensor]
        The tokens after the stage and their states, in their old order, padded on the right.

    Raises
    ------
    RuntimeError
        If the text's CLS or the whole image would leave, text and image would merge, padding would take part, text
        would be dropped, or the order would change.
    """
    _check(tokens, keep, joint)
    index, valid = keep.index, keep.valid
    size = group_sizes(keep.target, tokens.size)
    # where in the new sequence each old token is
    slots = torch.arange(index.shape[1], device=index.device).expand_as(index)
    new_slot = torch.full_like(keep.target, -1).scatter_reduce(1, index, slots.masked_fill(~valid, -1), "amax")
    moved = torch.where(keep.target >= 0, new_slot.gather(1, keep.target.clamp_min(0)), -1)
    owner = torch.where(tokens.owner >= 0, moved.gather(1, tokens.owner.clamp_min(0)), -1)
    if keep.merge is not None:
        hidden_states = keep.merge(hidden_states)
    kept = FusionTokens(
        valid=valid,
        image=tokens.image.gather(1, index) & valid,
        image_cls=tokens.image_cls.gather(1, index) & valid,
        place=tokens.place.gather(1, index).masked_fill(~valid, -1),
        size=size.gather(1, index).masked_fill(~valid, 0.0),
        owner=owner,
    )
    return kept, hidden_states.gather(1, index.unsqueeze(-1).expand(-1, -1, hidden_states.shape[-1]))


def check_counts(reducer: FusionReducer, stage: Stage, before: FusionTokens, after: FusionTokens, first) -> None:
    """Raise a RuntimeError unless a stage left exactly the counts that its method states."""
    expected, actual = reducer.counts(stage, *before.counts(), first), after.counts()
    pairs = {"text ": (expected[0], actual[0]), "image ": (expected[1], actual[1])}
    if reducer.joint:
        pairs = {"": (expected[0] + expected[1], actual[0] + actual[1])}
    for name, (wanted, found) in pairs.items():
        if not torch.equal(wanted, found):
            raise RuntimeError(
                f"layer {stage.layer} was to leave {wanted.tolist()} {name}tokens of its batch and left "
                f"{found.tolist()}"
            )


def _check(tokens: FusionTokens, keep: Keep, joint: bool) -> None:
    target, index, valid = keep.target, keep.index, keep.valid
    inside = target >= 0
    goal = target.clamp_min(0)
    rules = {
        "to move the text's CLS, which the head reads": target[:, 0] == 0,
        "to let padding take part": ((inside <= tokens.valid) & (tokens.valid.gather(1, goal) | ~inside)).all(-1),
        "to drop text": (inside | ~tokens.text).all(-1),
        "to change the order of tokens": ((index.diff(dim=-1) > 0) | ~valid[:, 1:]).all(-1),
    }
    if not joint:
        same = tokens.image.gather(1, goal) == tokens.image
        rules["to merge text with image"] = (same | ~inside).all(-1)
        rules["to drop every token of an image"] = (tokens.image & inside).any(-1) | ~tokens.image.any(-1)
    for wrong, holds in rules.items():
        if not bool(holds.all()):
            raise RuntimeError(f"A stage tried {wrong}")

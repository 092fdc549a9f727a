"""The protocol of stages in an encoder that reads text and image together (where="fusion")."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from .fusion_tokens import FusionTokens
from .stages import Keep, Stage, TokenReducer
from .token_matching import group_sizes
from .token_ops import take_tokens


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
    carry : dict[str, torch.Tensor]
        `[batch, length]` each, what the stage before handed on.
    """

    hidden_states: torch.Tensor
    tokens: FusionTokens
    sample_seeds: torch.Tensor
    first_counts: tuple[torch.Tensor, torch.Tensor]
    keys: Callable[[], torch.Tensor] | None = None
    queries: Callable[[], torch.Tensor] | None = None
    attention_rows: Callable[[torch.Tensor], torch.Tensor] | None = None
    carry: dict[str, torch.Tensor] = field(default_factory=dict)


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
    counts_padding : bool
        Whether padding is treated as tokens whose `key_weight`, which the first stage finds in its carry, is 0.
    sequential : bool
        Whether, in an encoder with a layer for each modality, the image's layer reads the text as the text's layer left
        it, instead of as it was before both.
    soft_training : bool
        Whether tokens stay in training, and a policy with gradients says which are there (`soft_policy`).
    image_size : int or None
        Side to which images of the encoder's own size, and others in proportion, are reduced first; None: as they come.
    vision_r : int or None
        Patches that merge in each block of a vision tower before the encoder.
    """

    joint: bool = False
    proportional_attention: bool = False
    counts_padding: bool = False
    sequential: bool = False
    soft_training: bool = False
    image_size: int | None = None
    vision_r: int | None = None

    def __init__(self, config, num_layers: int, hidden_size: int, image_size: int):
        super().__init__(config, num_layers)
        self.native_size = image_size

    @property
    def image_scale(self) -> float:
        """Factor by which the sides of images are reduced first."""
        return 1.0 if self.image_size is None else self.image_size / self.native_size

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
        attention, ffn = self.plan_apart(text, image, num_layers)
        return [sum(pair) for pair in attention], [sum(pair) for pair in ffn]

    def plan_apart(self, text: int, image: int, num_layers: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The same as pairs of text and image tokens."""
        first = (torch.tensor([text]), torch.tensor([image]))
        now = first
        stages = {(stage.layer, stage.point): stage for stage in self.stages()}
        attention: list[tuple[int, int]] = []
        ffn: list[tuple[int, int]] = []
        for layer in range(num_layers):
            for point, lengths in (("before_block", attention), ("before_ffn", ffn)):
                if (layer, point) in stages:
                    now = self.counts(stages[layer, point], *now, first)
                lengths.append((int(now[0]), int(now[1])))
        return attention, ffn

    def soft_policy(self, stage: Stage, hidden_states: torch.Tensor, tokens: FusionTokens, policy: torch.Tensor):
        """The policy `[batch, length]` after a stage in training, given the one before it."""
        raise NotImplementedError

    def module_macs(self, text: int, image: int) -> int:
        """Multiply-accumulates of the method's own trained modules, from the counts of the input."""
        return 0


class NoFusionReduction(FusionReducer):
    """The unreduced model, through the same code."""


@dataclass(frozen=True)
class StageRunner:
    """Asks a reducer at each stage of one forward pass, and does what it says.

    Attributes
    ----------
    reducer : FusionReducer
        The method.
    first : tuple[torch.Tensor, torch.Tensor]
        Tokens of the text and of the image of the unreduced sequence, `[batch]` each.
    sample_seeds : torch.LongTensor
        `[batch]`.
    """

    reducer: FusionReducer
    first: tuple[torch.Tensor, torch.Tensor]
    sample_seeds: torch.Tensor

    def __call__(
        self,
        stage: Stage,
        tokens: FusionTokens,
        carry: dict[str, torch.Tensor],
        hidden_states: torch.Tensor,
        **providers: Callable,
    ) -> tuple[tuple[FusionTokens, dict[str, torch.Tensor]], torch.Tensor]:
        """Tokens and carry after a stage, and the states of the tokens; `providers` are those of the context."""
        context = FusionContext(hidden_states, tokens, self.sample_seeds, self.first, carry=carry, **providers)
        keep = self.reducer.keep(stage, context)
        after, hidden_states = apply_fusion_keep(tokens, hidden_states, keep, self.reducer.joint)
        check_counts(self.reducer, stage, tokens, after, self.first)
        carry = {name: values.gather(1, keep.index) for name, values in keep.carry.items()}
        return (after, carry), hidden_states


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
    return kept, take_tokens(hidden_states, index)


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
    broken = ~torch.stack(list(rules.values())).all(-1)
    if bool(broken.any()):
        raise RuntimeError(f"A stage tried {list(rules)[int(broken.nonzero()[0, 0])]}")

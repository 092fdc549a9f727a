"""A decision, the one place that slices, merges and adds tokens as it says, and checks of what a stage may do."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from ..ops.token_ops import merge_groups, mixtures, padded_indices, segment_sum, take_tokens


@dataclass
class Keep:
    """A decision: which tokens stay, and what becomes of the others. Padding is the framework's business.

    Attributes
    ----------
    target : torch.LongTensor
        `[batch, length]`, the token that each token becomes part of: itself if it stays, -1 if it leaves.
    weights : torch.Tensor or None
        `[batch, length]`, by which tokens of one target are averaged; None: all equal.
    by_place : bool
        In which order they are summed, see :func:`merge_groups`.
    merging : bool
        Whether any token becomes part of another.
    added : tuple[torch.Tensor, torch.Tensor] or None
        Tokens that join: `[batch, new]`, the places of tokens that stay and get a new state, -1 for none, and these
        states `[batch, new, channels]`.
    mixed : tuple[torch.Tensor, torch.Tensor] or None
        The same with `[batch, new, length]`, by which the states are sums over the tokens before the stage.
    carry : dict[str, torch.Tensor]
        `[batch, length]` each, sliced like states and handed to the next stage. Attention weighs keys by an entry
        `key_weight` (fusion); cells enter the decoder by rising values of an entry `order` (vision); tokens that an
        entry `protected` marks are part of every count, and stay (decoder).
    """

    target: torch.Tensor
    weights: torch.Tensor | None = None
    by_place: bool = False
    merging: bool = False
    added: tuple[torch.Tensor, torch.Tensor] | None = None
    mixed: tuple[torch.Tensor, torch.Tensor] | None = None
    carry: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, mask: torch.Tensor, **details) -> "Keep":
        """From `[batch, length]`, True for tokens that stay."""
        places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        return cls(places.masked_fill(~mask, -1), **details)

    @classmethod
    def merged(cls, target: torch.Tensor, weights: torch.Tensor | None = None, **details) -> "Keep":
        """From `[batch, length]`, the token that each token becomes part of, itself or -1."""
        places = torch.arange(target.shape[1], device=target.device)
        return cls(target, weights, merging=bool(((target >= 0) & (target != places)).any()), **details)

    @cached_property
    def stays(self) -> torch.Tensor:
        """`[batch, length]`, True for tokens that stay."""
        return self.target == torch.arange(self.target.shape[1], device=self.target.device)


def apply(
    tokens: Any, states: list[torch.Tensor], keep: Keep, reducer: Any, side: str
) -> tuple[Any, list[torch.Tensor], dict]:
    """Do what a decision says to everything that belongs to a sequence.

    Parameters
    ----------
    tokens : DecoderTokens or FusionTokens
        The tokens before the stage.
    states : list[torch.Tensor]
        `[batch, length, channels]` each.
    keep : Keep
        The decision.
    reducer : TokenReducer
        The method: whether tokens may join, and text and image merge with each other.
    side : {"left", "right"}
        Where rows that keep fewer tokens are padded.

    Returns
    -------
    tuple
        The tokens after the stage, the same object if nothing left; their states, in their old order; and what is
        carried, `[batch, kept]` each.

    Raises
    ------
    RuntimeError
        If the decision breaks a rule: text would leave, padding would take part, or an image would lose all tokens.
    """
    fewest, most, unchanged = _checked(tokens, keep, reducer, side)
    if keep.mixed is not None:
        places, weights = keep.mixed
        states = [_added(values, places, mixtures(values, weights.to(values.device))) for values in states]
    if keep.merging:
        target, weights = keep.target, keep.weights
        states = [merge_groups(values, target.to(values.device), weights, keep.by_place) for values in states]
    if keep.added is not None:
        states = [_added(values, *keep.added) for values in states]
    if unchanged:
        return tokens, states, keep.carry
    index, valid = padded_indices(keep.stays, side, tokens.leading, most)
    after = tokens.after(keep.target, index, valid, fewest < most)
    states = [take_tokens(values, index.to(values.device)) for values in states]
    return after, states, {name: values.gather(1, index) for name, values in keep.carry.items()}


def _added(states: torch.Tensor, places: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """States with the new ones at their places."""
    places, new = places.to(states.device), new.to(states)
    rows, entries = (places >= 0).nonzero(as_tuple=True)
    return states.index_put((rows, places[rows, entries]), new[rows, entries])


def _checked(tokens: Any, keep: Keep, reducer: Any, side: str) -> tuple[int, int, bool]:
    """Fewest and most tokens that a row keeps, and whether nothing leaves or moves; for all this the host waits once.

    Raises
    ------
    RuntimeError
        If the decision breaks a rule.
    """
    stays, broken = keep.stays, _broken(tokens, keep, reducer)
    ahead, behind = stays[:, tokens.leading : -1], stays[:, tokens.leading + 1 :]
    moved = ahead > behind if side == "left" else ahead < behind
    counts = stays.sum(-1)
    facts = torch.stack([*broken.values(), (stays != tokens.valid).any() | moved.any(), counts.amin(), counts.amax()])
    *found, changed, fewest, most = facts.tolist()
    if any(found):
        raise RuntimeError(f"A stage tried {list(broken)[found.index(1)]}")
    return fewest, most, not changed and most == stays.shape[1]


def _broken(tokens: Any, keep: Keep, reducer: Any) -> dict[str, torch.Tensor]:
    """What rules a decision may break, and whether it does."""
    stays, inside, goal = keep.stays, keep.target >= 0, keep.target.clamp_min(0)
    text = tokens.valid & ~tokens.visual
    images, count = tokens.images()
    left, had = (segment_sum(marked.long(), images, count) for marked in (stays & tokens.visual, tokens.visual))
    broken = {
        "to let padding take part": (inside & ~(tokens.valid & tokens.valid.gather(1, goal))).any(),
        "to drop text": (text & ~(inside if tokens.merges_text else stays)).any(),
        "to merge into a token that leaves": (inside & ~stays.gather(1, goal)).any(),
    }
    if not (tokens.merges_text and reducer.joint):
        broken["to merge text with image"] = (inside & (tokens.visual.gather(1, goal) != tokens.visual)).any()
        broken["to drop every token of an image"] = ((had > 0) & (left == 0)).any()
    if tokens.leading:
        broken = {"to move the text's CLS, which the head reads": (keep.target[:, 0] != 0).any(), **broken}
    for places, _ in (new for new in (keep.added, keep.mixed) if new is not None):
        if not reducer.adds:
            raise RuntimeError("A stage tried to add tokens, and its method does not say that it `adds`")
        free = (stays & tokens.visual).gather(1, places.clamp_min(0))
        broken["to add a token at the place of text, or of one that leaves"] = ((places >= 0) & ~free).any()
    return broken


Counted = tuple[int, str, torch.Tensor, torch.Tensor]
"""A stage's layer, what is counted, and the counts `[groups]` or `[batch]` that it was to leave and that it left."""


def check_counted(counted: list[Counted], slack: int = 0) -> None:
    """Fail unless stages left what their method states, but for `slack` tokens.

    Raises
    ------
    RuntimeError
        With both counts of the first that did not.
    """
    numbers = torch.stack([torch.stack(counts) for _, _, *counts in counted]).tolist() if counted else []
    for (layer, kind, *_), (wanted, found) in zip(counted, numbers, strict=True):
        if any(abs(expected - number) > slack for expected, number in zip(wanted, found, strict=True)):
            raise RuntimeError(f"layer {layer} was to leave {wanted} {kind}tokens of its batch and left {found}")


def check_stages(reducer: Any, offered: Mapping[str, int], computed: Collection[str] = ()) -> None:
    """Fail unless every stage of a method is one that a model can run, with all that the method needs.

    Parameters
    ----------
    reducer : TokenReducer
        The method.
    offered : Mapping[str, int]
        Layers of each place that the model has; for "features" 0.
    computed : Collection[str]
        What the model computes beforehand for methods that need it.

    Raises
    ------
    ValueError
        Naming the stage: for a place that the model does not have, a layer past its end, or two stages at one point (in
        a decoder: in one layer); naming the method: for something else that it needs.
    """
    for name in sorted(reducer.needs.difference(computed)):
        there = ", ".join(map(repr, computed)) or "nothing"
        raise ValueError(f"{type(reducer).__name__} needs {name!r}; this model computes beforehand: {there}")
    seen = set()
    for stage in reducer.stages():
        if stage.place not in offered:
            raise ValueError(f"{stage}: this model has no such place; allowed: {', '.join(map(repr, offered))}")
        layers = range(offered[stage.place]) if stage.place != "features" else (-1,)
        if stage.layer not in layers:
            raise ValueError(f"{stage}: layer {stage.layer} can't act; allowed: {layers[0]} to {layers[-1]}")
        where = (stage.place, stage.layer, None if stage.place == "decoder" else stage.point)
        if where in seen:
            raise ValueError(f"{stage}: two stages at one point; allowed: one")
        seen.add(where)

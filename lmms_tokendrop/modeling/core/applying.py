"""The one place that slices, merges and adds tokens as a method says: in decoders, encoders and vision towers."""

from dataclasses import dataclass
from typing import Any

import torch

from ..ops.merging import merge_groups
from ..ops.selecting import padded_indices, segment_sum, take_tokens
from .reducer import Keep


@dataclass(frozen=True)
class Rules:
    """What a decision may do at a place.

    Attributes
    ----------
    side : {"left", "right"}
        Where rows that keep fewer tokens are padded.
    leading : int
        First tokens of each row that never move; padding comes behind them.
    merges_text : bool
        Whether text may merge with text.
    joint : bool
        Whether text and image may merge with each other.
    """

    side: str
    leading: int = 0
    merges_text: bool = False
    joint: bool = False


DECODER = Rules("left")
"""Text stays as it is."""


def apply(tokens: Any, states: list[torch.Tensor], keep: Keep, rules: Rules) -> tuple[Any, list[torch.Tensor], dict]:
    """Do what a decision says to everything that belongs to a sequence.

    Parameters
    ----------
    tokens : DecoderTokens or FusionTokens
        The tokens before the stage.
    states : list[torch.Tensor]
        `[batch, length, channels]` each.
    keep : Keep
        The decision.
    rules : Rules
        Those of the place.

    Returns
    -------
    tuple
        The tokens after the stage, the same object if nothing left; their states, in their old order; and what is
        carried, `[batch, kept]` each.

    Raises
    ------
    RuntimeError
        If the decision breaks the rules, text would leave, padding would take part, or an image would lose all tokens.
    """
    stays = keep.stays
    _check(tokens, keep, stays, rules)
    index, valid = padded_indices(stays, rules.side, rules.leading)
    after = tokens.after(keep.target, index, valid)
    if keep.merging:
        states = [merge_groups(values, keep.target.to(values.device), keep.weights) for values in states]
    if keep.added is not None:
        states = [_added(values, *keep.added) for values in states]
    if torch.equal(after.place, tokens.place):
        return (after if keep.merging else tokens), states, keep.carry
    states = [take_tokens(values, index.to(values.device)) for values in states]
    return after, states, {name: values.gather(1, index) for name, values in keep.carry.items()}


def _added(states: torch.Tensor, places: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """States with the new ones at their places."""
    rows, entries = (places >= 0).nonzero(as_tuple=True)
    return states.index_put((rows, places[rows, entries]), new[rows, entries].to(states.dtype))


def _check(tokens: Any, keep: Keep, stays: torch.Tensor, rules: Rules) -> None:
    """Raise a RuntimeError for a decision that breaks the rules."""
    inside, goal, text = keep.target >= 0, keep.target.clamp_min(0), tokens.valid & ~tokens.visual
    images, count = tokens.images()
    left, had = (segment_sum(marked.long(), images, count) for marked in (stays & tokens.visual, tokens.visual))
    broken = {
        "to let padding take part": (inside & ~(tokens.valid & tokens.valid.gather(1, goal))).any(),
        "to drop text": (text & ~(inside if rules.merges_text else stays)).any(),
        "to merge into a token that leaves": (inside & ~stays.gather(1, goal)).any(),
    }
    if not rules.joint:
        broken["to merge text with image"] = (inside & (tokens.visual.gather(1, goal) != tokens.visual)).any()
        broken["to drop every token of an image"] = ((had > 0) & (left == 0)).any()
    if rules.leading:
        broken = {"to move the text's CLS, which the head reads": (keep.target[:, 0] != 0).any(), **broken}
    if keep.added is not None:
        places = keep.added[0]
        free = (stays & tokens.visual).gather(1, places.clamp_min(0))
        broken["to add a token at the place of text, or of one that leaves"] = ((places >= 0) & ~free).any()
    found = torch.stack(list(broken.values()))
    if bool(found.any()):
        raise RuntimeError(f"A stage tried {list(broken)[int(found.long().argmax())]}")

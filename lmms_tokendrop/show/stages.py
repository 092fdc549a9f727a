"""From decisions about tokens to what became of each patch of an image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lmms_tokendrop.modeling.core.fusion_tokens import FusionTokens
from lmms_tokendrop.show.watching import Decision
from lmms_tokendrop.visualize import Cell

TEXT = (-1, -1, -1)
"""The owner of patches that became part of the text."""


@dataclass(frozen=True)
class Layout:
    """Where the patches of an image are.

    Parameters
    ----------
    tiles
        Per tile, the patch of each token behind the CLS of an encoder or of a vision tower.
    alive
        The patches that are the image's: what unpadding cuts off is none.
    """

    tiles: Sequence[Sequence[Cell]]
    alive: Collection[Cell]

    def places(self, tokens: Any) -> dict[Cell, tuple[int, int]]:
        """Row and place in the batch of each patch that has a token of its own."""
        return {cell: (row, number) for row, number, cell in self._patches(tokens)}

    def _patches(self, tokens: Any) -> Iterator[tuple[int, int, Cell]]:
        if isinstance(tokens, FusionTokens):
            for row, place in tokens.patches.nonzero().tolist():
                yield row, place, self.tiles[row][int(tokens.place[row, place]) - tokens.text_length - 1]
            return
        for row, place in (tokens.visual & ~tokens.newline & tokens.present).nonzero().tolist():
            yield row, place, cell_of(tokens, row, place)


def cell_of(tokens: Any, row: int, place: int) -> Cell:
    """The patch of a token of a decoder."""
    return tuple(int(getattr(tokens, name)[row, place]) for name in ("tile", "row", "column"))


@dataclass(frozen=True)
class StageResult:
    """What became of the patches of an image by the end of a stage.

    Parameters
    ----------
    place
        Of the stage, as in `Stage`.
    name
        Of the stage, in words.
    owner
        The patch that each patch is part of; those that left are missing.
    ranks
        By what each patch was judged, 0 for the lowest and 1 for the highest; empty if nothing was.
    keys
        Patches of key tokens that are there.
    """

    place: str
    name: str
    owner: dict[Cell, Cell]
    ranks: dict[Cell, float] = field(default_factory=dict)
    keys: frozenset[Cell] = frozenset()

    @property
    def patches(self) -> int:
        """Tokens that are left of the patches."""
        return len(set(self.owner.values()) - {TEXT})


def follow(decisions: Sequence[Decision], layout: Layout) -> list[StageResult]:
    """Follow the patches of an image through decisions; those inside a vision tower are one stage.

    A patch whose token could not go on from its own cell, since unpadding cuts that off, goes on from the first of
    those that it is made of.
    """
    owner = {cell: cell for cell in layout.alive}
    found: list[StageResult] = []
    for decision in decisions:
        result = _after(decision, layout, owner)
        if found and decision.stage.place == found[-1].place == "vision":
            found.pop()
        found.append(result)
        owner = result.owner
    return found


def _after(decision: Decision, layout: Layout, owner: dict[Cell, Cell]) -> StageResult:
    places = layout.places(decision.tokens)
    cells = {place: cell for cell, place in places.items()}
    members: dict[Cell, list[Cell]] = {}
    for cell in sorted(owner):
        members.setdefault(owner[cell], []).append(cell)
    after = dict.fromkeys(members.pop(TEXT, []), TEXT)
    judged: dict[Cell, tuple[int, int]] = {}
    keys: set[Cell] = set()
    for group, patches in members.items():
        place = next((places[cell] for cell in (group, *patches) if cell in places), None)
        if place is None:
            continue
        row, number = place
        target = int(decision.target[row, number])
        judged |= dict.fromkeys(patches, place)
        if target >= 0:
            after |= dict.fromkeys(patches, cells.get((row, target), TEXT))
            keys |= set(patches) if decision.keys is not None and decision.keys[row, number] else set()
    stage = decision.stage
    judgement = ranks(decision.scores, decision.target, judged)
    return StageResult(stage.place, stage_name(stage), after, judgement, frozenset(keys))


def ranks(scores: torch.Tensor | None, like: torch.Tensor, places: dict[Cell, tuple[int, int]]) -> dict[Cell, float]:
    """Rank the scores of patches from 0 to 1; nothing where there are none of the tokens themselves."""
    if scores is None or scores.shape != like.shape or not places:
        return {}
    values = {place: scores[place].item() for place in places.values()}
    order = {value: number for number, value in enumerate(sorted(set(values.values())))}
    return {cell: order[values[place]] / max(len(order) - 1, 1) for cell, place in places.items()}


def stage_name(stage: Any) -> str:
    """A stage in words."""
    names = {"vision": "vision tower", "features": "before the decoder", "decoder": f"decoder, layer {stage.layer}"}
    return names.get(stage.place, f"block {stage.layer}")


def held_shares(cache: Any, before_decoder: dict[Cell, Cell]) -> dict[Cell, float]:
    """Share of the cache's layers that hold each patch, itself or what it became part of; those of none are missing."""
    groups: dict[Cell, list[Cell]] = {}
    for cell, group in before_decoder.items():
        groups.setdefault(group, []).append(cell)
    layers = [_held(cache, layer.entries.place) for layer in cache.layers]
    shares = {
        cell: sum(not held.isdisjoint(patches) for held in layers) / len(layers)
        for patches in groups.values()
        for cell in patches
    }
    return {cell: share for cell, share in shares.items() if share}


def _held(cache: Any, index: torch.Tensor) -> set[Cell]:
    tokens = cache.provenance(index)
    return {cell_of(tokens, row, place) for row, place in (tokens.visual & ~tokens.newline).nonzero().tolist()}

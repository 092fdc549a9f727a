"""What stays in the cache: a reducer's stages after prefill, and while the answer is generated."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

from ..ops.token_ops import padded_indices
from .reducer import Context, Keep, Stage, TokenReducer
from .staged_cache import StagedCache, StagedLayer
from .visual_tokens import Entries


def compact_cache(
    cache: StagedCache, reducer: TokenReducer, stages: list[Stage], final: Entries, chunk_lengths: list[int]
) -> None:
    """Ask a method, for layers of the cache, what stays of a chunk after prefill.

    Keys are cached after rotation, so their positions stay those of the unreduced sequence.

    Parameters
    ----------
    cache : StagedCache
        Changed in place; entries from before the chunk stay.
    reducer : TokenReducer
        The method.
    stages : list[Stage]
        Its stages at "after_prefill".
    final : Entries
        The chunk's tokens after the last stage in the decoder, which the method finds marked as `survivors`.
    chunk_lengths : list[int]
        Entries of the chunk in each layer; they are the layer's last ones.
    """
    decided: list[_Decided] = []
    contexts: dict[Entries, Context] = {}
    for stage in stages:
        layer: StagedLayer = cache.layers[stage.layer]
        held = layer.entries
        earlier = held.place.shape[1] - chunk_lengths[stage.layer]
        if held not in contexts:
            contexts[held] = _context(cache, layer, survivors=Keep.of(_survivors(held, earlier, final)))
        context = contexts[held]
        decided.append(_Decided(layer, reducer.keep(stage, context), context.text_rows, earlier))
    _select(decided)


def drop_from_cache(cache: StagedCache, reducer: TokenReducer, stages: list[Stage]) -> None:
    """Ask a method, for layers of the cache, what stays after a generated token.

    Parameters
    ----------
    cache : StagedCache
        Changed in place.
    reducer : TokenReducer
        The method.
    stages : list[Stage]
        Its stages at "after_token"; it finds what generated tokens attended as `attention_so_far [batch, entries]`.
    """
    decided = []
    for stage in stages:
        if cache.generated % stage.every == 0:
            layer = cache.layers[stage.layer]
            context = _context(cache, layer, attention_so_far=layer.attention)
            decided.append(_Decided(layer, reducer.keep(stage, context), context.text_rows, 0))
    _select(decided)


def _context(cache: StagedCache, layer: StagedLayer, **known: Any) -> Context:
    index, valid = layer.entries.place, layer.entries.valid
    tokens = cache.provenance(index)
    return Context(
        tokens=tokens,
        valid=valid,
        hidden_states=None,
        counts=None,
        text_rows=valid & ~tokens.visual,
        sample_seeds=torch.zeros(len(index), dtype=torch.long),
        providers={name: lambda values=values: values for name, values in known.items()},
    )


def _survivors(held: Entries, earlier: int, final: Entries) -> torch.Tensor:
    """`[batch, entries]`, True for entries from before the chunk, and for those that are in `final` too."""
    chunk = held.place[:, earlier:].contiguous()
    length = chunk.shape[1]
    place = torch.searchsorted(chunk, final.place.clamp_min(0).contiguous()).masked_fill(~final.valid, length)
    stays = torch.zeros(len(chunk), length + 1, dtype=torch.bool, device=chunk.device).scatter_(1, place, True)
    return torch.cat([held.valid[:, :earlier], stays[:, :length]], dim=1)


@dataclass(frozen=True)
class _Decided:
    """What stays in a layer, of which the first `earlier` entries, padding included, must, and so must text."""

    layer: StagedLayer
    keep: Keep
    text: torch.Tensor
    earlier: int

    @property
    def key(self) -> tuple[Entries, int]:
        """The same for layers that hold the same and of which the same stays."""
        return self.layer.entries, id(self.keep)

    def facts(self) -> list[torch.Tensor]:
        """What the host has to know; see `left`. Nothing can merge or join in a cache."""
        if self.keep.merging or self.keep.added is not None or self.keep.mixed is not None:
            raise RuntimeError("A stage tried to merge or add tokens in the cache")
        held, stays = self.layer.entries.valid, self.keep.stays
        leaves, counts = held & ~stays, stays[:, self.earlier :].sum(-1)
        drops = ((self.text & ~stays).any(), leaves[:, : self.earlier].any(), leaves.any())
        return [*drops, (~held[:, : self.earlier]).any(), counts.amin(), counts.amax()]

    def left(
        self, drops_text: int, drops_earlier: int, drops: int, padded: int, fewest: int, most: int
    ) -> tuple[torch.Tensor | None, Entries]:
        """Places of what stays (None: all), and its entries."""
        if drops_text:
            raise RuntimeError("A stage tried to drop text from the cache")
        if drops_earlier:
            raise RuntimeError("A stage tried to drop what the cache held before the prompt")
        if not drops:
            return None, self.layer.entries
        place, valid = padded_indices(self.keep.stays[:, self.earlier :], "left", kept=most)
        before = torch.arange(self.earlier, device=place.device).expand(len(place), -1)
        place = torch.cat([before, place + self.earlier], dim=1)
        index = self.layer.entries.place.gather(1, place)
        index[:, self.earlier :].masked_fill_(~valid, -1)
        return place, Entries(index, bool(padded) or fewest < most)


def _select(decided: list[_Decided]) -> None:
    """Do what was decided; layers that hold the same then share what describes it.

    The host waits once for all that it has to know, and once for what is the same.
    """
    distinct = {one.key: one for one in decided}
    facts = torch.stack([torch.stack(one.facts()) for one in distinct.values()]).tolist() if decided else []
    left = {key: one.left(*known) for (key, one), known in zip(distinct.items(), facts, strict=True)}
    first = _shared([entries for _, entries in left.values()])
    for one in decided:
        place, entries = left[one.key]
        one.layer.select(place, first[entries])


def _shared(entries: list[Entries]) -> dict[Entries, Entries]:
    """For each of the entries, the first that are equal to it."""
    first = {one: one for one in entries}
    pairs = [(a, b) for a, b in combinations(first, 2) if a.place.shape == b.place.shape]
    equal = torch.stack([(a.place == b.place).all() for a, b in pairs]).tolist() if pairs else []
    for (a, b), same in zip(pairs, equal, strict=True):
        if same:
            first[b] = first[a]
    return first

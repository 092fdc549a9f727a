"""What leaves a cache: after prefill, and while the answer is generated."""

import torch

from ..ops.token_ops import padded_indices
from .reducer import Context, Stage, TokenReducer
from .staged_cache import Entries, StagedCache, StagedLayer


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
    left: list[Entries] = []
    for stage in stages:
        layer: StagedLayer = cache.layers[stage.layer]
        earlier = layer.entries.index.shape[1] - chunk_lengths[stage.layer]
        context = _context(cache, layer, survivors=_survivors(layer.entries, earlier, final))
        _select(layer, *_kept(layer.entries, _stays(reducer, stage, context), earlier, left))


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
    for stage in stages:
        if cache.generated % stage.every == 0:
            layer = cache.layers[stage.layer]
            context = _context(cache, layer, attention_so_far=layer.attention)
            _select(layer, *_kept(layer.entries, _stays(reducer, stage, context), 0, []))


def accumulate_attention(layer: StagedLayer, attention: torch.Tensor) -> None:
    """Add a generated token's head-mean attention, `[batch, entries]`, to what the layer has seen."""
    layer.attention = attention if layer.attention is None else layer.attention + attention


def _context(cache: StagedCache, layer: StagedLayer, **known: torch.Tensor) -> Context:
    index = layer.entries.index
    tokens, valid = cache.provenance(index), index >= 0
    return Context(
        tokens=tokens,
        valid=valid,
        hidden_states=None,
        counts=None,
        text_rows=valid & ~tokens.visual,
        sample_seeds=torch.zeros(len(index), dtype=torch.long),
        providers={name: lambda values=values: values for name, values in known.items()},
    )


def _stays(reducer: TokenReducer, stage: Stage, context: Context) -> torch.Tensor:
    """`[batch, entries]`, True for what a method keeps in a layer; nothing else can happen there."""
    keep = reducer.keep(stage, context)
    if keep.merging or keep.added is not None:
        raise RuntimeError("A stage tried to merge or add tokens in the cache")
    if bool((context.text_rows & ~keep.stays).any()):
        raise RuntimeError("A stage tried to drop text from the cache")
    return keep.stays


def _survivors(held: Entries, earlier: int, final: Entries) -> torch.Tensor:
    """`[batch, entries]`, True for entries from before the chunk, and for those that are in `final` too."""
    chunk = held.index[:, earlier:].contiguous()
    length = chunk.shape[1]
    place = torch.searchsorted(chunk, final.index.clamp_min(0).contiguous()).masked_fill(final.index < 0, length)
    stays = torch.zeros(len(chunk), length + 1, dtype=torch.bool, device=chunk.device).scatter_(1, place, True)
    return torch.cat([held.index[:, :earlier] >= 0, stays[:, :length]], dim=1)


def _kept(held: Entries, keep: torch.Tensor, earlier: int, left: list[Entries]) -> tuple[torch.Tensor | None, Entries]:
    """Places of what stays in a layer (None: all), and its entries; one object for all layers that hold the same.

    The first `earlier` entries stay as they are, padding included.
    """
    leaves = (held.index >= 0) & ~keep
    if bool(leaves[:, :earlier].any()):
        raise RuntimeError("A stage tried to drop what the cache held before the prompt")
    if bool(leaves.any()):
        place, valid = padded_indices(keep[:, earlier:], "left")
        before = torch.arange(earlier, device=place.device).expand(len(place), -1)
        place = torch.cat([before, place + earlier], dim=1)
        index = held.index.gather(1, place)
        index[:, earlier:].masked_fill_(~valid, -1)
        entries = Entries(index, not bool((index >= 0).all()))
    else:
        place, entries = None, held
    same = [known for known in left if torch.equal(known.index, entries.index)]
    left.extend([] if same else [entries])
    return place, same[0] if same else entries


def _select(layer: StagedLayer, place: torch.Tensor | None, entries: Entries) -> None:
    if place is None:
        layer.entries = entries
    else:
        layer.select(place, entries)

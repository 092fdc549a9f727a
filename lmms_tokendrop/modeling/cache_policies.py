"""What leaves a cache: after prefill, and while the answer is generated."""

import torch

from .staged_cache import Entries, StagedCache, StagedLayer
from .token_ops import fit_counts, left_padded_indices, segment_sum


def compact_cache(cache: StagedCache, final: Entries, chunk_lengths: list[int], first_layer: int) -> None:
    """Leave, of a chunk, only the last stage's survivors in every layer (MustDrop, decoding).

    Keys are cached after rotation, so their positions stay those of the unreduced sequence.

    Parameters
    ----------
    cache : StagedCache
        Changed in place; entries from before the chunk stay.
    final : Entries
        The chunk's tokens after the last stage.
    chunk_lengths : list[int]
        Entries of the chunk in each layer; they are the layer's last ones.
    first_layer : int
        Earlier layers keep all that they hold.
    """
    known: dict[int, tuple[Entries, torch.Tensor | None, Entries]] = {}
    left: list[Entries] = []
    for layer, length in list(zip(cache.layers, chunk_lengths, strict=True))[first_layer:]:
        held = layer.entries
        if id(held) not in known:
            known[id(held)] = (held, *_survivors(held, held.index.shape[1] - length, final, left))
        place, entries = known[id(held)][1:]
        if place is None:
            layer.entries = entries
        else:
            layer.select(place, entries)


def _survivors(held: Entries, earlier: int, final: Entries, left: list[Entries]) -> tuple[torch.Tensor | None, Entries]:
    """Places of what stays in a layer (None: all), and its entries; one object for all layers that hold the same."""
    chunk = held.index[:, earlier:].contiguous()
    entries = final if earlier == 0 else Entries(held.index[:, :earlier], held.padded).append(final)
    same = [known for known in left if torch.equal(known.index, entries.index)]
    entries = same[0] if same else entries
    left.extend([] if same else [entries])
    if torch.equal(chunk, final.index):
        return None, entries
    place = torch.searchsorted(chunk, final.index.clamp_min(0).contiguous())
    place = place.masked_fill(final.index < 0, 0) + earlier
    before = torch.arange(earlier, device=place.device).expand(len(place), -1)
    return torch.cat([before, place], dim=1), entries


def accumulate_attention(layer: StagedLayer, attention: torch.Tensor) -> None:
    """Add a generated token's head-mean attention, `[batch, entries]`, to what the layer has seen."""
    layer.attention = attention if layer.attention is None else layer.attention + attention


def evict_least_attended(cache: StagedCache, drop_ratio: float, floor: int) -> None:
    """Drop, in each layer, the visual entries that generated tokens attended least.

    Parameters
    ----------
    cache : StagedCache
        Changed in place.
    drop_ratio : float
        Share of each image's entries in a layer that leaves, rounded up.
    floor : int
        Entries per image that stay in any case.
    """
    for layer in cache.layers:
        index = layer.entries.index
        tokens = cache.provenance(index)
        groups, count = tokens.groups("image")
        visual = tokens.visual
        held = segment_sum(visual.long(), groups, count)
        leaving = torch.ceil(held.double() * drop_ratio - 1e-9).long()
        counts = torch.maximum(held - leaving, held.clamp_max(floor))
        no_line = torch.full_like(groups[visual], -1)
        keep = index >= 0
        keep[visual] = fit_counts(layer.attention[visual], groups[visual], no_line, counts)
        if bool((keep == (index >= 0)).all()):
            continue
        place, valid = left_padded_indices(keep)
        layer.select(place, Entries(index.gather(1, place).masked_fill(~valid, -1), not bool(valid.all())))

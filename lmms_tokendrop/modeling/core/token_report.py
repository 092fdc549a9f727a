"""What happened to the visual tokens of a request: the record of each stage, and the report of all."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import ModelOutput

from .visual_tokens import VisualTokens

COUNTED = ("tokens", "key_tokens", "newlines", "others")


@dataclass
class StageRecord:
    """What one stage left.

    Attributes
    ----------
    name : str
        Of the stage.
    index : torch.LongTensor
        `[batch, kept]` into the unreduced sequence, -1 for padding.
    carry : dict[str, torch.Tensor]
        `[batch, kept]` each, what the stage handed on.
    """

    name: str
    index: torch.Tensor
    carry: dict[str, torch.Tensor]

    def map(self, function) -> "StageRecord":
        """Apply a tensor function to everything that is known of each row."""
        carry = {name: function(values) for name, values in self.carry.items()}
        return StageRecord(self.name, function(self.index), carry)


@dataclass
class TokenReport(ModelOutput):
    """What a request's reduction did.

    Attributes
    ----------
    visual_tokens_per_layer : list[list[int]]
        `[layers][batch]`, visual tokens that each decoder layer received in prefill.
    average_visual_tokens : list[float]
        `[batch]`, the mean of the above over layers.
    average_visual_tokens_release : list[float]
        `[batch]`, the same, counted after the drop that follows each layer, as the MustDrop release does.
    full_visual_tokens : list[int]
        `[batch]`, visual tokens (image placeholders, newlines included) that the unreduced model processes.
    reduced : list[bool]
        `[batch]`, whether any visual token left.
    kv_bytes : int
        Bytes of all keys and values in the cache, padding included.
    kv_bytes_per_row : list[int]
        `[batch]`, bytes of the keys and values of each sequence's own tokens.
    kv_lengths : list[int]
        `[layers]`, entries of each cache layer, padding included.
    kept : dict[str, list[list[tuple[int, int, int, int]]]]
        Per stage and sequence, (image, tile, row, column) of the visual tokens that it left.
    counts : dict[str, list[dict[str, int]]]
        Per stage and sequence, how many `tokens` it left, `key_tokens` and `newlines` among them, and the `others`:
        after a filter of MustDrop, the places that the text decided.
    forced_merges : list[int]
        `[batch]`, windows that were merged, similar or not, because the budget could not be met without.
    """

    visual_tokens_per_layer: list[list[int]] | None = None
    average_visual_tokens: list[float] | None = None
    average_visual_tokens_release: list[float] | None = None
    full_visual_tokens: list[int] | None = None
    reduced: list[bool] | None = None
    kv_bytes: int | None = None
    kv_bytes_per_row: list[int] | None = None
    kv_lengths: list[int] | None = None
    kept: dict[str, list[list[tuple[int, int, int, int]]]] | None = None
    counts: dict[str, list[dict[str, int]]] | None = None
    forced_merges: list[int] | None = None


def token_report(cache: Any) -> TokenReport:
    """Report what a reduction did.

    Parameters
    ----------
    cache : StagedCache
        The request's cache.

    Raises
    ------
    ValueError
        If nothing went into the cache yet.
    """
    if cache.tokens is None:
        raise ValueError("report: the cache is empty; run a prefill first")
    full = cache.tokens.visual.sum(-1)
    received = cache.received or [torch.zeros_like(full) for _ in range(len(cache.layers) + 1)]
    per_row = torch.zeros_like(full)
    for layer in cache.layers:
        heads, width = layer.keys.shape[1], layer.keys.shape[3] + layer.values.shape[3]
        per_row += layer.entries.valid.sum(-1).to(full.device) * heads * width * layer.keys.element_size()
    kept: dict[str, list] = {}
    counts: dict[str, torch.Tensor] = {}
    for record in cache.records:
        picked = cache.provenance(record.index)
        rows = _places(picked)
        earlier = kept.get(record.name, [[] for _ in rows])
        kept[record.name] = [before + row for before, row in zip(earlier, rows, strict=True)]
        counts[record.name] = counts.get(record.name, 0) + _stage_counts(picked, record)
    means = [torch.stack(counts).double().mean(0).tolist() for counts in (received[:-1], received[1:])]
    return TokenReport(
        visual_tokens_per_layer=[counts.tolist() for counts in received[:-1]],
        average_visual_tokens=means[0],
        average_visual_tokens_release=means[1],
        full_visual_tokens=full.tolist(),
        reduced=(received[-1] < full).tolist(),
        kv_bytes=cache.kv_bytes,
        kv_bytes_per_row=per_row.tolist(),
        kv_lengths=[layer.get_seq_length() for layer in cache.layers],
        kept=kept,
        counts={name: [dict(zip(COUNTED, row, strict=True)) for row in rows.tolist()] for name, rows in counts.items()},
        forced_merges=_forced_merges(cache.tokens),
    )


def _stage_counts(picked: VisualTokens, record: StageRecord) -> torch.Tensor:
    """What `TokenReport.counts` says of the tokens that a stage left, `[batch, len(COUNTED)]`."""
    key, visual = record.carry.get("key", torch.zeros_like(picked.visual)), picked.visual
    tokens, keys, newlines = (marked.sum(-1) for marked in (visual, visual & key, visual & picked.newline))
    return torch.stack([tokens, keys, newlines, tokens - keys - newlines], dim=-1)


def _places(picked: VisualTokens) -> list[list[tuple]]:
    """Per sequence, what `TokenReport.kept` says of the tokens that a stage left."""
    places = torch.stack([picked.image, picked.tile, picked.row, picked.column], dim=-1)
    rows = zip(places, picked.visual, strict=True)
    return [[tuple(place) for place in row[chosen].tolist()] for row, chosen in rows]


def _forced_merges(tokens: VisualTokens) -> list[int]:
    totals = []
    forced = tokens.carry.get("forced_merges", torch.zeros_like(tokens.image))
    for images, merges in zip(tokens.image, forced, strict=True):
        numbers = images[images >= 0].unique().tolist()
        totals.append(sum(int(merges[images == number].amax()) for number in numbers))
    return totals

"""A key-value cache whose layers hold different tokens, and all other state of a request."""

from copy import copy
from dataclasses import replace
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from .options import Options
from .token_report import StageRecord, TokenReport, token_report
from .transformers_compat import CACHE
from .visual_tokens import Entries, VisualTokens


class StagedLayer(DynamicLayer):
    """A cache layer that knows which tokens its entries are.

    Attributes
    ----------
    entries : Entries or None
        One entry per key; layers of one stage share the object. None before the first token.
    attention : torch.Tensor or None
        `[batch, entries]`, head-mean attention accumulated from generated tokens (output-aware policy).
    """

    keys: Any
    values: Any
    entries: Entries | None = None
    attention: torch.Tensor | None = None

    def extend(self, entries: Entries) -> None:
        """Note what the entries are once new keys went in; generated tokens have not attended the new ones yet."""
        if self.attention is not None:
            new = entries.place.shape[1] - self.attention.shape[1]
            self.attention = torch.nn.functional.pad(self.attention, (0, new))
        self.entries = entries

    def select(self, index: torch.Tensor | None, entries: Entries) -> None:
        """Keep the keys and values at `index [batch, kept]` (None: all), which are then described by `entries`."""
        self.entries = entries
        if index is None:
            return
        places = index.to(self.keys.device).unsqueeze(1).unsqueeze(-1)
        self.keys = self.keys.gather(2, places.expand(-1, self.keys.shape[1], -1, self.keys.shape[3]))
        self.values = self.values.gather(2, places.expand(-1, self.values.shape[1], -1, self.values.shape[3]))
        if self.attention is not None:
            self.attention = self.attention.gather(1, index)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.entries = self.attention = None


class StagedCache(DynamicCache):
    """Keys and values per layer, and everything else that belongs to a request.

    Parameters
    ----------
    config : PreTrainedConfig
        The decoder's config (or one that contains it).

    Attributes
    ----------
    seen : int
        Tokens that went in, whatever left since: the logical length.
    tokens : VisualTokens or None
        `[batch, known]`, provenance of the unreduced sequence up to the last chunk that brought images; what follows
        is text.
    received : list[torch.Tensor]
        `[batch]` per decoder layer: visual tokens that the layer received so far; then those that the last one left.
    records : list[StageRecord]
        What each stage left, in order.
    generated : int
        Single-token steps since the last prefill with an image.
    left : torch.LongTensor or None
        `[batch, kept]`, place in the unreduced sequence of each state that the last forward pass gave; -1 for padding.
    options : Options or None
        Of the method that the tokens were reduced with.
    """

    def __init__(self, config):
        super().__init__(config=config)
        self.layers: list[Any] = [StagedLayer() for _ in self.layers]
        self._clear()

    def _clear(self) -> None:
        self.seen = 0
        self.tokens: VisualTokens | None = None
        self.received: list[torch.Tensor] = []
        self.records: list[StageRecord] = []
        self.generated = 0
        self.left: torch.Tensor | None = None
        self.options: Options | None = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen (the logical length), the same for every layer."""
        return self.seen

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Entries that a layer holds, after which its queries come."""
        return self.layers[layer_idx].get_seq_length()

    def used_with(self, options: Options) -> None:
        """Note the method of what goes in; a ValueError if what is there came with another, or with other options."""
        if self.seen and self.options is not None and self.options != options:
            raise ValueError(
                f"token_reduction: the cache was filled with {self.options.to_dict()}, and the model now has "
                f"{options.to_dict()}; start a new cache, or switch back"
            )
        self.options = options

    def extend(self, batch: int, length: int, device: torch.device, tokens: VisualTokens | None) -> VisualTokens:
        """Note a chunk, whose provenance is None if all is text; gives it with images numbered behind earlier ones."""
        chunk = VisualTokens.text(batch, length, device) if tokens is None else tokens
        if self.tokens is None:
            self.tokens = chunk
        elif tokens is not None:
            number = chunk.image + self.tokens.image.amax(-1, keepdim=True) + 1
            chunk = replace(chunk, image=torch.where(chunk.visual, number, -1))
            gap = self.seen - self.tokens.image.shape[1]
            self.tokens = self.tokens.append(VisualTokens.text(batch, gap, device)).append(chunk)
        self.seen += length
        return chunk

    def provenance(self, index: torch.Tensor) -> VisualTokens:
        """Provenance of the tokens `index [batch, entries]` of the unreduced sequence; -1 is padding."""
        assert self.tokens is not None
        known = self.tokens.image.shape[1]
        return self.tokens.select(index.clamp(0, known - 1), (index >= 0) & (index < known))

    def copy(self) -> "StagedCache":
        """An independent cache with the same content; tensors are shared, since updates never write in place."""
        twin = copy(self)
        twin.layers = [copy(layer) for layer in self.layers]
        return twin

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._clear()

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Take the rows `beam_idx`, for beam search."""
        super().reorder_cache(beam_idx)
        self._map_rows(lambda values: values.index_select(0, beam_idx.to(values.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row `repeats` times."""
        super().batch_repeat_interleave(repeats)
        self._map_rows(lambda values: values.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows `indices`."""
        super().batch_select_indices(indices)
        self._map_rows(lambda values: values[indices.to(values.device)])

    def _map_entries(self, function) -> None:
        """Apply a function of `[batch, entries]` to what is known of each layer's entries."""
        mapped: dict[Entries, Entries] = {}
        for layer in self.layers:
            if layer.entries is not None:
                known = Entries(function(layer.entries.place), layer.entries.padded)
                layer.entries = mapped.setdefault(layer.entries, known)
            if layer.attention is not None:
                layer.attention = function(layer.attention)

    def _map_rows(self, function) -> None:
        self._map_entries(function)
        self.tokens = None if self.tokens is None else self.tokens.map(function)
        self.received = [function(counts) for counts in self.received]
        self.records = [record.map(function) for record in self.records]

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last `-tokens_to_remove` tokens of every layer.

        Raises
        ------
        ValueError
            If some of them have already left a layer, so that the layers' last entries are other tokens.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop takes the negative number of tokens to remove, got {tokens_to_remove}")
        if tokens_to_remove == 0:
            return
        count = -tokens_to_remove
        last = torch.arange(self.seen - count, self.seen)
        for number, layer in enumerate(self.layers):
            if layer.entries is None:
                continue
            index = layer.entries.place[:, -count:]
            if index.shape[1] != count or not bool((index == last.to(index.device)).all()):
                raise ValueError(f"crop({tokens_to_remove}): layer {number} no longer holds the last {count} tokens")
        super().crop(tokens_to_remove)
        self._map_entries(lambda values: values[:, :-count])
        self.seen -= count
        self.tokens = None if self.tokens is None else self.tokens.map(lambda values: values[:, : self.seen])

    @property
    def kv_bytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers if layer.is_initialized)

    def report(self) -> TokenReport:
        """What the reduction did; a ValueError before the first prefill."""
        return token_report(self)


def staged_cache(cache: Any, config: Any) -> StagedCache:
    """Return `cache`; for None a new one for a configuration, see :class:`StagedCache`.

    Raises
    ------
    ValueError
        If it is not a :class:`StagedCache`.
    """
    if cache is None:
        return StagedCache(config)
    if not isinstance(cache, StagedCache):
        raise ValueError(f"{CACHE} must be a StagedCache or None, got {type(cache).__name__}")
    return cache

"""What a reduced model could reach on a machine: its layers on as many tokens, with nothing scored or selected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask

from lmms_tokendrop.bench.costs import lengths_of
from lmms_tokendrop.bench.runners import ReducedRunner, StockRunner
from lmms_tokendrop.modeling.core.transformers_compat import cache_argument

NAME = "layers of"
"""What stands before the name of the reduced model whose lengths are taken."""


class LayersAlone(StockRunner):
    """Prefill that cuts its sequence where a reduced model drops tokens, and decoding behind as many as that leaves.

    Which tokens stay doesn't matter for the time: these are the first of each row, as many as the longest row keeps.
    Nothing leaves while tokens are generated.

    Parameters
    ----------
    reduced : ReducedRunner
        The reduced model.
    """

    def __init__(self, reduced: ReducedRunner):
        super().__init__(reduced.model, reduced.prompt, reduced.new_tokens)
        self.name = f"{NAME} {reduced.name}"
        self.lengths = lengths_of(reduced, reduced.prefilled[1])
        self.states = reduced.embeddings[:, : self.lengths.attention[0]]

    def prefill(self) -> tuple[torch.Tensor, DynamicCache]:
        """Logits of the next token, and the cache."""
        cache = DynamicCache(config=self.decoder.config)
        logits = self._run(self.states, cache, self.lengths.attention, self.lengths.mlp)
        for held, length in zip(cache.layers, self.lengths.cached, strict=True):
            if length < held.keys.shape[2]:
                held.keys, held.values = (part[:, :, :length].clone() for part in (held.keys, held.values))
        return logits, cache

    def step(self, token: torch.Tensor, cache: DynamicCache) -> tuple[torch.Tensor, DynamicCache]:
        """Logits behind a token, and the cache with it."""
        one = [1] * len(cache.layers)
        return self._run(self.decoder.embed_tokens(token), cache, one, one), cache

    def _run(self, states: torch.Tensor, cache: DynamicCache, attention: Sequence[int], mlp: Sequence[int]):
        """Logits `[batch, 1, vocabulary]` of the last token, where layers attend and run their MLP on so many."""
        before, first = 0, cache.get_seq_length()
        for layer, length, left in zip(self.decoder.layers, attention, mlp, strict=True):
            if length != before:
                states, before = states[:, :length].contiguous(), length
                known = self._inputs(states, first)
            cut = (lambda attended, left=left: attended[:, :left].contiguous()) if left < length else None
            states = layer(states, after_attention=cut, use_cache=True, **known, **cache_argument(cache))
        return self.head(self.decoder.norm(states)[:, -1:])

    def _inputs(self, states: torch.Tensor, first: int) -> dict[str, Any]:
        """What layers read beside states `[batch, length, channels]`; one token sees all that is cached."""
        positions = torch.arange(first, first + states.shape[1], device=states.device).unsqueeze(0)
        mask = None
        if states.shape[1] > 1:
            known = {"inputs_embeds": states, "attention_mask": None, **cache_argument(None)}
            mask = create_causal_mask(config=self.decoder.config, **known)
        return {"attention_mask": mask, "position_embeddings": self.decoder.rotary_emb(states, position_ids=positions)}

"""What a reduced model could reach on a machine: its layers on as many tokens, with nothing scored or selected."""

from __future__ import annotations

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
    """Prefill that cuts its sequence where a reduced model drops tokens, and stock decoding behind what is left.

    Which tokens stay doesn't matter for the time: these are the first of each row, as many as the longest row keeps.

    Parameters
    ----------
    stock : StockRunner
        What decodes; its weights are those of the reduced model.
    reduced : ReducedRunner
        What was prefilled before.
    """

    def __init__(self, stock: StockRunner, reduced: ReducedRunner):
        super().__init__(stock.model, reduced.prompt, reduced.new_tokens)
        self.name, self.layers = f"{NAME} {reduced.name}", reduced.decoder.layers
        self.lengths = lengths_of(reduced, reduced.prefilled[1])
        self.config = reduced.decoder.config
        self.states = reduced.embeddings[:, : self.lengths.attention[0]]

    def prefill(self) -> tuple[torch.Tensor, DynamicCache]:
        """Logits of the next token, and the cache."""
        states, cache, before = self.states, DynamicCache(config=self.config), 0
        for layer, length, left in zip(self.layers, self.lengths.attention, self.lengths.mlp, strict=True):
            if length != before:
                states, before = states[:, :length].contiguous(), length
                known = self._inputs(states)
            cut = (lambda attended, left=left: attended[:, :left].contiguous()) if left < length else None
            states = layer(states, after_attention=cut, use_cache=True, **known, **cache_argument(cache))
        for held, length in zip(cache.layers, self.lengths.cached, strict=True):
            if length < held.keys.shape[2]:
                held.keys, held.values = (part[:, :, :length].clone() for part in (held.keys, held.values))
        return self.head(self.decoder.norm(states)[:, -1:]), cache

    def _inputs(self, states: torch.Tensor) -> dict[str, Any]:
        """What layers read beside states `[batch, length, channels]`."""
        positions = torch.arange(states.shape[1], device=states.device).unsqueeze(0)
        mask = create_causal_mask(config=self.config, inputs_embeds=states, attention_mask=None, **cache_argument(None))
        return {"attention_mask": mask, "position_embeddings": self.decoder.rotary_emb(states, position_ids=positions)}

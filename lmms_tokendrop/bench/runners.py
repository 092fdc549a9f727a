"""A model on one prompt, part by part: vision, prefill, decoding, and the whole of them."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any

import torch

from lmms_tokendrop.bench.prompts import Prompt
from lmms_tokendrop.modeling.core.decoder_inputs import ReductionRequest
from lmms_tokendrop.modeling.core.transformers_compat import cache_argument, cache_of
from lmms_tokendrop.modeling.core.visual_tokens import VisualTokens

STOCK = "stock"


class StockRunner:
    """The stock model.

    Parameters
    ----------
    model : PreTrainedModel
        With a head.
    prompt : Prompt
        What it is given.
    new_tokens : int
        How many are generated.
    """

    name = STOCK

    def __init__(self, model: Any, prompt: Prompt, new_tokens: int):
        self.model, self.prompt, self.new_tokens = model, prompt, new_tokens
        self.decoder, self.head = model.model.language_model, model.lm_head

    def vision(self) -> Any:
        """Image features, packed as they go among the text."""
        return self.model.model.get_image_features(**self.prompt.image, return_dict=True)

    @cached_property
    def features(self) -> Any:
        """The same, once."""
        return self.vision()

    @cached_property
    def embeddings(self) -> torch.Tensor:
        """`[batch, length, channels]`, what the decoder receives."""
        embeddings = self.decoder.embed_tokens(self.prompt.input_ids).clone()
        embeddings[self.prompt.visual] = torch.cat(list(self.features.pooler_output)).to(embeddings)
        return embeddings

    def run_decoder(self) -> Any:
        """The decoder's output for the whole prompt."""
        return self.decoder(inputs_embeds=self.embeddings, use_cache=True)

    def prefill(self) -> tuple[torch.Tensor, Any]:
        """Logits of the next token, `[batch, 1, vocabulary]`, and the cache."""
        output = self.run_decoder()
        return self.head(output.last_hidden_state[:, -1:]), cache_of(output)

    @cached_property
    def prefilled(self) -> tuple[torch.Tensor, Any]:
        """The same, once."""
        return self.prefill()

    def decode(self) -> torch.Tensor:
        """Generate greedily behind the prompt; `[batch, new tokens]`."""
        logits, cache = self.prefilled
        cache, tokens = twin(cache), [logits.argmax(-1)]
        for _ in range(self.new_tokens):
            logits, cache = self.step(tokens[-1], cache)
            tokens.append(logits.argmax(-1))
        return torch.cat(tokens[1:], dim=1)

    def step(self, token: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        """Logits behind a token `[batch, 1]`, and the cache with it."""
        output = self.model(input_ids=token, use_cache=True, **cache_argument(cache))
        return output.logits, cache_of(output)

    def whole(self) -> torch.Tensor:
        """All of `generate`, from the pixels on."""
        return self.model.generate(
            **self.prompt.whole, min_new_tokens=self.new_tokens, max_new_tokens=self.new_tokens, do_sample=False
        )


class ReducedRunner(StockRunner):
    """A reduced model, called as its own forward pass calls its decoder."""

    def __init__(self, name: str, model: Any, prompt: Prompt, new_tokens: int):
        super().__init__(model, prompt, new_tokens)
        self.name, self.reducer = name, model.model.token_reducer

    @cached_property
    def request(self) -> ReductionRequest:
        """What is reduced, and where each visual token comes from."""
        return ReductionRequest(self.reducer, VisualTokens.place(self.features.visual_tokens, self.prompt.visual))

    def run_decoder(self) -> Any:
        """The decoder's output for the whole prompt, stages included."""
        return self.decoder(inputs_embeds=self.embeddings, use_cache=True, reduction=self.request)


def twin(cache: Any) -> Any:
    """A cache with the same content; tensors are shared, since updates never write in place."""
    if hasattr(cache, "copy"):
        return cache.copy()
    other = copy(cache)
    other.layers = [copy(layer) for layer in cache.layers]
    return other

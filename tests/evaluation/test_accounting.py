"""Analytic costs against the flop counter and against real caches."""

import pytest
import torch
from tiny_models import tiny_config
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from lmms_tokendrop.evaluation.accounting import decoder_layer_macs, decoder_macs, kv_bytes
from lmms_tokendrop.modeling.core.staged_cache import StagedCache
from lmms_tokendrop.modeling.core.staged_decoder import STAGED_DECODERS
from lmms_tokendrop.modeling.core.transformers_compat import cache_argument


@pytest.mark.parametrize("text", ["llama", "mistral", "qwen2"])
def test_macs_are_half_of_what_the_flop_counter_sees(text):
    config = tiny_config(text, layers=3).text_config
    with torch.device("meta"):
        decoder = AutoModel.from_config(config, attn_implementation="sdpa")
        embeddings, mask = torch.empty(1, 37, config.hidden_size), torch.empty(1, 1, 37, 37, dtype=torch.bool)
    with FlopCounterMode(display=False) as counter:
        decoder(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
    assert decoder_macs(config, [37] * 3, causal=False) == counter.get_total_flops() / 2


def test_causal_attention_counts_at_half():
    config = tiny_config("llama").text_config
    attention = 2 * 10 * 10 * config.num_attention_heads * config.head_dim
    difference = decoder_layer_macs(config, 10, causal=False) - decoder_layer_macs(config, 10, causal=True)
    assert difference == attention / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kv_bytes_equal_those_of_a_cache(dtype):
    config = tiny_config("llama", layers=3).text_config
    decoder = STAGED_DECODERS["llama"](config).to(dtype).eval()
    cache = StagedCache(config)
    with torch.no_grad():
        decoder(inputs_embeds=torch.zeros(1, 11, config.hidden_size, dtype=dtype), **cache_argument(cache))
    assert kv_bytes(config, [11] * 3, dtype) == cache.kv_bytes

"""MACs of encoders against the flop counter and against published figures."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import ViltConfig

from lmms_tokendrop.benchmark.encoder_accounting import encoder_layer_macs, patch_embedding_macs, planned_macs
from lmms_tokendrop.modeling.architectures.staged_vilt import StagedViltEmbeddings, StagedViltLayer

VILT_B = ViltConfig()
PUMER = {"method": "pumer"}


@pytest.mark.parametrize(
    ("reduction", "giga"),
    [
        ({"method": "none"}, 15.95),
        (PUMER, 8.70),
        ({**PUMER, "preset": "vilt-vqav2"}, 8.70),
        ({**PUMER, "preset": "vilt-snli-ve"}, 7.64),
        ({**PUMER, "layers": [2, 3, 4]}, 7.38),
        ({**PUMER, "layers": [7, 8, 9]}, 12.17),
        ({"method": "tome", "r": 13, "merge_scope": "joint"}, 8.81),
        ({"method": "dynamicvit", "keep_ratio": 0.7}, 11.46),
        ({"method": "dynamicvit", "keep_ratio": 0.5}, 9.35),
    ],
)
def test_macs_of_vilt_b_with_32_text_tokens_and_384_pixels(reduction, giga):
    assert planned_macs(VILT_B, reduction, text_tokens=32) / 1e9 == pytest.approx(giga, rel=0.01)


def test_smaller_images_cost_less_alone_and_with_pumer():
    smaller = planned_macs(VILT_B, {"method": "smres", "image_size": 320}, 32)
    assert smaller == planned_macs(VILT_B, {"method": "none"}, 32, image_size=320)
    assert planned_macs(VILT_B, {**PUMER, "image_size": 320}, 32) < smaller < planned_macs(VILT_B, {}, 32)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("before", "after"), [(177, 177), (177, 113), (73, 48)])
def test_a_block_is_half_of_what_the_flop_counter_sees(attention, before, after):
    config = ViltConfig(attn_implementation=attention)
    with torch.device("meta"):
        layer, states = StagedViltLayer(config), torch.empty(1, before, 768)
    with FlopCounterMode(display=False) as counter:
        layer(states, decide=lambda states, query, key: (None, states[:, :after]))
    assert encoder_layer_macs(config, before, after) == counter.get_total_flops() / 2


def test_the_patch_embedding_is_half_of_what_the_flop_counter_sees():
    with torch.device("meta"):
        embeddings, pixels = StagedViltEmbeddings(VILT_B), torch.empty(1, 3, 384, 384)
    with FlopCounterMode(display=False) as counter:
        embeddings.patch_embeddings(pixels)
    assert patch_embedding_macs(VILT_B, 144) == counter.get_total_flops() / 2

"""The prefill measurement reports what it ran."""

import pytest
from transformers import LlamaConfig

from lmms_tokendrop.benchmark.prefill import measure_prefill, square_image_tokens
from lmms_tokendrop.evaluation.accounting import decoder_macs


def test_the_square_image_has_2880_patches_and_48_newlines():
    tokens = square_image_tokens(text_tokens=60)
    assert tokens.visual.shape == (1, 2988)
    assert int(tokens.visual.sum()) == 2928
    assert int(tokens.newline.sum()) == 48
    assert int((tokens.tile[tokens.visual] == 0).sum()) == 576


def test_the_allowed_speed_up_is_that_of_the_layers_run():
    speed = measure_prefill(hidden_size=64, layers=3, kept=100, drop_after_layer=1, repeats=1)
    config = LlamaConfig(hidden_size=64, intermediate_size=172, num_attention_heads=1, num_key_value_heads=1)
    full, reduced = [2988] * 3, [2988, 2988, 160]
    expected = decoder_macs(config, full, causal=True) / decoder_macs(config, reduced, causal=True)
    assert speed.macs_speed_up == pytest.approx(expected)
    assert speed.quotient == pytest.approx(speed.stock_seconds / speed.reduced_seconds / expected)

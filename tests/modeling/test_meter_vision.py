"""ToMe inside METER's CLIP tower: merging is masking with means, counts, what it is used with."""

from __future__ import annotations

import pytest
import torch
from fusion_reference import regroup
from tiny_meter import random_meter, tiny_meter_inputs
from transformers.activations import ACT2FN

from lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop import MeterTokenDropForQuestionAnswering
from lmms_tokendrop.modeling.core.attention import key_bias
from lmms_tokendrop.modeling.core.fusion_selection import FusionCounts
from lmms_tokendrop.modeling.core.fusion_tokens import FusionTokens
from lmms_tokendrop.modeling.core.reducer import Stage
from lmms_tokendrop.modeling.core.staged_tower import InPlaceQuickGELU


@pytest.fixture
def model(tiny_meter_checkpoint):
    return MeterTokenDropForQuestionAnswering.from_pretrained(
        tiny_meter_checkpoint(), token_reduction={"method": "vision_tome", "vision_r": 9}
    )


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_merging_equals_masking_in_stock_blocks(model, attention):
    model.set_attn_implementation(attention)
    tower, stock = model.meter.vision_model, random_meter().meter.vision_model
    reducer, pixels = model.meter.token_reducer, tiny_meter_inputs("whole")["pixel_values"]
    found, tokens, lengths = tower.forward_staged(pixels, reducer)
    assert lengths == [65, 56, 47]
    assert tokens.valid.shape == (2, 38)
    after = []
    blocks = tower.layers
    for depth in range(1, 4):
        tower.layers = blocks[:depth]
        after.append(tower.forward_staged(pixels, reducer)[1])
    states, valid = stock.embed(pixels), torch.ones(2, 65, dtype=torch.bool)
    alive, size, before = valid, torch.ones(2, 65), FusionTokens.start(valid[:, :0], valid)
    for block, left in zip(stock.layers, after, strict=True):
        bias = key_bias(alive, torch.float32, size)
        states = states + block.self_attn(block.layer_norm1(states), bias)[0]
        states, alive, size = regroup(states, alive, size, before, left, weighted=True)
        states = states + block.mlp(block.layer_norm2(states))
        before = left
    for row in range(2):
        assert (stock.post_layernorm(states)[row, tokens.place[row]] - found[row]).abs().max() <= 1e-5
    assert torch.equal(size.gather(1, tokens.place), tokens.size)
    assert (tokens.size.sum(-1) == 65).all()
    assert tokens.size[:, 0].tolist() == [1, 1]  # CLS merges with nothing


@torch.no_grad()
def test_the_tower_without_merging_is_the_stock_one(tiny_meter_checkpoint):
    model = MeterTokenDropForQuestionAnswering.from_pretrained(tiny_meter_checkpoint())
    pixels = tiny_meter_inputs("whole")["pixel_values"]
    expected = random_meter().meter.get_image_features(pixels)
    assert (model.meter.get_image_features(pixels) - expected).abs().max() <= 1e-5
    assert (model.meter.vision_model(pixels) - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_features_computed_before_give_the_same_answer(model):
    inputs = tiny_meter_inputs("ragged")
    expected = model(**inputs)
    image = model.meter.get_image_features(inputs.pop("pixel_values"))
    assert image.shape == (3, 38, 32)
    output = model(**inputs, image_embeds=image)
    assert torch.equal(output.logits, expected.logits)
    assert output.report.vision_tokens == []
    assert output.report.patches is None
    assert expected.report.vision_tokens == [65, 56, 47]


@pytest.mark.parametrize(
    ("options", "tower", "image"),
    [
        ({"method": "pumer"}, [65, 65, 65], [65, 39, 23, 13]),
        ({"method": "pumer", "vision_r": 9}, [65, 56, 47], [38, 22, 14, 8]),
        ({"method": "pumer", "vision_r": 9, "image_size": 24}, [37, 28, 19], [10, 6, 4, 2]),
        ({"method": "vision_tome", "vision_r": 40}, [65, 33, 17], [9, 9, 9, 9]),
        ({"method": "smres", "image_size": 24}, [37, 37, 37], [37, 37, 37, 37]),
    ],
)
@torch.no_grad()
def test_counts_with_and_without_pumer_and_smaller_images(tiny_meter_checkpoint, options, tower, image):
    model = MeterTokenDropForQuestionAnswering.from_pretrained(tiny_meter_checkpoint(), token_reduction=options)
    report = model(**tiny_meter_inputs("whole")).report
    assert report.vision_tokens == tower
    assert [counts[0] for counts in report.visual_tokens_per_layer] == image
    assert report.patches.shape[1] == tower[0] - 1
    assert report.patches[0, -1].tolist() == [int((tower[0] - 1) ** 0.5) - 1] * 2


def test_its_reducer_has_no_weights_and_a_default(tiny_meter_checkpoint):
    model = MeterTokenDropForQuestionAnswering.from_pretrained(
        tiny_meter_checkpoint(), token_reduction={"method": "vision_tome"}
    )
    reducer = model.meter.token_reducer
    assert reducer.stages() == tuple(Stage("vision", block, "before_ffn") for block in range(3))
    counts = torch.tensor([65])
    assert reducer.count(reducer.stages()[0], FusionCounts(counts * 0, counts, counts * 0, counts))[1] == 65 - 24
    assert not list(reducer.parameters())


def test_the_activation_is_clips_with_and_without_gradients():
    states = torch.randn(3, 5)
    expected = ACT2FN["quick_gelu"](states)
    assert torch.equal(InPlaceQuickGELU()(states.clone().requires_grad_()), expected)
    with torch.inference_mode():
        assert torch.equal(InPlaceQuickGELU()(states.clone()), expected)

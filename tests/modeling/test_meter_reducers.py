"""METER's options, the numbers of its layers, and the counts of the paper."""

from __future__ import annotations

import pytest
import torch
from test_fusion_reducers import counts_by_stage
from tiny_meter import tiny_meter_inputs

from lmms_tokendrop import MeterReductionConfig
from lmms_tokendrop.modeling.architectures.meter_model import MeterConfig
from lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop import MeterTokenDropForQuestionAnswering
from lmms_tokendrop.modeling.core.fusion_plan import build_fusion_reducer


def build(num_layers: int = 6, hidden_size: int = 16, native_size: int = 384, **options):
    size = {"image_size": native_size}
    config = MeterConfig(
        num_hidden_layers=num_layers, hidden_size=hidden_size, num_attention_heads=4, vision_config=size
    )
    options = MeterReductionConfig.from_dict(options)
    return build_fusion_reducer(MeterReductionConfig, options, config)


@pytest.mark.parametrize(
    ("options", "text", "image", "expected"),
    [
        ({}, 32, 577, [(32, 577), (26, 347), (21, 209), (17, 125), (14, 75)]),
        ({"preset": "meter-vqav2"}, 32, 577, [(32, 577), (26, 347), (21, 209), (17, 125), (14, 75)]),
        ({"preset": "meter-snli-ve"}, 40, 577, [(40, 577), (32, 203), (26, 72), (21, 26), (17, 10)]),
        ({"preset": "meter-nlvr2"}, 40, 325, [(40, 325), (32, 114), (26, 41), (21, 15)]),
    ],
)
def test_pumer_leaves_the_papers_counts(options, text, image, expected):
    assert counts_by_stage(build(method="pumer", **options), text, image) == expected


def test_layers_are_numbered_as_pumer_does():
    def pairs(num_layers=6, **options):
        return [stage.layer for stage in build(num_layers, **options).stages()]

    assert pairs(method="pumer") == [0, 1, 2, 3]
    assert pairs(method="pumer", preset="meter-nlvr2") == [1, 2, 3]
    assert pairs(method="pumer", layers=[0, 10]) == [0, 5]
    assert pairs(3, method="pumer") == [0, 1, 2]
    assert pairs(method="dynamicvit") == [1, 3, 5]
    assert pairs(method="random") == pairs(method="cls_attention") == [0, 1, 2, 3]
    assert pairs(method="tome") == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("method", ["pumer", "random", "cls_attention", "dynamicvit"])
@pytest.mark.parametrize("layer", [1, 12])
def test_a_layer_that_cannot_act_raises(method, layer):
    message = f"layer {layer} can't act in 6 pairs of layers; allowed .* even numbers from 0 to 10"
    with pytest.raises(ValueError, match=message):
        build(method=method, layers=[layer])


def test_the_baselines_drop_as_much_as_pumer_does_for_vqav2():
    for method in ("random", "cls_attention"):
        assert [image for _, image in counts_by_stage(build(method=method), 32, 577)] == [577, 346, 208, 125, 75]
    assert [image for _, image in counts_by_stage(build(method="dynamicvit"), 32, 577)] == [577, 404, 283, 198]
    assert build(method="smres").image_size == 320


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "pumer", "score": "keys"}, "allowed: 'attention', 'first_head', 'queries'"),
        ({"method": "pumer", "preset": "vilt-vqav2"}, "allowed: 'meter-vqav2'"),
        ({"method": "tome", "merge_scope": "joint"}, "unknown option 'merge_scope'"),
        ({"method": "cls_attention", "cls_token": "image"}, "unknown option 'cls_token'"),
        ({"method": "none", "vision_r": 3}, "method 'none' has no option 'vision_r'"),
        ({"method": "vision_tome", "vision_r": 0}, "allowed: a whole number from 1"),
        ({"method": "smres", "image_size": 384}, "still have 24 patches .* nothing would happen; allowed: 1 to 375"),
        (
            {"method": "random", "prune_ratio": 0.0005},
            "leave all of 577 image and 512 text tokens, so nothing would happen",
        ),
        ({"method": "fastv"}, "method='fastv'; allowed: 'none', 'pumer', 'tome', 'vision_tome'"),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_errors_offer_only_options_that_a_method_reads():
    with pytest.raises(ValueError, match=r"unknown option 'cls_tokn'; allowed: ") as caught:
        build(method="cls_attention", cls_tokn="image")
    assert not {"cls_token", "merge_scope"} & set(str(caught.value).split("allowed: ")[1].split(", "))


@torch.no_grad()
def test_cls_attention_keeps_what_the_texts_cls_attends(tiny_meter_checkpoint):
    model = MeterTokenDropForQuestionAnswering.from_pretrained(
        tiny_meter_checkpoint(), token_reduction={"method": "cls_attention", "layers": [0], "prune_ratio": 0.5}
    )
    inputs = tiny_meter_inputs("ragged")
    output = model(**inputs, output_attentions=True)
    row = output.attentions[0][1].mean(1)[:, 0]  # text to image, first query
    for number, tokens in enumerate(output.report.left[0].place):
        kept = [place - 12 for place in tokens.tolist() if place >= 12]
        best = 1 + row[number, 1:].topk(32).indices
        assert kept == sorted([0, *best.tolist()])


@torch.no_grad()
def test_what_the_image_layer_reads_is_the_text_before_the_pair(tiny_meter_checkpoint):
    reduction = {"method": "pumer", "layers": [0]}
    model = MeterTokenDropForQuestionAnswering.from_pretrained(tiny_meter_checkpoint(), token_reduction=reduction)
    output = model(**tiny_meter_inputs("whole"), output_attentions=True, output_hidden_states=True)
    assert [weights.shape[2:] for weights in output.attentions[0]] == [(12, 12), (12, 65), (39, 39), (39, 12)]
    assert [weights.shape[2:] for weights in output.attentions[1]] == [(10, 10), (10, 39), (39, 39), (39, 10)]
    assert [text.shape[1] for text, _ in output.hidden_states] == [12, 10, 10, 10, 10]

"""MACs of METER against the flop counter and against published figures."""

import pytest
import torch
from tiny_meter import tiny_meter_config
from torch.utils.flop_counter import FlopCounterMode

from lmms_tokendrop.benchmark.meter_accounting import meter_macs, planned_meter_macs
from lmms_tokendrop.modeling.modeling_meter import MeterConfig
from lmms_tokendrop.modeling.modeling_meter_tokendrop import MeterTokenDropConfig, MeterTokenDropModel

METER = MeterConfig()
PUMER = {"method": "pumer", "preset": "meter-vqav2"}


@pytest.mark.parametrize(
    ("reduction", "giga"),
    [
        ({}, 91.89),
        (PUMER, 64.58),
        ({**PUMER, "reference": "release"}, 64.58),
        ({"method": "pumer", "preset": "meter-snli-ve"}, 58.97),
        ({"method": "pumer", "preset": "meter-nlvr2"}, 65.39),
        ({"method": "smres", "image_size": 320}, 63.4),
        ({"method": "smres", "image_size": 224}, 32.4),
    ],
)
def test_macs_with_32_text_tokens_and_384_pixels(reduction, giga):
    assert planned_meter_macs(METER, reduction, text_tokens=32) / 1e9 == pytest.approx(giga, rel=0.01)


def test_merging_in_the_tower_costs_less_in_both_parts_alone_and_with_pumer():
    full, pumer = meter_macs(METER, {}, 32), meter_macs(METER, PUMER, 32)
    tower, both = meter_macs(METER, {"method": "vision_tome"}, 32), meter_macs(METER, {**PUMER, "vision_r": 24}, 32)
    assert both.text == tower.text == pumer.text == full.text
    assert both.vision == tower.vision < pumer.vision == full.vision
    assert both.cross_modal < pumer.cross_modal < full.cross_modal
    assert both.cross_modal < tower.cross_modal < full.cross_modal


@pytest.mark.parametrize("method", ["none", "random", "dynamicvit"])  # the others multiply matrices to decide
def test_they_are_half_of_what_the_flop_counter_sees(method):
    options = tiny_meter_config().to_dict()
    sizes = ("text_config", "vision_config", "hidden_size", "num_attention_heads", "intermediate_size")
    config = MeterTokenDropConfig(
        token_reduction={"method": method},
        attn_implementation="eager",
        num_hidden_layers=4,
        **{name: options[name] for name in sizes},
    )
    model = MeterTokenDropModel(config).eval()
    inputs = {"input_ids": torch.full((1, 12), 7), "pixel_values": torch.randn(1, 3, 32, 32)}
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(**inputs)
    poolers = 2 * config.hidden_size**2
    assert planned_meter_macs(config, {"method": method}, 12) == counter.get_total_flops() / 2 - poolers

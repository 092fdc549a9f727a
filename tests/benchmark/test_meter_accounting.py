"""MACs of METER against the flop counter and against published figures."""

from collections.abc import Callable

import pytest
import torch
from tiny_meter import tiny_meter_config
from torch.utils.flop_counter import FlopCounterMode

from lmms_tokendrop.benchmark.encoder_accounting import encoder_layer_macs
from lmms_tokendrop.benchmark.meter_accounting import cross_layer_macs, meter_macs, planned_meter_macs
from lmms_tokendrop.modeling.architectures.meter_layers import MeterCrossLayer
from lmms_tokendrop.modeling.architectures.modeling_meter import MeterConfig, MeterModel
from lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop import MeterTokenDropConfig, MeterTokenDropModel
from lmms_tokendrop.modeling.core.staged_tower import StagedCLIPLayer

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
        ({"method": "tome"}, 64.58),
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


def test_the_towers_bound_what_the_cross_modal_part_can_save_and_merging_in_clip_goes_further():
    full, pumer = meter_macs(METER, {}, 32), meter_macs(METER, PUMER, 32)
    assert full.total / (full.text + full.vision) == pytest.approx(1.71, abs=0.01)
    assert full.total / pumer.total == pytest.approx(1.42, abs=0.005)
    both = meter_macs(METER, {**PUMER, "vision_r": 24}, 32)
    assert full.total / both.total == pytest.approx(1.94, abs=0.005)
    assert sum(both.shares.values()) == pytest.approx(1)
    assert full.shares["cross_modal"] == pytest.approx(0.42, abs=0.005)


def counted(run: Callable[[], object]) -> float:
    """Half of the FLOPs that the counter sees."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_published_size_is_half_of_what_the_flop_counter_sees_on_the_meta_device(attention):
    config = MeterConfig(attn_implementation=attention)
    with torch.device("meta"):
        model = MeterModel(config)
        ids, pixels = torch.empty(1, 32, dtype=torch.long), torch.empty(1, 3, 384, 384)
        positions = torch.arange(32).expand(1, -1)
    macs, towers = meter_macs(config, {}, 32), []
    assert macs.text == counted(lambda: towers.append(model.text_model(ids, position_ids=positions).last_hidden_state))
    assert macs.vision == counted(lambda: towers.append(model.get_image_features(pixels)))

    def pairs():
        text, image = model.cross_modal_text_transform(towers[0]), model.cross_modal_image_transform(towers[1])
        for text_layer, image_layer in zip(model.cross_modal_text_layers, model.cross_modal_image_layers, strict=True):
            text, image = text_layer(text, image)[0], image_layer(image, text)[0]

    assert macs.cross_modal == counted(pairs)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_reduced_pair_and_a_merging_block_are_half_of_what_the_flop_counter_sees(attention):
    config = MeterConfig(attn_implementation=attention)
    with torch.device("meta"):
        text_layer, image_layer, block = (
            MeterCrossLayer(config),
            MeterCrossLayer(config),
            StagedCLIPLayer(config.vision_config),
        )
        text, image = torch.empty(1, 32, 768), torch.empty(1, 577, 768)

    def pair():
        *_, left, _ = text_layer(text, image, decide=lambda text, image, *_: (None, text[:, :26], image[:, :347]))
        image_layer(left, text)

    assert counted(pair) == cross_layer_macs(config, 32, 577, 26) + cross_layer_macs(config, 347, 32, 347)
    merging = counted(lambda: block(image, decide=lambda states, query, key: (None, states[:, :553])))
    assert merging == encoder_layer_macs(config.vision_config, 577, 553)

"""Plans of public sizes are the figures worked out by hand and published, and those of real runs."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoProcessor, CLIPVisionModel, LlamaConfig, LlamaModel
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration, cache_of, pocket_path
from lmms_tokendrop.evaluation.accounting import decode_macs, decoder_macs
from lmms_tokendrop.modeling.core.transformers_compat import cache_argument
from lmms_tokendrop.plan.planning import Limit, fitted, plan
from lmms_tokendrop.plan.plans import DECODE, PREFILL, Request
from lmms_tokendrop.plan.report import Report
from lmms_tokendrop.plan.targets import read_target, shipped

UNREDUCED = {"method": "none"}
POCKET = read_target(str(pocket_path("llava_next", "none")))


def visual(tokens: int) -> Request:
    """Visual tokens alone, the same in every layer."""
    return Request(visual_tokens=tokens, before=0, behind=0, new_tokens=0)


@pytest.mark.parametrize(
    ("tokens", "two_matrices", "three_matrices", "megabytes"),
    [
        (2880, 16.67, 20.83, 1509.9),
        (640, 3.33, 4.25, 335.5),
        (576, 2.99, 3.82, 302.0),
        (320, 1.64, 2.10, 167.8),
        (192, 0.98, 1.25, 100.7),
        (160, 0.81, 1.04, 83.9),
        (128, 0.65, 0.83, 67.1),
        (64, 0.32, 0.42, 33.6),
    ],
)
def test_visual_tokens_of_a_7b_model_cost_what_papers_state(tokens, two_matrices, three_matrices, megabytes):
    found = plan(read_target("llava-v1.6-vicuna-7b"), UNREDUCED, visual(tokens))
    assert found.published_macs / 1e12 == pytest.approx(two_matrices, abs=0.011)
    assert found.macs[PREFILL].full / 1e12 == pytest.approx(three_matrices, abs=0.011)
    assert round(found.kv_bytes / 1e6, 1) == round(found.visual_kv_bytes / 1e6, 1) == megabytes
    assert found.kv_bytes_per_token == 524_288


def test_fewer_heads_of_keys_and_values_hold_less():
    """Mistral has 8 of 32: 2 x 32 layers x 8 heads x 128 channels x 2 bytes."""
    found = plan(read_target("llava-v1.6-mistral-7b"), UNREDUCED, visual(320))
    assert found.kv_bytes_per_token == 131_072
    assert found.kv_bytes == 320 * 131_072


@pytest.mark.parametrize(
    ("target", "reduction", "giga"),
    [
        ("vilt-b", UNREDUCED, 15.95),
        ("vilt-b", {"method": "pumer"}, 8.70),
        ("vilt-b", {"method": "pumer", "preset": "vilt-snli-ve"}, 7.64),
        ("vilt-b", {"method": "pumer", "layers": [2, 3, 4]}, 7.38),
        ("vilt-b", {"method": "pumer", "layers": [7, 8, 9]}, 12.17),
        ("meter", UNREDUCED, 91.89),
        ("meter", {"method": "pumer", "preset": "meter-vqav2"}, 64.58),
        ("meter", {"method": "pumer", "preset": "meter-snli-ve"}, 58.97),
        ("meter", {"method": "smres", "image_size": 320}, 63.4),
    ],
)
def test_encoders_cost_what_is_published(target, reduction, giga):
    found = plan(read_target(target), reduction, Request())
    assert found.phases["whole"].full / 1e9 == pytest.approx(giga, rel=0.01)


def test_parts_of_meter_and_what_pumer_leaves_of_vilt():
    parts = plan(read_target("meter"), UNREDUCED, Request()).macs
    giga = {"text": 2.76, "vision": 51.23, "cross-modal": 37.90}
    assert {name: macs.full / 1e9 for name, macs in parts.items()} == pytest.approx(giga, rel=0.01)
    found = plan(read_target("vilt-b"), {"method": "pumer"}, Request())
    assert found.visual_tokens == (145,) * 3 + (87,) * 3 + (52,) * 3 + (31,) * 3
    assert found.text_tokens == (32,) * 3 + (26,) * 3 + (21,) * 3 + (17,) * 3
    assert [tuple(left.values()) for left in found.stages.values()] == [(26, 87), (21, 52), (17, 31)]


def half_of_flops(run) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


def test_tower_and_projector_are_half_of_what_the_flop_counter_sees_on_the_meta_device():
    target = read_target("llava-1.5-7b")
    config = target.config()
    with torch.device("meta"):
        tower, projector = CLIPVisionModel(config.vision_config), LlavaMultiModalProjector(config)
        pixels, features = torch.empty(1, 3, 336, 336), torch.empty(1, 576, 1024)
    found = plan(target, UNREDUCED, Request(new_tokens=0))
    assert found.macs["vision"].full == half_of_flops(lambda: tower(pixels))
    assert found.macs["projector"].full == half_of_flops(lambda: projector(features))


def test_a_generated_token_is_half_of_what_the_flop_counter_sees():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(**sizes, num_hidden_layers=3, vocab_size=16, attn_implementation="eager")
    model = LlamaModel(config)
    with torch.no_grad():
        cache = cache_of(model(torch.ones(1, 9, dtype=torch.long)))
        step = half_of_flops(lambda: model(torch.ones(1, 1, dtype=torch.long), **cache_argument(cache)))
    assert decode_macs(config, [10, 10, 10]) == step


@pytest.mark.parametrize("images", [((80, 80),), ((200, 60), (50, 50))], ids=["square", "two"])
@pytest.mark.parametrize(
    "reduction",
    [UNREDUCED, {"method": "fastv", "visual_tokens": 48}, {"method": "visionzip", "visual_tokens": 40}],
    ids=lambda reduction: reduction["method"],
)
def test_a_plan_is_what_the_real_model_then_does(reduction, images):
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(POCKET.name, token_reduction=reduction)
    processor = AutoProcessor.from_pretrained(POCKET.name)
    content = [{"type": "image"}] * len(images) + [{"type": "text", "text": "what colour is it"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=[Image.new("RGB", size) for size in images], text=[prompt], return_tensors="pt")
    with torch.no_grad():
        report = cache_of(model(**inputs)).report()
    text = inputs["input_ids"].shape[1] - report.full_visual_tokens[0]
    found = plan(POCKET, reduction, Request(images, behind=text - 1, before=1, new_tokens=0, dtype=model.dtype))
    assert found.visual_tokens == tuple(row[0] for row in report.visual_tokens_per_layer)
    assert found.average_release == report.average_visual_tokens_release[0]
    assert found.kv_bytes == report.kv_bytes
    received = [text + tokens for tokens in found.visual_tokens]
    macs = [decoder_macs(model.config.text_config, received, causal) for causal in (False, True)]
    assert [found.macs[PREFILL].full, found.macs[PREFILL].causal] == macs


@pytest.mark.parametrize(("image", "patches"), [((4000, 7), 19), ((7, 4000), 19), ((1, 1), 144), ((640, 480), 192)])
def test_of_a_picture_of_any_shape_vilt_gets_a_patch(image, patches):
    """A banner is at most 1,333 / 800 x 384 = 639 pixels long, 19 patches; others have a side of 384. CLS counts."""
    found = plan(read_target("vilt-b"), UNREDUCED, Request((image,)))
    assert found.visual_tokens[0] == patches + 1


def test_new_tokens_and_concurrent_requests_add_to_the_cache():
    one, several = (plan(POCKET, UNREDUCED, Request(new_tokens=new, concurrent=5)) for new in (0, 7))
    assert several.kv_bytes - one.kv_bytes == 7 * one.kv_bytes_per_token
    assert several.kv_bytes_of_all == 5 * several.kv_bytes
    assert DECODE not in one.macs
    decoder, (length, *_) = POCKET.config().text_config, one.cached
    layers = decoder.num_hidden_layers
    steps = (decode_macs(decoder, [length + step] * layers) for step in range(1, 8))
    assert several.macs[DECODE].full == sum(steps)


@pytest.mark.parametrize("reduction", [{"method": "cdpruner"}, {"method": "composed", "features": "cdpruner"}], ids=str)
def test_a_method_that_asks_a_checkpoint_is_planned_without_it(reduction):
    name = "clip" if reduction["method"] == "cdpruner" else "cdpruner.clip"
    found = plan(POCKET, {**reduction, name: "no/checkpoint", "visual_tokens": 48}, Request())
    assert found.visual_tokens == (48,) * 12
    assert "the text tower that would read it is not counted" in " ".join(found.assumed)


def test_what_the_data_decide_is_said():
    def assumed(reduction):
        return " ".join(plan(POCKET, reduction, Request()).assumed)

    assert "another picture has others" not in assumed({"method": "sparsevlm", "visual_tokens": 48})
    assert "another picture has others" in assumed({"method": "sparsevlm", "rank_ratio": 0.5})
    assert "narrow model" in assumed({"method": "random", "visual_tokens": 48})
    assert assumed(UNREDUCED) == ""
    long = plan(POCKET, UNREDUCED, Request(new_tokens=2048))
    assert long.assumed == ("Prompt and answer have more tokens than the 2048 positions that the model was made for.",)


@pytest.mark.parametrize(
    ("reduction", "option", "limit", "worse"),
    [
        ({"method": "visionzip"}, "visual_tokens", Limit("memory", 4_000_000), 1),
        ({"method": "fastv"}, "visual_tokens", Limit("speed_up", 2.5), 1),
        ({"method": "dynamicvit"}, "keep_ratio", Limit("speed_up", 1.5), 0.01),
        ({"method": "pumer"}, "prune_ratio", Limit("speed_up", 1.9), -0.01),
        ({"method": "tome"}, "r", Limit("speed_up", 1.5), -1),
    ],
    ids=lambda value: value["method"] if isinstance(value, dict) else "",
)
def test_the_budget_that_is_found_meets_the_limit_and_one_that_leaves_more_does_not(reduction, option, limit, worse):
    target = POCKET if option == "visual_tokens" else read_target("vilt-b")
    request = Request(concurrent=3)
    unreduced, steps = plan(target, UNREDUCED, request), []
    found = fitted(target, reduction, request, unreduced, limit, lambda total: steps.append(total))
    assert limit.met(found, unreduced)
    more = plan(target, {**reduction, option: found.given[option] + worse}, request)
    assert not limit.met(more, unreduced)
    assert len(steps) <= steps[0]


def test_every_shipped_configuration_is_read():
    assert set(shipped()) == {
        *("llava-1.5-7b", "llava-1.5-13b", "llava-v1.6-vicuna-7b", "llava-v1.6-vicuna-13b", "llava-v1.6-mistral-7b"),
        *("vilt-b", "meter"),
    }
    for name in shipped():
        assert read_target(name).config().token_reduction == UNREDUCED


@pytest.mark.parametrize("width", [80, 160])
def test_tables_fit_and_json_has_the_same_figures(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    unreduced = plan(POCKET, UNREDUCED, Request(concurrent=2))
    report = Report(
        "pocket", unreduced, plan(POCKET, {"method": "mustdrop", "visual_tokens": 48}, Request(concurrent=2))
    )
    report.show()
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    found = json.loads(report.to_json())
    assert found["reduced"]["given"] == {"method": "mustdrop", "visual_tokens": 48}
    for name, counts in found["reduced"]["stages"].items():
        assert f"{name} {counts['tokens']}" in " ".join(printed.split())
    speed_up = found["speed_ups"]["prefill"]["causal"]
    ours, whole = (found[which]["macs"]["prefill"]["causal"] for which in ("reduced", "unreduced"))
    assert speed_up == whole / ours
    assert f"{speed_up:.2f}" in printed

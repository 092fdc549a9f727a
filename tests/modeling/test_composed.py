"""Compositions: a method's own stages are the method, others' stages equal masking, one budget is the whole's."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
import torch
from cases import METHODS, REDUCING, greedy, largest_difference, reducer_of, stacked_logits
from masked_reference import masked_generation

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration, TokenReductionConfig
from lmms_tokendrop.catalogue import PARTS, Method, registry
from lmms_tokendrop.modeling.core.reducer import Host, Stage, TokenReducer
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.results.budget_names import PREFILL_ALONE, VISION_ALONE

LAYERS, PATCHES = 4, 96
"""Of the tiny model's decoder, and of `one_image` without its newlines."""

ALL_OF_MUSTDROP = {"vision": "mustdrop", "decoder": "mustdrop", "decode": "mustdrop"}
SHARED = ("visual_tokens", "keep_ratio", "counter", "newlines")


def checked(**options):
    return TokenReductionConfig.from_dict(options)


def composed(places: dict[str, str], options: dict) -> dict:
    """The options of one method as those of a composition of its stages."""
    method = options["method"]
    named = {name if name in SHARED else f"{method}.{name}": value for name, value in options.items()}
    del named[f"{method}.method"]
    return {**places, **named}


def run(workshop, reduction: dict, prompt: str = "one_image", steps: int = 3):
    output = greedy(workshop.reduced(reduction), workshop.inputs(prompt), steps)
    return output, cache_of(output).report()


def assert_same(first, second) -> None:
    (one, report), (other, expected) = first, second
    assert torch.equal(stacked_logits(one), stacked_logits(other))
    assert (report.kept, report.kv_lengths, report.visual_tokens_per_layer) == (
        expected.kept,
        expected.kv_lengths,
        expected.visual_tokens_per_layer,
    )


@pytest.mark.parametrize("name", REDUCING)
def test_a_composition_of_a_methods_own_stages_is_the_method(workshop, name):
    places = {stage.place: METHODS[name]["method"] for stage in reducer_of(METHODS[name]).stages()}
    reduction = composed(places, METHODS[name])
    assert_same(run(workshop, reduction, "ragged_batch"), run(workshop, METHODS[name], "ragged_batch"))


def test_a_composition_that_keeps_everything_is_the_stock_model(workshop):
    places = {"features": "random", "decoder": "fastv", "decode": "mustdrop"}
    output, _ = run(workshop, {**places, "keep_ratio": 1.0, "newlines": "keep"}, "ragged_batch")
    stock = greedy(workshop.stock(), workshop.inputs("ragged_batch"), 3)
    assert torch.equal(stacked_logits(output), stacked_logits(stock))


def test_mustdrops_own_stages_are_mustdrop_when_its_cache_shrinks_while_it_writes(workshop):
    options = {"method": "mustdrop", "visual_tokens": 48, "counter": "release", "decode_interval": 1}
    assert_same(run(workshop, composed(ALL_OF_MUSTDROP, options), steps=5), run(workshop, options, steps=5))


@pytest.mark.parametrize(
    ("places", "alone"),
    [
        ({"vision": "mustdrop"}, VISION_ALONE),
        ({"decoder": "mustdrop", "decode": "mustdrop", "mustdrop.key_ratio": 0.0}, PREFILL_ALONE),
    ],
)
def test_single_stages_of_mustdrop_are_its_settings_that_leave_the_others_idle(workshop, places, alone):
    reduction = {"method": "mustdrop", "keep_ratio": 0.45, **alone}
    (_, report), (_, expected) = run(workshop, {**places, "keep_ratio": 0.45}), run(workshop, reduction)
    assert report.visual_tokens_per_layer == expected.visual_tokens_per_layer
    assert report.kept["before layer 0"] == expected.kept["before layer 0"]


def test_the_decode_stage_of_mustdrop_alone_shrinks_the_cache_only(workshop):
    reduction = {"decode": "mustdrop", "mustdrop.decode_interval": 1, "mustdrop.decode_drop_ratio": 0.5}
    output, report = run(workshop, reduction, steps=3)
    full, whole = run(workshop, {"method": "none"}, steps=3)
    assert torch.equal(stacked_logits(output)[:, 0], stacked_logits(full)[:, 0])
    # two generated tokens were read: of 102 visual entries 51 leave, then 26 of 51
    assert report.kv_lengths == [length - 51 - 26 for length in whole.kv_lengths]


@pytest.mark.parametrize("prompt", ["one_image", "ragged_batch"])
@pytest.mark.parametrize("K", [1, 3])
def test_fastv_with_the_cache_of_mustdrop_equals_a_masked_reference(workshop, K, prompt):
    reduction = {"decoder": "fastv", "fastv.K": K, "decode": "mustdrop", "mustdrop.compact_first_layers": True}
    output, report = run(workshop, reduction, prompt, steps=4)
    expected = masked_generation(workshop.stock(), workshop.inputs(prompt), output, "sdpa")
    assert largest_difference(stacked_logits(output), expected) <= 1e-5
    assert len(set(report.kv_lengths)) == 1


@pytest.mark.parametrize("counter", ["input", "release"])
@pytest.mark.parametrize(
    "places",
    [
        {"features": "random", "decoder": "fastv"},
        {"features": "random", "random.visual_tokens": 80, "decoder": "fastv"},
        {"vision": "vision_tome", "vision_tome.vision_r": 3, "decoder": "fastv"},
        {"vision": "mustdrop", "decoder": "fastv"},
        {"vision": "visionzip", "decoder": "fastv"},
        {"vision": "visionzip", "decoder": "sparsevlm"},
        {"vision": "visionzip", "decoder": "dart", "decode": "mustdrop"},
        {"features": "mustdrop", "decoder": "pyramiddrop"},
        {"vision": "scope", "decoder": "pyramiddrop"},
        {"vision": "scope", "decoder": "mustdrop", "mustdrop.key_ratio": 0.6},
        {"features": "starpro_like", "decoder": "fastv"},
        {"vision": "visionzip", "visionzip.visual_tokens": 70, "decoder": "mustdrop", "decode": "mustdrop"},
        {"vision": "vision_tome", "vision_tome.vision_r": 3, "decoder": "mustdrop", "decode": "mustdrop"},
    ],
    ids=lambda places: " ".join(name for place, name in places.items() if "." not in place),
)
def test_the_average_of_the_whole_is_the_budget(workshop, places, counter):
    """To half a token in each layer behind the last drop."""
    _, report = run(workshop, {**places, "visual_tokens": 50, "counter": counter})
    averages = report.average_visual_tokens if counter == "input" else report.average_visual_tokens_release
    assert averages == pytest.approx([50], abs=0.5)
    assert len(set(map(tuple, report.visual_tokens_per_layer))) > 1


@pytest.mark.parametrize("counter", ["input", "release"])
@pytest.mark.parametrize("scope", ["image", "tile"])
@pytest.mark.parametrize(("tokens", "key_ratio"), [(3, 0.08), (20, 0.9), (24, 1.0), (9, 0.3)])
def test_small_budgets_have_room_for_key_tokens(workshop, tokens, key_ratio, scope, counter):
    options = {"visual_tokens": tokens, "mustdrop.key_ratio": key_ratio, "scope": scope, "counter": counter}
    _, report = run(workshop, {"vision": "visionzip", "decoder": "mustdrop", **options})
    averages = report.average_visual_tokens if counter == "input" else report.average_visual_tokens_release
    groups = 3 if scope == "tile" else 1
    assert averages == pytest.approx([tokens * groups], abs=0.5 * groups)


def test_a_pool_that_nothing_follows_is_the_budget(workshop):
    _, report = run(workshop, {"features": "starpro_like", "visual_tokens": 20})
    assert report.visual_tokens_per_layer == [[20]] * LAYERS


def test_a_shared_budget_falls_geometrically_over_all_drops(workshop):
    """Of 102 tokens and newlines two layers receive 102 r, two 102 r**2, 192 together: r = .591."""
    _, report = run(workshop, {"features": "random", "decoder": "fastv", "keep_ratio": 0.5})
    assert report.visual_tokens_per_layer == [[60], [60], [36], [36]]


def test_a_budget_of_its_own_is_left_to_those_behind(workshop):
    reduction = {"features": "random", "random.keep_ratio": 0.75, "decoder": "fastv", "keep_ratio": 0.5}
    _, report = run(workshop, reduction)
    assert report.visual_tokens_per_layer == [[72], [72], [24], [24]]


def test_key_tokens_stay_whoever_drops(workshop):
    reduction = {"features": "mustdrop", "mustdrop.key_ratio": 0.2, "decoder": "fastv", "fastv.K": 1, "keep_ratio": 0.5}
    _, report = run(workshop, reduction)
    # a fifth of the patches of each tile, which are 36, 30 and 30, rounded up; (4 * 48 - 96) / 3 stay behind one layer
    assert report.counts["after layer 0"] == [{"tokens": 32, "key_tokens": 8 + 6 + 6, "newlines": 0, "others": 12}]


class Carries(TokenReducer):
    """Carries what its second stage reads."""

    builds_on: ClassVar = {"decoder": "vision"}

    def stages(self):
        return (Stage("vision", 0), Stage("decoder", 1))


@pytest.fixture
def carries(monkeypatch):
    """A method of that kind in the catalogue."""
    entry = Method(name="carries", title="a test", reducers=dict.fromkeys(PARTS, f"{__name__}:Carries"))
    methods = {entry.name: entry for entry in registry.methods()}
    monkeypatch.setattr(registry, "_methods", {**methods, "carries": entry})


def test_a_stage_that_builds_on_another_brings_it_or_says_so(carries):
    assert checked(decoder="carries").vision == "carries"
    assert checked(vision="vision_tome", decoder="mustdrop").features == "mustdrop"
    with pytest.raises(
        ValueError, match="decoder='carries' builds on its own stage at 'vision', which is 'mustdrop''s"
    ):
        checked(vision="mustdrop", decoder="carries")
    with pytest.raises(ValueError, match=r"decoder='mustdrop' .* at 'features', .* allowed: features='mustdrop'"):
        checked(features="random", decoder="mustdrop")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "mustdrop", "visual_tokens": 9}, "visual_tokens: none of mustdrop counts tokens where it acts"),
        (
            {"features": "mustdrop", "mustdrop.visual_tokens": 9, "decoder": "fastv"},
            r"mustdrop\.visual_tokens: mustdrop counts no tokens at features; allowed: without it",
        ),
        (
            {"vision": "scope", "decoder": "fastv", "newlines": "keep"},
            "newlines: scope has no such option; allowed: 'drop'",
        ),
    ],
)
def test_what_would_not_be_heeded_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        checked(**options)


@pytest.mark.parametrize(
    ("place", "method", "there"),
    [("vision", "random", "'features'"), ("decode", "fastv", "'decoder'"), ("decoder", "vision_tome", "'vision'")],
)
def test_a_method_without_a_stage_at_its_place_is_refused(place, method, there):
    options = checked(**{place: method})
    with pytest.raises(ValueError, match=f"{place}='{method}'; {method} has stages at {there}"):
        TokenReductionConfig.build(options, Host(LAYERS, 16, 42, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vision": "other"}, r"vision='other'; allowed: 'mustdrop', "),
        ({"vision": "composed"}, r"vision='composed'; allowed: "),
        ({"decode": "none"}, r"decode='none'; allowed: "),
        ({"decoder": 3}, r"decoder=3; allowed: "),
        ({"visoin": "mustdrop"}, r"unknown option 'visoin' \(did you mean 'vision'"),
        ({"decoder": "fastv", "random.keep_ratio": 0.5}, r"random.keep_ratio: 'random' has no place; .* of fastv"),
        ({"decoder": "fastv", "fastv.scope": "tile"}, r"fastv.scope: methods don't differ in it; allowed: scope"),
        ({"decoder": "fastv", "fastv.method": "random"}, r"fastv.method: methods don't differ in it"),
        ({"decoder": "fastv", "fastv.key_ratio": 0.1}, r"method 'fastv' has no option 'key_ratio'"),
        ({"decoder": "fastv", "fastv.R": 2}, r"R=2; allowed"),
        ({"decoder": "fastv", "seed": 3}, r"none of fastv has an option 'seed'"),
        ({"decode": "mustdrop", "keep_ratio": 0.5}, r"keep_ratio: none of mustdrop counts tokens where it acts"),
        ({"decoder": "fastv", "fastv.R": 0.5, "keep_ratio": 0.5}, r"keep_ratio, fastv.R exclude each other"),
        (
            {"features": "random", "decoder": "fastv", "fastv.R": 0.5},
            r"fastv.R is no budget for random; allowed: random.visual_tokens, random.keep_ratio, or one of the whole",
        ),
        (
            {"features": "random", "random.keep_ratio": 0.2, "decoder": "fastv", "keep_ratio": 0.5},
            r"random.keep_ratio=0.2 contradicts keep_ratio=0.5, .* allowed: the same option, and no less",
        ),
        (
            {"features": "random", "random.visual_tokens": 60, "decoder": "fastv", "keep_ratio": 0.5},
            r"random.visual_tokens=60 contradicts keep_ratio=0.5",
        ),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        checked(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "composed"},
        {"vision": "mustdrop", "decoder": "mustdrop", "decode": "mustdrop", "mustdrop.preset": "textvqa-64"},
        {"decoder": "mustdrop", "mustdrop.preset": "64", "mustdrop.layers": [2, 6]},
        {"features": "random", "random.keep_ratio": 0.75, "decoder": "fastv", "keep_ratio": 0.5, "seed": 3},
        {"vision": "vision_tome", "decoder": "fastv", "fastv.R": 0.25},
        {"decode": "mustdrop", "mustdrop.decode_interval": 2},
    ],
)
def test_options_round_trip_through_json(options):
    saved = checked(**options).to_dict()
    assert saved["method"] == "composed"
    assert checked(**json.loads(json.dumps(saved))).to_dict() == saved


def test_given_methods_replace_saved_ones_and_given_options_stand_beside_them():
    saved = checked(decoder="fastv", keep_ratio=0.7, **{"fastv.K": 3}).to_dict()
    beside = TokenReductionConfig.merged(saved, {"visual_tokens": 60, "fastv.query": "text"})
    options = TokenReductionConfig.from_dict(beside)
    assert (options.visual_tokens, options.keep_ratio) == (60, None)
    assert (options.parts["fastv"].options.K, options.parts["fastv"].options.query) == (3, "text")
    replaced = TokenReductionConfig.from_dict(TokenReductionConfig.merged(saved, {"features": "random"}))
    assert (replaced.decoder, replaced.features, replaced.methods) == (None, "random", ("composed", "random"))


def test_a_saved_model_is_composed_again(workshop, tmp_path):
    reduction = {"features": "random", "decoder": "fastv", "keep_ratio": 0.5, "seed": 3}
    workshop.reduced(reduction).save_pretrained(tmp_path)
    loaded = LlavaNextTokenDropForConditionalGeneration.from_pretrained(tmp_path)
    output, (expected, report) = greedy(loaded, workshop.inputs("one_image"), 3), run(workshop, reduction)
    assert cache_of(output).report().kept == report.kept
    assert largest_difference(stacked_logits(output), stacked_logits(expected)) <= 1e-6

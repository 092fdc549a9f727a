"""Options: what is allowed, what excludes what, presets, round trips."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import fields

import pytest

from lmms_tokendrop import FusionReductionConfig, TokenReductionConfig
from lmms_tokendrop.catalogue import architectures
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.modeling.methods.mustdrop_options import PRESETS

CONFIGS = {entry.name: reductions(entry.name) for entry in architectures()}
REDUCERS = TokenReductionConfig.reducers


def reject(options: dict, *names: str) -> str:
    """The message of the error that options raise; it holds the given words."""
    with pytest.raises(ValueError, match="token_reduction") as caught:
        TokenReductionConfig.from_dict(options)
    message = str(caught.value)
    assert all(name in message for name in names), message
    return message


def test_nothing_is_the_unreduced_model():
    assert TokenReductionConfig.from_dict(None).method == "none"
    assert TokenReductionConfig.from_dict({}).to_dict() == {"method": "none"}


def test_the_registry_names_the_methods():
    assert {"none", "mustdrop", "random"} <= set(REDUCERS)


def test_an_unknown_key_names_what_is_allowed_and_what_is_near():
    message = reject({"method": "mustdrop", "merge_treshold": 0.9}, "merge_treshold", "did you mean 'merge_threshold'")
    assert "keep_ratio" in message


def test_an_unknown_method_names_the_methods():
    reject({"method": "fastest"}, "method='fastest'", *REDUCERS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("visual_tokens", 0),
        ("visual_tokens", -3),
        ("visual_tokens", "320"),
        ("visual_tokens", True),
        ("visual_tokens", float("nan")),
        ("visual_tokens", float("inf")),
        ("keep_ratio", 0),
        ("keep_ratio", 1.5),
        ("keep_ratio", "half"),
        ("key_ratio", -0.1),
        ("key_ratio", 1.1),
        ("merge_threshold", -2),
        ("merge_threshold", None),
        ("global_threshold", -0.001),
        ("individual_threshold", "low"),
        ("scope", "batch"),
        ("counter", "output"),
        ("newlines", True),
        ("compact_first_layers", 1),
        ("compact_first_layers", "False"),
        ("decode_interval", 0),
        ("decode_interval", 1.5),
        ("decode_drop_ratio", 2),
        ("decode_floor", 0),
        ("position_mode", "relative"),
        ("merge_count", "all"),
        ("merge_order", "random"),
        ("packing", "dense"),
        ("preset", "1000"),
        ("layers", []),
        ("layers", 2),
        ("layers", [2, 2]),
        ("layers", [6, 2]),
        ("layers", [-1, 2]),
        ("layers", [1.0]),
        ("layers", "2+6"),
    ],
)
def test_a_value_out_of_range_or_of_a_wrong_type_is_named(key, value):
    assert "allowed" in reject({"method": "mustdrop", key: value}, key, repr(value))


def numbers() -> Iterator[tuple[str, str, str]]:
    """Architecture, method and name of every option that is a number, once per architecture."""
    for architecture, config in CONFIGS.items():
        for name, entry in config.entries().items():
            methods = [method for method in config.reducers if name in config.options_of(method).entries()]
            if entry.type in (int, float, int | None, float | None):
                yield architecture, methods[0], name


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -(10**400)])
@pytest.mark.parametrize(("architecture", "method", "name"), list(numbers()))
def test_numbers_are_finite(architecture, method, name, value):
    with pytest.raises(ValueError, match=rf"^token_reduction: {name}={value!r}; allowed: a (whole )?number from"):
        reductions(architecture).from_dict({"method": method, name: value})


@pytest.mark.parametrize(
    "options",
    [
        {"visual_tokens": 10, "keep_ratio": 0.1},
        {"visual_tokens": 10, "preset": "64"},
        {"keep_ratio": 0.1, "global_threshold": 0.1},
        {"visual_tokens": 10, "individual_threshold": 0.1},
        {"preset": "textvqa-64", "global_threshold": 0.1},
    ],
)
def test_budgets_thresholds_and_presets_exclude_each_other(options):
    reject({"method": "mustdrop", **options}, *options)


def test_the_batch_minimum_needs_thresholds():
    reject({"method": "mustdrop", "keep_ratio": 0.1, "merge_count": "batch_minimum"}, "batch_minimum")
    reject({"method": "mustdrop", "merge_count": "batch_minimum"}, "batch_minimum")
    reject({"method": "mustdrop", "preset": "320", "merge_count": "batch_minimum"}, "batch_minimum")
    TokenReductionConfig.from_dict({"method": "mustdrop", "preset": "vizwiz-64", "merge_count": "batch_minimum"})


def test_the_similarity_order_needs_flat_packing():
    reject({"method": "mustdrop", "merge_order": "similarity"}, "similarity", "flat")
    TokenReductionConfig.from_dict({"method": "mustdrop", "merge_order": "similarity", "packing": "flat"})


@pytest.mark.parametrize("method", REDUCERS)
def test_an_option_that_the_method_does_not_read_is_an_error(method):
    values = {"layers": [1], "merge_threshold": 0.5, "keep_ratio": 0.5, "seed": 3, "decode_interval": 4}
    parts = {"features": "random"} if method == "composed" else dict.fromkeys(REDUCERS[method].Options.required, "x")
    for key, value in values.items():
        if key in REDUCERS[method].Options.entries():
            TokenReductionConfig.from_dict({"method": method, **parts, key: value})
        else:
            reject({"method": method, key: value}, key, method)


def test_a_value_that_no_method_takes_is_still_an_option_of_another_method():
    reject({"method": "random", "key_ratio": 7}, "method 'random' has no option 'key_ratio'")


@pytest.mark.parametrize(("key", "value"), [("newlines", "row"), ("newlines", "keep"), ("packing", "pyramid")])
def test_options_about_newlines_are_refused_where_images_have_none(key, value):
    with pytest.raises(ValueError, match=rf"{key}='{value}' has no meaning here.*can only be.*options of .*keep_ratio"):
        reductions("llava").from_dict({"method": "mustdrop", key: value})


@pytest.mark.parametrize("saved", [{"newlines": "drop", "packing": "spatial"}, {"packing": "flat"}, {"format": 1}])
def test_where_images_have_no_newlines_what_says_the_same_is_taken(saved):
    llava = reductions("llava")
    assert not llava.entries().keys() & {"newlines", "packing"}
    options = llava.from_dict({"method": "mustdrop", "merge_order": "similarity", **saved}).to_dict()
    assert llava.from_dict(options).to_dict() == options


def test_every_option_has_a_help_text():
    for config in CONFIGS.values():
        for reducer in config.reducers.values():
            assert all(entry.metadata["help"].endswith((".", ")")) for entry in fields(reducer.Options))


@pytest.mark.parametrize("method", ["mustdrop", "random"])
def test_without_a_budget_a_ninth_is_kept(method):
    assert TokenReductionConfig.from_dict({"method": method}).keep_ratio == pytest.approx(1 / 9)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_resolve_and_name_their_counter(preset):
    config = TokenReductionConfig.from_dict({"method": "mustdrop", "preset": preset})
    assert "counter" in PRESETS[preset]
    assert config.counter == PRESETS[preset]["counter"]
    assert config.preset is None
    for key, value in PRESETS[preset].items():
        assert getattr(config, key) == value


def test_presets_are_the_published_numbers():
    thresholds = {
        name: (preset["global_threshold"], preset["individual_threshold"])
        for name, preset in PRESETS.items()
        if "global_threshold" in preset
    }
    assert thresholds == {
        "textvqa-192": (0.001, 0.001),
        "textvqa-128": (0.0012, 0.001),
        "textvqa-64": (0.011, 0.01),
        "vizwiz-64": (0.005, 0.001),
    }
    budgets = {preset["visual_tokens"] for preset in PRESETS.values() if "visual_tokens" in preset}
    assert budgets == {192, 128, 64, 640, 320, 160}


def test_a_preset_may_be_written_as_a_number():
    assert TokenReductionConfig.from_dict({"method": "mustdrop", "preset": 320}).visual_tokens == 320


@pytest.mark.parametrize(
    "options",
    [
        {"method": "none"},
        {"method": "mustdrop", "visual_tokens": 320},
        {"method": "mustdrop", "preset": "textvqa-64"},
        {"method": "mustdrop", "preset": "160", "layers": (2, 6)},
        {"method": "mustdrop", "global_threshold": 0.0, "individual_threshold": 0.0, "merge_threshold": 1.1},
        {"method": "random", "keep_ratio": 0.5, "seed": 3, "newlines": "keep"},
    ],
)
def test_options_round_trip_through_json(options):
    config = TokenReductionConfig.from_dict(options)
    again = TokenReductionConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config


def test_defaults_may_be_written_out_for_any_method():
    assert TokenReductionConfig.from_dict({"method": "none", "seed": 0, "layers": None}).method == "none"


@pytest.mark.parametrize(
    ("config", "saved", "given", "expected"),
    [
        (FusionReductionConfig, {"layers": [2, 4]}, {"score": "first_head"}, {"layers": [2, 4], "score": "first_head"}),
        (FusionReductionConfig, {"layers": [2, 4]}, {"layers": [3]}, {"layers": [3]}),
        (FusionReductionConfig, {"score": "keys"}, {"preset": "vilt-vqav2"}, {"preset": "vilt-vqav2"}),
        (TokenReductionConfig, {"keep_ratio": 0.5}, {}, {"keep_ratio": 0.5}),
        (
            TokenReductionConfig,
            {"keep_ratio": 0.5, "key_ratio": 0.1},
            {"visual_tokens": 9},
            {"key_ratio": 0.1, "visual_tokens": 9},
        ),
        (TokenReductionConfig, {"global_threshold": 0.1}, {"keep_ratio": 0.5}, {"keep_ratio": 0.5}),
        (
            TokenReductionConfig,
            {"global_threshold": 0.1},
            {"individual_threshold": 0.2},
            {"global_threshold": 0.1, "individual_threshold": 0.2},
        ),
    ],
)
def test_given_options_stand_beside_saved_ones(config, saved, given, expected):
    method = {"method": "pumer" if config is FusionReductionConfig else "mustdrop"}
    merged = config.merged({**method, **saved}, given)
    assert merged == {**method, **expected}
    config.from_dict(merged)

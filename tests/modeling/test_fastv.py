"""FastV: its scores by hand, what K and R mean, and a budget in place of R."""

from __future__ import annotations

import pytest
import torch
from test_reducer_mustdrop import context

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.modeling.core.reducer import Host, Stage
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.methods.fastv import PRESETS, FastV

LAYERS = 4


def fastv(num_layers: int = LAYERS, **options) -> FastV:
    return FastV(TokenReductionConfig.from_dict({"method": "fastv", **options}), Host(num_layers, 16, 42, 4))


def by_hand(reducer: FastV):
    """The context of MustDrop's formulas, whose attention gives the rows that are asked for."""
    found = context(reducer.options)
    every = found.providers["attention_rows"](None)
    found.providers["attention_rows"] = lambda rows: every[:, :, rows[0, 5:]]
    return found


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("last", [0.10, 0.20, 0.02, 0.08]),
        ("text", [0.20, 0.15, 0.06, 0.065]),  # the other text token gives .30 .10 .10 .05
    ],
)
def test_scores_are_head_mean_attention(query, expected):
    reducer = fastv(query=query)
    (scores,) = reducer.score(Stage("decoder", 1), by_hand(reducer))
    torch.testing.assert_close(scores[1:5], torch.tensor(expected))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"R": 0.5}, [1, 2]),
        ({"R": 0.5, "query": "text"}, [1, 2]),
        ({"R": 0.25}, [1, 2, 4]),
        ({"R": 0.3}, [1, 2, 4]),
        ({"R": 0.75}, [2]),
        ({"R": 0.75, "query": "text"}, [1]),
        ({"R": 1.0}, [2]),
        ({"R": 0.0}, [1, 2, 3, 4]),
        # one layer of four receives 4: an average of 1.75 leaves one for the other three, 2.5 leaves two
        ({"K": 1, "visual_tokens": 1.75}, [2]),
        ({"K": 1, "visual_tokens": 2.5}, [1, 2]),
    ],
)
def test_the_best_stay(options, kept):
    reducer = fastv(**options)
    stays = reducer.keep(reducer.stages()[0], by_hand(reducer)).stays[0]
    assert stays.nonzero().flatten().tolist() == [0, *kept, 5, 6]


@pytest.mark.parametrize(("newlines", "kept"), [("drop", 48), ("row", 51), ("keep", 51)])
@pytest.mark.parametrize("K", [1, 2, 3])
def test_the_first_K_layers_receive_every_token(workshop, K, newlines, kept):
    """The image has 96 patches and 6 newlines."""
    model = workshop.reduced({"method": "fastv", "K": K, "newlines": newlines})
    report = cache_of(model(**workshop.inputs("one_image"), use_cache=True)).report()
    assert report.visual_tokens_per_layer == [[102]] * K + [[kept]] * (LAYERS - K)
    assert len(report.kept[f"after layer {K - 1}"][0]) == kept


@pytest.mark.parametrize("counter", ["input", "release"])
@pytest.mark.parametrize("prompt", ["one_image", "two_images", "ragged_batch"])
@pytest.mark.parametrize("K", [1, 2])
def test_a_budget_is_met_to_the_rounding_of_one_count(workshop, K, prompt, counter):
    """A count of whole tokens in the layers behind the drop can miss an average by half of their share."""
    images = 2 if prompt == "two_images" else 1
    model = workshop.reduced({"method": "fastv", "K": K, "visual_tokens": 95, "counter": counter, "newlines": "keep"})
    report = cache_of(model(**workshop.inputs(prompt), use_cache=True)).report()
    reduced_layers = LAYERS - K + (counter == "release")
    averages = report.average_visual_tokens if counter == "input" else report.average_visual_tokens_release
    for average in averages:
        assert abs(average - 95 * images) <= images * reduced_layers / LAYERS / 2


def test_a_budget_below_that_of_the_first_layers_names_the_smallest_one(workshop):
    model, inputs = workshop.reduced({"method": "fastv", "K": 2, "keep_ratio": 0.3}), workshop.inputs("one_image")
    full = int((inputs["input_ids"] == 4).sum())
    with pytest.raises(ValueError, match=rf"keep_ratio.*smallest reachable average is {(2 * full + 2) / 4:.2f}"):
        model(**inputs)


def test_a_prompt_that_ends_in_an_image_is_refused(workshop):
    with pytest.raises(ValueError, match=r"fastv scores images by the text .* must not end in an image"):
        workshop.reduced("fastv")(**workshop.inputs([("USER: <image>", [(60, 40)])]))


@pytest.mark.parametrize("K", [4, 5])
def test_a_drop_behind_the_last_layer_is_refused(K):
    with pytest.raises(ValueError, match=rf"K={K}: .*allowed: 1 to 3"):
        fastv(K=K)


@pytest.mark.parametrize(
    "options",
    [
        {"R": 0.5, "keep_ratio": 0.5},
        {"R": 0.5, "visual_tokens": 64},
        {"R": 0.5, "preset": "k2-r50"},
        {"visual_tokens": 64, "preset": "k2-r50"},
        {"K": 3, "preset": "k2-r50"},
    ],
)
def test_options_that_exclude_each_other_are_named(options):
    names = ", ".join(sorted(options))
    with pytest.raises(ValueError, match="exclude each other") as caught:
        TokenReductionConfig.from_dict({"method": "fastv", **options})
    assert all(name in str(caught.value).partition(" exclude")[0] for name in options), names


@pytest.mark.parametrize("options", [{"K": 0}, {"K": 1.5}, {"R": 1.1}, {"R": -0.1}, {"query": "all"}, {"preset": "64"}])
def test_values_out_of_range_are_named(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"{name}={value!r}; allowed"):
        TokenReductionConfig.from_dict({"method": "fastv", **options})


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_stand_for_K_and_R(preset):
    layer, share = preset.removeprefix("k").split("-r")
    assert {"K": int(layer), "R": int(share) / 100}.items() <= fastv(preset=preset).options.to_dict().items()


def test_the_default_is_the_papers_and_a_given_budget_replaces_its_share():
    saved = fastv().options.to_dict()
    assert (saved["K"], saved["R"]) == (2, 0.5)
    merged = TokenReductionConfig.merged({**saved, "K": 3}, {"keep_ratio": 0.8})
    options = TokenReductionConfig.from_dict(merged)
    assert (options.K, options.R, options.keep_ratio, options.counter) == (3, None, 0.8, "input")
    assert TokenReductionConfig.from_dict(saved).to_dict() == saved


def test_presets_belong_to_their_method():
    with pytest.raises(ValueError, match="preset='64'; allowed: 'k2-r25'"):
        TokenReductionConfig.from_dict({"method": "fastv", "preset": "64"})
    with pytest.raises(ValueError, match="method 'random' has no option 'preset'"):
        TokenReductionConfig.from_dict({"method": "random", "preset": "64"})

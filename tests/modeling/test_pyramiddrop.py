"""PyramidDrop: the paper's counts, who stays, and a budget in place of the ratio."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from cases import greedy
from test_reducer_mustdrop import context

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.modeling.core.budget import Budget
from lmms_tokendrop.modeling.core.reducer import Host, Stage
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.methods.pyramiddrop import PyramidDrop


def pyramiddrop(num_layers: int = 4, **options) -> PyramidDrop:
    return PyramidDrop(
        TokenReductionConfig.from_dict({"method": "pyramiddrop", **options}), Host(num_layers, 16, 42, 4)
    )


def received(reducer: PyramidDrop, tokens: int) -> list[int]:
    """Visual tokens of one image that each layer receives."""
    counts, current = [], torch.tensor([tokens])
    stages = {stage.layer: stage for stage in reducer.stages()}
    for layer in range(reducer.host.num_layers):
        counts.append(int(current))
        if layer in stages:
            known = SimpleNamespace(available=torch.tensor([tokens]), current=current, least=lambda: torch.tensor([1]))
            current = reducer.count(stages[layer], known)
    return counts


@pytest.mark.parametrize(
    ("tokens", "counts"), [(576, [576, 288, 144, 72]), (2880, [2880, 1440, 720, 360]), (7, [7, 3, 1, 1])]
)
def test_the_papers_pyramid(tokens, counts):
    """8 of 32 layers each; 576 tokens are 270 on average."""
    expected = [count for count in counts for _ in range(8)]
    assert received(pyramiddrop(32), tokens) == received(pyramiddrop(32, preset="paper"), tokens) == expected
    assert sum(received(pyramiddrop(32), 576)) == 270 * 32


def test_layers_follow_the_depth_and_ratios_multiply():
    assert [stage.layer for stage in pyramiddrop(40).stages()] == [9, 19, 29]
    assert [stage.layer for stage in pyramiddrop(4).stages()] == [0, 1, 2]
    assert received(pyramiddrop(4, stage_ratio=0.6, layers=[0, 2]), 50) == [50, 30, 30, 18]
    assert received(pyramiddrop(4, stage_ratio=0.0, layers=[1]), 50) == [50, 50, 1, 1]


def test_the_last_token_decides_by_head_mean_attention_in_the_next_layer():
    """Head means of the two text tokens: .30 .10 .10 .05 and, of the last, .10 .20 .02 .08."""
    reducer = pyramiddrop(layers=[0])
    found = context(reducer.options)
    every = found.providers.pop("attention_rows")(None)
    found.providers["next_attention_rows"] = lambda rows: every[:, :, rows[0, 5:]]
    keep = reducer.keep(Stage("decoder", 0, "after_block"), found)
    assert keep.stays[0].nonzero().flatten().tolist() == [0, 1, 2, 5, 6]


@torch.no_grad()
@pytest.mark.parametrize("prompt", ["one_image", "ragged_batch"])
def test_what_stays_is_what_the_unreduced_next_layer_attends(workshop, prompt):
    inputs = workshop.inputs(prompt)
    attention = workshop.stock(attention="eager")(**inputs, output_attentions=True).attentions[2].mean(1)[:, -1]
    model = workshop.reduced({"method": "pyramiddrop", "layers": [1], "stage_ratio": 0.3, "newlines": "keep"})
    cache = cache_of(model(**inputs, use_cache=True))
    image, newline = cache.tokens.visual, cache.tokens.newline
    for row, kept in enumerate(cache.records[0].index):
        patches = (image & ~newline)[row].nonzero().flatten()
        number = int(0.3 * int(image[row].sum())) - int((image & newline)[row].sum())
        best = patches[attention[row, patches].topk(number).indices].sort().values
        assert [place for place in kept.tolist() if place in set(patches.tolist())] == best.tolist()


@pytest.mark.parametrize("prompt", ["one_image", "two_images", "ragged_batch"])
def test_a_budget_is_met(workshop, prompt):
    model = workshop.reduced({"method": "pyramiddrop", "visual_tokens": 60})
    report = cache_of(greedy(model, workshop.inputs(prompt), 1)).report()
    images = 2 if prompt == "two_images" else 1
    assert all(abs(average - 60 * images) <= 0.5 * images for average in report.average_visual_tokens)


def test_a_budget_of_a_quarter_or_less_names_the_smallest_one():
    """Of 32 layers the first 8 receive all of 576 tokens, the others at least one."""
    budget, layers = Budget(None, 0.25, "image", "input"), tuple(stage.layer for stage in pyramiddrop(32).stages())
    full, one = torch.tensor([576]), torch.tensor([1])
    with pytest.raises(ValueError, match=r"keep_ratio: an average of 144\.00 .* smallest reachable average is 144\.75"):
        budget.next_count(full, [full] * 8, full, one, layers, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage_ratio": 0.5, "keep_ratio": 0.5}, "keep_ratio, stage_ratio exclude each other"),
        ({"preset": "paper", "visual_tokens": 64}, "preset exclude each other"),
        ({"stage_ratio": 1.5}, "stage_ratio=1.5; allowed: a number from 0 to 1"),
        ({"preset": "64"}, "preset='64'; allowed: 'paper'"),
    ],
)
def test_options_that_say_nothing_sensible_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        pyramiddrop(**options)


def test_a_given_budget_replaces_the_papers_ratio():
    saved = pyramiddrop().options.to_dict()
    assert saved["stage_ratio"] == 0.5
    options = TokenReductionConfig.from_dict(TokenReductionConfig.merged(saved, {"visual_tokens": 64}))
    assert (options.stage_ratio, options.visual_tokens, options.counter) == (None, 64, "input")
    assert TokenReductionConfig.from_dict(saved).to_dict() == saved


@torch.no_grad()
def test_newlines_that_leave_with_the_first_drop_are_no_room_for_others(workshop):
    model = workshop.reduced({"method": "pyramiddrop", "keep_ratio": 1.0})
    report = cache_of(greedy(model, workshop.inputs("one_image"), 1)).report()
    assert len(report.kept["after layer 0"][0]) == 96
    assert all(column < 6 for *_, column in report.kept["after layer 0"][0])

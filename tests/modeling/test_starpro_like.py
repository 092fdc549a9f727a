"""A pool of pivots and what the text chooses from it: counts, nesting, and the pool against loops."""

from __future__ import annotations

import pytest
import torch

from lmms_tokendrop.modeling.core.drop_layers import drop_layers
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.methods.starpro_like import LAYERS


@torch.no_grad()
def report_of(workshop, prompt: str = "one_image", **options):
    model = workshop.reduced({"method": "starpro_like", **options})
    return cache_of(model(**workshop.inputs(prompt), use_cache=True)).report()


@pytest.mark.parametrize(("pool", "entering"), [(1.0, 20), (1.5, 30), (2.0, 40)])
def test_a_pool_enters_and_the_average_over_layers_is_the_budget(workshop, pool, entering):
    """Of 96 patches; of four layers the first has the pool alone."""
    report = report_of(workshop, visual_tokens=20, pool=pool)
    counts = [count for [count] in report.visual_tokens_per_layer]
    assert counts[0] == entering
    assert counts == sorted(counts, reverse=True)
    assert report.average_visual_tokens == pytest.approx([20], abs=0.25)


def test_a_pool_that_the_budget_does_not_pay_for_is_named(workshop):
    """All 96 in one of four layers, and one token in the others."""
    with pytest.raises(ValueError, match=r"visual_tokens: .*smallest reachable average is 24\.75"):
        report_of(workshop, visual_tokens=20, pool=9.0)


def test_what_stays_is_nested(workshop):
    kept = report_of(workshop, "two_images", keep_ratio=0.2).kept
    stages = [set(row) for [row] in kept.values()]
    assert len(stages) == 4
    assert stages[0] > stages[1] > stages[2] > stages[3]


@torch.no_grad()
def test_the_pool_are_the_pivots_of_each_image(workshop):
    """Two images; the longest rest after projecting the earlier ones out, in double precision."""
    inputs = workshop.inputs("two_images")
    plain = workshop.reduced("none").model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    expected = set()
    for number, (tokens, rows) in enumerate(zip(plain.visual_tokens, plain.pooler_output, strict=True)):
        patches = ~tokens.newline
        rest = rows[patches].double()
        places = torch.stack([tokens.tile, tokens.row, tokens.column], dim=-1)[patches].tolist()
        for _ in range(14):
            pivot = int(rest.norm(dim=-1).argmax())
            expected.add((number, *places[pivot]))
            direction = rest[pivot] / rest[pivot].norm()
            rest = rest - (rest @ direction).unsqueeze(-1) * direction
    kept = report_of(workshop, "two_images", visual_tokens=7).kept["before layer 0"]
    assert set(kept[0]) == expected


@pytest.mark.parametrize(("depth", "layers"), [(32, (7, 15, 23)), (40, (9, 19, 29)), (4, (0, 1, 2))])
def test_layers_are_scaled(depth, layers):
    assert drop_layers(None, depth, LAYERS) == layers

"""A budget before the decoder: how it is shared among tiles, by hand, and that every layer receives it."""

from __future__ import annotations

import pytest
import torch
from cases import METHODS
from tile_cases import tiles_of

from lmms_tokendrop.modeling.core.budget import Budget
from lmms_tokendrop.modeling.core.feature_selection import FeatureReducer
from lmms_tokendrop.modeling.core.tile_counts import shared, tile_counts
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.methods.available import reductions

ON_FEATURES = tuple(
    name
    for name, options in METHODS.items()
    if issubclass(reductions("llava_next").reducers[options["method"]], FeatureReducer)
)


def of_sizes(sizes: list[int], **owners):
    """Tiles of so many patches."""
    return tiles_of(torch.arange(max(sizes)) < torch.tensor(sizes).unsqueeze(-1), **owners)


def budget(tokens=None, ratio=None, scope="image") -> Budget:
    return Budget(tokens, ratio, scope, "input")


@pytest.mark.parametrize(("tokens", "each"), [(640, 128), (320, 64), (160, 32)])
def test_the_papers_budgets_are_a_fifth_for_each_tile(tokens, each):
    assert tile_counts(budget(tokens), of_sizes([576] * 5)).tolist() == [each] * 5


@pytest.mark.parametrize(
    ("sizes", "wanted", "counts"),
    [
        ([576, 432, 432, 432, 432], budget(320), [80, 60, 60, 60, 60]),
        ([4, 4, 4], budget(10), [4, 3, 3]),  # 3 1/3 each
        ([4, 2, 4], budget(5), [2, 1, 2]),
        ([6, 1, 3], budget(5), [3, 1, 1]),  # 3, 1/2, 3/2: the first of equal rests
        ([4, 0], budget(3), [3, 0]),
        ([4, 4], budget(100), [4, 4]),
        ([4, 4], budget(ratio=0.5), [2, 2]),
        ([4, 4], budget(2.6), [2, 1]),
        ([4, 3], budget(2, scope="tile"), [2, 2]),
        ([4, 2], budget(ratio=0.5, scope="tile"), [2, 1]),
    ],
)
def test_shares_of_an_image_by_hand(sizes, wanted, counts):
    assert tile_counts(wanted, of_sizes(sizes)).tolist() == counts


def test_each_image_of_a_request_gets_a_token_first():
    """Two requests: of three tiles in two images, and of one tile."""
    tiles = of_sizes([9, 9, 3, 6], image=[0, 0, 1, 2], request=[0, 0, 0, 1])
    assert tile_counts(budget(4, scope="request"), tiles).tolist() == [2, 1, 1, 4]
    assert tile_counts(budget(2, scope="request"), tiles).tolist() == [1, 0, 1, 2]
    with pytest.raises(ValueError, match=r"visual_tokens: .* 1\.00 .* per request .* smallest .* 2\.00"):
        tile_counts(budget(1, scope="request"), tiles)


def test_later_drops_leave_more_for_the_first_layers():
    """Two layers of four receive 100 r, two 100 r**2, 200 together: r = .618; the tiles are of 60 and 40."""
    assert tile_counts(budget(50), of_sizes([60, 40]), (-1, 1)).tolist() == [37, 25]


def test_later_drops_leave_what_is_protected():
    """Two layers receive 100 r, two 90 r and a token more for each of the two tiles, 200 together: r = .516."""
    assert tile_counts(budget(50), of_sizes([60, 0, 40]), (-1, 1), protected_share=0.9).tolist() == [31, 0, 21]


@pytest.mark.parametrize("share", [0.08, 0.9, 1.0])
def test_no_more_is_protected_than_is_left(share):
    """Three tokens in three tiles, of which each protects one, or what there is."""
    assert sum(tile_counts(budget(3), of_sizes([60, 20, 20]), (-1, 1), share).tolist()) == 3


def test_a_share_below_one_token_names_it():
    with pytest.raises(ValueError, match=r"keep_ratio: an average of 0\.08 .* smallest reachable average is 1\.00"):
        tile_counts(budget(ratio=0.01), of_sizes([4, 4]))


def test_whole_numbers_add_up_and_none_is_above_its_weight():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(0, 30, (200,), generator=generator)
    groups = torch.randint(0, 20, (200,), generator=generator)
    sums = torch.zeros(20, dtype=torch.long).index_add_(0, groups, weights)
    totals = (sums * torch.rand(20, generator=generator)).long()
    shares = shared(totals, weights, groups)
    assert torch.equal(torch.zeros(20, dtype=torch.long).index_add_(0, groups, shares), totals)
    assert ((shares >= 0) & (shares <= weights)).all()
    assert ((shares - totals[groups] * weights / sums[groups].clamp_min(1)).abs() < 1).all()


@pytest.mark.parametrize("prompt", ["one_image", "odd_aspect", "two_images", "ragged_batch"])
@pytest.mark.parametrize("method", ON_FEATURES)
@torch.no_grad()
def test_every_layer_receives_the_budget_and_no_newline(workshop, method, prompt):
    model = workshop.reduced({"method": METHODS[method]["method"], "visual_tokens": 17})
    inputs = workshop.inputs(prompt)
    report = cache_of(model(**inputs, use_cache=True)).report()
    images = 2 if prompt == "two_images" else 1
    assert report.visual_tokens_per_layer == [[17 * images] * len(inputs["input_ids"])] * 4
    assert all(column < 6 for rows in report.kept.values() for row in rows for _, _, _, column in row)


@pytest.mark.parametrize("method", ON_FEATURES)
@torch.no_grad()
def test_a_budget_above_the_image_keeps_its_patches_as_they_are(workshop, method):
    inputs = workshop.inputs("one_image")
    model, plain = workshop.reduced({"method": METHODS[method]["method"], "keep_ratio": 1.0}), workshop.reduced("none")
    ours, theirs = (
        each.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"], return_dict=True)
        for each in (model, plain)
    )
    [tokens] = ours.visual_tokens
    assert tokens.present.all()
    assert torch.allclose(ours.pooler_output[0], theirs.pooler_output[0], atol=1e-6)

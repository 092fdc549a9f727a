"""Pooling by area: means by hand, against torch, and the true count."""

from __future__ import annotations

import pytest
import torch

from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.core.visual_tokens import VisualTokens
from lmms_tokendrop.modeling.methods.area_pooling import Rectangles


def grid(height: int, width: int, top: int = 0, left: int = 0) -> VisualTokens:
    """A batch of one: a text token, and a tile."""
    tokens = VisualTokens.text(1, 1 + height * width, torch.device("cpu"))
    cells = torch.cartesian_prod(torch.arange(height) + top, torch.arange(width) + left).view(-1, 2)
    text = torch.full((1, 1), -1)
    tokens.image = tokens.tile = torch.cat([text, torch.zeros(1, len(cells), dtype=torch.long)], dim=1)
    tokens.row, tokens.column = (torch.cat([text, part[None]], dim=1) for part in cells.unbind(-1))
    return tokens


def pooled(tokens: VisualTokens, height: int, width: int):
    return Rectangles.of(tokens).cells(tokens, torch.tensor([height]), torch.tensor([width]))


def test_halves_of_patches_by_hand():
    """Three columns become two: each has one patch and half of the middle one; slots are the outer patches."""
    _, slots, weights = pooled(grid(1, 3, top=2, left=1), 1, 2)
    torch.testing.assert_close(weights, torch.tensor([[0, 2, 1, 0], [0, 0, 1, 2]], dtype=torch.float64) / 3)
    assert slots.tolist() == [1, 3]


@pytest.mark.parametrize(("side", "small"), [(6, 3), (6, 2), (24, 8), (24, 6), (5, 5), (4, 1)])
def test_whole_blocks_are_what_torch_pools(side, small):
    features = torch.randn(3, side, side, dtype=torch.float64)
    _, slots, weights = pooled(grid(side, side), small, small)
    expected = torch.nn.functional.adaptive_avg_pool2d(features, small).flatten(1).T
    torch.testing.assert_close(weights[:, 1:] @ features.flatten(1).T, expected)
    assert len(set(slots.tolist())) == small**2


@pytest.mark.parametrize(("side", "small"), [(24, 7), (24, 11), (6, 4), (6, 5)])
def test_other_grids_share_every_patch_out(side, small):
    """Each cell has the same area, and all of a patch is in some cell."""
    _, slots, weights = pooled(grid(side, side), small, small)
    torch.testing.assert_close(weights.sum(0)[1:], torch.full((side**2,), (small / side) ** 2, dtype=torch.float64))
    assert len(set(slots.tolist())) == small**2


@pytest.mark.parametrize(
    ("shape", "tokens", "found"),
    [
        ((24, 24), 64, (8, 8)),
        ((24, 24), 63, (7, 7)),
        ((24, 24), 576, (24, 24)),
        ((24, 24), 2, (1, 1)),
        ((24, 24), 0, (0, 0)),
        ((18, 24), 48, (6, 8)),
        ((2, 24), 5, (1, 5)),  # 0.6 x 7.7: one row, of what is left
    ],
)
def test_the_largest_grid_of_the_shape(shape, tokens, found):
    height, width = Rectangles.of(grid(*shape)).grids(torch.tensor([tokens]))
    assert (int(height), int(width)) == found


@pytest.mark.parametrize("prompt", ["one_image", "odd_aspect", "two_images", "ragged_batch"])
@pytest.mark.parametrize("scope", ["image", "tile", "request"])
@torch.no_grad()
def test_the_report_has_the_true_count_and_features_are_pooled(workshop, prompt, scope):
    inputs = workshop.inputs(prompt)
    model = workshop.reduced({"method": "area_pooling", "keep_ratio": 0.3, "scope": scope})
    seen = {}
    decoder = model.model.language_model
    hook = decoder.layers[0].register_forward_pre_hook(lambda module, given: seen.update(states=given[0]))
    report = cache_of(model(**inputs, use_cache=True)).report()
    hook.remove()
    plain = workshop.reduced("none").model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    numbers = [(row, image) for row, found in enumerate(report.kept["before layer 0"]) for image in images_of(found)]
    assert len(numbers) == len(plain.visual_tokens)
    for (row, image), tokens, features in zip(numbers, plain.visual_tokens, plain.pooler_output, strict=True):
        kept = [place for place in report.kept["before layer 0"][row] if place[0] == image]
        patches = ~tokens.newline
        assert 0 < len(kept) <= round(0.3 * int(patches.sum())) or scope != "image"
        for tile in {place[1] for place in kept}:
            here = patches & (tokens.tile == tile)
            height, width = (int(part[here].max() - part[here].min()) + 1 for part in (tokens.row, tokens.column))
            cells = [place for place in kept if place[1] == tile]
            rows, columns = (len({place[axis] for place in cells}) for axis in (2, 3))
            assert len(cells) == rows * columns
            area = features[here].T.unflatten(-1, (height, width))
            if height % rows == 0 and width % columns == 0:
                expected = torch.nn.functional.adaptive_avg_pool2d(area, (rows, columns)).flatten(1).T
                apart = (seen["states"][row].unsqueeze(0) - expected.unsqueeze(1)).abs().amax(-1)
                assert (apart.amin(-1) <= 1e-5).all()
    averages = [len(found) for found in report.kept["before layer 0"]]
    assert report.average_visual_tokens == averages


def images_of(kept) -> list[int]:
    return sorted({image for image, *_ in kept})

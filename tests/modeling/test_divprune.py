"""DivPrune: which tokens stay, against loops over the features of a whole image."""

from __future__ import annotations

import pytest
import torch

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.modeling.core.transformers_compat import cache_of


def by_loops(features: torch.Tensor, count: int) -> list[int]:
    """Places of what stays: first the token with the farthest nearest other, then the farthest from all chosen."""
    distance = 1 - torch.cosine_similarity(features.unsqueeze(0), features.unsqueeze(1), dim=-1)
    every, chosen = set(range(len(features))), []
    while len(chosen) < count:
        near = {place: chosen or every - {place} for place in every.difference(chosen)}
        chosen.append(max(sorted(near), key=lambda place: min(float(distance[place, other]) for other in near[place])))
    return chosen


CASES = [("two_images", "image"), ("two_images", "request"), ("one_image", "tile")]


@pytest.mark.parametrize(("prompt", "scope"), CASES)
@torch.no_grad()
def test_the_most_diverse_of_a_group_stay(workshop, prompt, scope):
    inputs = workshop.inputs(prompt)
    plain = workshop.reduced("none").model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    groups: dict = {}
    for number, (tokens, rows) in enumerate(zip(plain.visual_tokens, plain.pooler_output, strict=True)):
        places = torch.stack([tokens.tile, tokens.row, tokens.column], dim=-1)[~tokens.newline].tolist()
        for place, features in zip(places, rows[~tokens.newline], strict=True):
            key = {"image": number, "request": 0, "tile": (number, place[0])}[scope]
            groups.setdefault(key, []).append(((number, *place), features))
    expected = set()
    for members in groups.values():
        chosen = by_loops(torch.stack([features for _, features in members]), 7)
        expected |= {members[place][0] for place in chosen}
    model = workshop.reduced({"method": "divprune", "visual_tokens": 7, "scope": scope})
    [kept] = cache_of(model(**inputs, use_cache=True)).report().kept["before layer 0"]
    assert set(kept) == expected


def test_the_papers_ratio_leaves_56_of_576():
    options = TokenReductionConfig.from_dict({"method": "divprune", "preset": "r098"})
    assert options.budget().target(torch.tensor([576])).round().tolist() == [56]

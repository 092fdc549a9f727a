"""Counts of MustDrop at the papers' budgets, from the rule's formula worked out apart from the product."""

from __future__ import annotations

import pytest

from lmms_tokendrop.benchmark.planned_counts import PlannedCounts, planned_counts

GOLDEN = [
    (32, 640, "input", PlannedCounts(0, 2880, 235, (1214, 512, 235, 235))),
    (32, 640, "release", PlannedCounts(0, 2880, 235, (1477, 757, 389, 235))),
    (32, 320, "input", PlannedCounts(121, 1912, 155, (157, 155, 155, 155))),
    (32, 320, "release", PlannedCounts(73, 2296, 187, (197, 187, 187, 187))),
    (32, 160, "input", PlannedCounts(242, 944, 78, (85, 78, 78, 78))),
    (32, 160, "release", PlannedCounts(217, 1144, 93, (104, 93, 93, 93))),
    (40, 640, "input", PlannedCounts(0, 2880, 235, (1380, 661, 317, 235))),
    (40, 640, "release", PlannedCounts(0, 2880, 235, (1554, 839, 452, 244))),
    (40, 320, "input", PlannedCounts(93, 2136, 172, (178, 172, 172, 172))),
    (40, 320, "release", PlannedCounts(46, 2512, 204, (209, 204, 204, 204))),
    (40, 160, "input", PlannedCounts(228, 1056, 87, (90, 87, 87, 87))),
    (40, 160, "release", PlannedCounts(203, 1256, 102, (104, 102, 102, 102))),
]
"""A square image, five tiles of 576; windows merge in turn over the tiles."""


@pytest.mark.parametrize(("layers", "tokens", "counter", "expected"), GOLDEN)
def test_counts_of_a_square_image(layers, tokens, counter, expected):
    assert planned_counts({"visual_tokens": tokens, "counter": counter}, layers) == expected


@pytest.mark.parametrize(
    ("similar", "expected"),
    [
        (60, PlannedCounts(0, 2400, 195, (1310, 715, 390, 213))),
        (300, PlannedCounts(0, 640, 55, (640, 640, 640, 640))),  # 280 of them merge
    ],
)
def test_similar_windows_merge_while_the_tokens_stay_at_the_budget(similar, expected):
    assert planned_counts({"visual_tokens": 640}, 32, similar=similar) == expected


def test_counts_of_a_landscape_image():
    expected = PlannedCounts(50, 1904, 156, (157, 156, 156, 156))
    assert planned_counts({"visual_tokens": 320}, 32, (24, 18, 18, 18, 18)) == expected


def test_merging_tile_by_tile_leaves_other_key_tokens():
    planned = planned_counts({"visual_tokens": 320}, 32, in_turn=False)
    assert (planned.forced_merges, planned.key_tokens) == (122, 156)


@pytest.mark.parametrize(
    ("layers", "counter", "smallest"),
    [(32, "input", "57.19"), (32, "release", "48.12"), (40, "input", "51.75"), (40, "release", "44.50")],
)
def test_what_can_t_be_reached_names_the_smallest_average(layers, counter, smallest):
    with pytest.raises(ValueError, match=rf"smallest reachable average is {smallest}"):
        planned_counts({"visual_tokens": 40, "counter": counter}, layers)

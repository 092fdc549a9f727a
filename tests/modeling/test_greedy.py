"""Greedy choices by hand, and against loops."""

from __future__ import annotations

import pytest
import torch

from lmms_tokendrop.modeling.ops.greedy import coverage_first, farthest_first, pivoted_qr


def cosines(vectors: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    return unit @ unit.transpose(1, 2)


CALLS = {
    "farthest": lambda vectors, valid, counts: farthest_first(cosines(vectors), valid, counts),
    "coverage": lambda vectors, valid, counts: coverage_first(cosines(vectors), valid.float(), valid, counts),
    "pivots": pivoted_qr,
}


def order(rank: torch.Tensor) -> list[list[int]]:
    """Entries of each row in the order in which they were picked."""
    return [[int(row.tolist().index(number)) for number in range(int((row < len(row)).sum()))] for row in rank]


def every(length: int) -> torch.Tensor:
    return torch.ones(1, length, dtype=torch.bool)


def test_farthest_first_on_a_line():
    """20 is farthest from its next; then 0 is 20 away, 6 is 6, 4 is 2, and 1 is 1."""
    points = torch.tensor([[0.0, 1, 4, 6, 20]])
    similarity = -(points.unsqueeze(1) - points.unsqueeze(2)).abs()
    assert order(farthest_first(similarity, every(5), torch.tensor([5]))) == [[4, 0, 3, 2, 1]]
    assert order(farthest_first(similarity, every(5), torch.tensor([2]))) == [[4, 0]]


def test_what_is_no_entry_is_near_to_nothing():
    """Without 19, 20 is farthest from its next again."""
    points = torch.tensor([[0.0, 1, 4, 6, 20, 19]])
    similarity = -(points.unsqueeze(1) - points.unsqueeze(2)).abs()
    valid = torch.tensor([[True] * 5 + [False]])
    assert order(farthest_first(similarity, valid, torch.tensor([2]))) == [[4, 0]]


def test_an_outlier_comes_first():
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.01], [1, 0.02], [0, 1], [1, 0.03]]), dim=-1)
    found = order(farthest_first((vectors @ vectors.T).unsqueeze(0), every(5), torch.tensor([2])))
    assert found == [[3, 0]]


COVERING = torch.tensor([[[1.0, 0.9, 0.5, 0], [0.9, 1, 0.2, 0], [0.5, 0.2, 1, 0.3], [0, 0, 0.3, 1]]])


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        # sums 2.4 2.1 2.0 1.3; then gains - .1 .8 1.0; then - 0.1 0.5 -
        ([1.0, 1, 1, 1], [0, 3, 2, 1]),
        # 2.4 2.1 2.0 2.6; then 2.1 1.9 1.4; then .1 .5
        ([1.0, 1, 1, 2], [3, 0, 2, 1]),
        # 2.64 2.1 4.0 1.3; then 1.32 1.2 - .7; then - .1 - .7
        ([1.1, 1, 2, 1], [2, 0, 3, 1]),
    ],
)
def test_coverage_by_hand(weight, expected):
    found = coverage_first(COVERING, torch.tensor([weight]), every(4), torch.tensor([4]))
    assert order(found) == [expected]


def test_what_is_against_the_rest_covers_nothing_of_it():
    similarity = torch.tensor([[[1.0, -1, 0], [-1, 1, 0.5], [0, 0.5, 1]]])
    assert order(coverage_first(similarity, torch.ones(1, 3), every(3), torch.tensor([2]))) == [[1, 0]]


def test_pivots_are_the_longest_rests():
    """Rests by explicit projection."""
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(2, 12, 7, generator=generator, dtype=torch.float64)
    found = order(pivoted_qr(vectors, every(12).expand(2, -1), torch.tensor([6, 4])))
    for row, picks, count in zip(vectors, found, (6, 4), strict=True):
        rest, expected = row.clone(), []
        for _ in range(count):
            expected.append(int(rest.norm(dim=-1).argmax()))
            direction = rest[expected[-1]] / rest[expected[-1]].norm()
            rest = rest - (rest @ direction).unsqueeze(-1) * direction
        assert picks == expected


def test_pivots_by_hand():
    """(3, 0) is longest; of (2, 1) is left (0, 1), of (0, 2) all; what depends on these comes by place."""
    vectors = torch.tensor([[[2.0, 1], [3, 0], [0, 2], [1, 1]]])
    assert order(pivoted_qr(vectors, every(4), torch.tensor([4]))) == [[1, 2, 0, 3]]


def test_next_to_nothing_follows_by_place():
    """Of squares up to 1e6 those below 1 count as nothing; where the long vectors are no entries, they count."""
    vectors = torch.diag(torch.tensor([1000.0, 0.5, 0.9, 500.0])).unsqueeze(0)
    assert order(pivoted_qr(vectors, every(4), torch.tensor([4]))) == [[0, 3, 1, 2]]
    valid = torch.tensor([[False, True, True, False]])
    assert order(pivoted_qr(vectors, valid, torch.tensor([4]))) == [[2, 1]]


def test_behind_as_many_pivots_as_channels_the_rest_follows_by_place():
    """Of 400 vectors of 200 channels, 200 span all; what rounding leaves of the others decides nothing."""
    vectors = torch.randn(1, 400, 200, generator=torch.Generator().manual_seed(5)) * torch.logspace(0, -2.5, 200)
    [picks] = order(pivoted_qr(vectors, every(400), torch.tensor([300])))
    assert picks[200:] == [place for place in range(400) if place not in picks[:200]][:100]


@pytest.mark.parametrize("name", CALLS)
def test_rows_of_a_batch_are_chosen_alone(name):
    """Of 9, 6 and 0 entries, 4, all and none."""
    generator = torch.Generator().manual_seed(1)
    vectors, sizes, counts = torch.randn(3, 9, 4, generator=generator), [9, 6, 0], [4, 8, 0]
    valid = torch.arange(9) < torch.tensor(sizes).unsqueeze(-1)
    together = order(CALLS[name](vectors, valid, torch.tensor(counts)))
    alone = [
        order(CALLS[name](row[None, :size], every(size), torch.tensor([count])))[0] if size else []
        for row, size, count in zip(vectors, sizes, counts, strict=True)
    ]
    assert together == alone
    assert [len(picks) for picks in together] == [4, 6, 0]

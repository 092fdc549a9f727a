"""What PuMer loses, worked out by hand."""

import pytest

from lmms_tokendrop.results.pocket_encoders import PUMER, TRAINED_ON, loss_rows, seeded, type_rows


def row(accuracy, **by_type):
    return {
        "accuracy": accuracy,
        "by_type": {kind: {"right": right, "questions": 10} for kind, right in by_type.items()},
    }


@pytest.fixture
def measured():
    pairs = {0: (row(0.85, order=5, ground=10), row(0.84, order=4, ground=10))}
    pairs[1] = (row(0.86, order=6, ground=10), row(0.84, order=3, ground=10))
    pairs[2] = (row(0.87, order=7, ground=10), row(0.84, order=5, ground=9))
    rows = {
        seeded(label, seed): found
        for seed, pair in pairs.items()
        for label, found in zip((TRAINED_ON, PUMER), pair, strict=True)
    }
    return {"rows": {**rows, "ToMe": row(0.8, order=2, ground=10)}}


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_mean_loss_has_the_error_of_its_seeds(measured):
    assert cells(loss_rows(measured)) == [
        ["0", "85.0", "84.0", "-1.00"],
        ["1", "86.0", "84.0", "-2.00"],
        ["2", "87.0", "84.0", "-3.00"],
        ["mean", "86.0", "84.0", "-2.00 ± 0.58"],  # 1 / sqrt(3)
    ]


def test_without_all_seeds_there_is_no_mean(measured):
    del measured["rows"][seeded(PUMER, 1)]
    assert cells(loss_rows(measured))[1:] == [
        ["1", "86.0", "not measured", "not measured"],
        ["2", "87.0", "84.0", "-3.00"],
        ["mean", "not measured", "not measured", "not measured"],
    ]


def test_types_are_means_over_the_seeds_of_both_and_the_largest_loss_comes_first(measured):
    table = type_rows(measured)
    assert table.splitlines()[0] == (
        "| type of question | questions | full, trained on, 3 seeds | PuMer, 3 seeds | ToMe | PuMer's difference |"
    )
    assert cells(table) == [
        ["order", "10", "60.0", "40.0", "20.0", "-20.0 ± 21.9"],  # sqrt(2 * 0.24 / 10)
        ["ground", "10", "100.0", "96.7", "100.0", "-3.3 ± 5.7"],
    ]
    del measured["rows"][seeded(TRAINED_ON, 0)]
    assert cells(type_rows(measured))[0][2:4] == ["65.0", "40.0"]


def test_nothing_that_can_be_paired_is_not_measured():
    assert type_rows({"rows": {PUMER: row(0.8, order=1)}}) == "not measured"
    assert type_rows({}) == "not measured"

"""Provenance of tokens: placing, grouping, lines."""

from __future__ import annotations

import pytest
import torch

from lmms_tokendrop.modeling.core.visual_tokens import VisualTokens


def image(tiles: list[int], lines: list[int], newlines: list[bool]) -> VisualTokens:
    """Tokens of one image, with rows numbered in order."""
    size = len(tiles)
    empty = torch.zeros(size, dtype=torch.bool)
    return VisualTokens(
        image=torch.full((size,), 9),
        tile=torch.tensor(tiles),
        row=torch.arange(size),
        column=torch.arange(size),
        line=torch.tensor(lines),
        newline=torch.tensor(newlines),
        present=~empty,
        carry={"score": torch.arange(size).float()},
    )


FIRST = image([0, 1, 2, 2], [-1, 0, 0, 0], [False, False, False, True])
SECOND = image([0, 1, 1], [-1, 0, 0], [False, False, True])


def placed(*rows: list[int], images=(FIRST, SECOND)) -> VisualTokens:
    return VisualTokens.place(list(images), torch.tensor(rows, dtype=torch.bool))


def test_images_fill_placeholders_in_order_and_are_numbered_per_sequence():
    tokens = placed([0, 1, 1, 1, 1, 0, 1, 1, 1])
    assert tokens.image.tolist() == [[-1, 0, 0, 0, 0, -1, 1, 1, 1]]
    assert tokens.tile.tolist() == [[-1, 0, 1, 2, 2, -1, 0, 1, 1]]
    assert tokens.visual.sum().item() == 7


def test_each_sequence_numbers_its_images_from_zero():
    tokens = placed([0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0])
    assert tokens.image.tolist() == [[-1, -1, 0, 0, 0, 0], [-1, 0, 0, 0, -1, -1]]


def test_placeholders_that_do_not_match_are_an_error():
    with pytest.raises(ValueError, match="do not match"):
        placed([0, 1, 1, 1, 1, 0, 1, 1, 0])


def test_an_image_across_two_sequences_is_an_error():
    with pytest.raises(ValueError, match="do not fill"):
        placed([0, 0, 1, 1, 1], [1, 1, 1, 1, 0])


@pytest.mark.parametrize(
    ("scope", "groups"),
    [
        ("request", [[-1, 0, 0, 0, 0, -1, 0, 0, 0]]),
        ("image", [[-1, 0, 0, 0, 0, -1, 1, 1, 1]]),
        ("tile", [[-1, 0, 1, 2, 2, -1, 3, 4, 4]]),
    ],
)
def test_groups_are_tiles_images_or_requests(scope, groups):
    numbers, count = placed([0, 1, 1, 1, 1, 0, 1, 1, 1]).groups(scope)
    assert numbers.tolist() == groups
    assert count == max(groups[0]) + 1


def test_lines_are_unique_over_images_and_leave_the_base_view_out():
    lines = placed([0, 1, 1, 1, 1, 0, 1, 1, 1]).lines("image")
    assert lines.tolist() == [[-1, -1, 0, 0, 0, -1, -1, 1, 1]]


def test_with_tiles_as_scope_a_line_is_what_lies_in_the_tile_that_the_newline_ends():
    lines = placed([0, 1, 1, 1, 1, 0, 1, 1, 1]).lines("tile")
    assert lines.tolist() == [[-1, -1, -1, 0, 0, -1, -1, 1, 1]]


def test_tokens_whose_newline_has_left_depend_on_none():
    tokens = placed([0, 1, 1, 1, 1, 0, 1, 1, 1])
    without = tokens.select(torch.tensor([[0, 1, 2, 3, 6, 7, 8]]), torch.ones(1, 7, dtype=torch.bool))
    lines = without.lines("image")[0]
    assert lines[:5].tolist() == [-1] * 5
    assert lines[5] == lines[6] >= 0


def test_selected_padding_becomes_text_where_an_image_comes_first():
    tokens = placed([1, 1, 1, 1, 0, 1, 1, 1])
    tokens.groups("image")
    picked = tokens.select(torch.tensor([[0, 1, 2]]), torch.tensor([[False, True, True]]))
    assert picked.image.tolist() == [[-1, 0, 0]]
    assert picked.groups("image")[0].tolist() == [[-1, 0, 0]]


def test_appending_joins_along_the_sequence():
    tokens = placed([1, 1, 1, 1, 1, 1, 1])
    assert tokens.append(VisualTokens.text(1, 2, torch.device("cpu"))).visual.tolist() == [[True] * 7 + [False] * 2]

"""A picture, its alternative text and its table have the same numbers."""

import pytest

from lmms_tokendrop.report.drawing import drawn, svg
from lmms_tokendrop.report.picture import Line, Panel, Picture, Point, Value, drawable

CURVES = Picture(
    "Scenes",
    [Panel("tokens", "accuracy, %"), Panel("ms", "accuracy, %")],
    [
        Line(
            "mustdrop",
            [
                Point({"tokens": Value(90), "accuracy, %": Value(83.5)}, "50%"),
                Point({"tokens": Value(45), "ms": Value(30), "accuracy, %": Value.of(74, 1.5)}, "25%"),
            ],
        ),
        Line("a|b", [Point({"tokens": Value(45), "accuracy, %": Value(50)}, "25%")], "none"),
    ],
    {"accuracy, %": 92.1},
)
BARS = Picture(
    "Speed",
    [Panel("examples a second")],
    [
        Line("full", [Point({"examples a second": Value(9, 8, 11)})]),
        Line("pumer", [Point({"examples a second": Value(17)})]),
    ],
)


def test_the_table_has_every_number_and_its_error():
    assert CURVES.table.splitlines() == [
        "|  | setting | tokens | accuracy, % | ms |",
        "| --- | --- | --- | --- | --- |",
        "| mustdrop | 50% | 90 | 83.5 |  |",
        "| mustdrop | 25% | 45 | 74 (72.5 to 75.5) | 30 |",
        r"| a\|b | 25% | 45 | 50 |  |",
        "| all tokens |  |  | 92.1 |  |",
    ]
    assert BARS.table.splitlines()[2:] == ["| full | 9 (8 to 11) |", "| pumer | 17 |"]


def test_the_alternative_says_what_is_shown():
    assert CURVES.alternative == "Scenes: accuracy, % against tokens, ms. Shown are mustdrop, a|b."
    assert BARS.alternative == "Speed: bars of examples a second. Shown are full, pumer."


def test_lines_are_drawn_from_left_to_right_with_errors_and_the_level():
    tokens, ms = drawn([CURVES]).axes
    assert [container.get_label() for container in tokens.containers] == ["mustdrop", "a|b"]
    line, other = (container.lines[0] for container in tokens.containers)
    assert line.get_xydata().tolist() == [[45, 74], [90, 83.5]]
    assert other.get_linestyle() == "None"
    assert tokens.containers[0].lines[2][0].get_segments()[0].tolist() == [[45, 72.5], [45, 75.5]]
    assert tokens.lines[-1].get_ydata() == [92.1, 92.1]
    assert tokens.get_xlim() == (0, pytest.approx(94.5))
    assert [container.get_label() for container in ms.containers] == ["mustdrop"]
    colours = {container.lines[0].get_color() for container in tokens.containers}
    assert len(colours) == 2


def test_bars_are_drawn_with_both_ends_of_their_errors():
    [panel] = drawn([BARS]).axes
    assert [bar.get_width() for bar in panel.patches] == [9, 17]
    [errors] = panel.containers[0].lines[2]
    assert errors.get_segments()[0].tolist() == [[8, 0], [11, 0]]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["full", "pumer"]


def test_a_panel_without_numbers_is_left_out_and_a_picture_without_panels_too():
    more = Picture("More", [*CURVES.panels, Panel("MACs", "accuracy, %")], CURVES.lines)
    assert drawable(more).panels == CURVES.panels
    assert drawable(Picture("None", [Panel("MACs", "accuracy, %")], CURVES.lines)) is None
    other = Picture("Other", CURVES.panels[:1], CURVES.lines)
    assert [panel.axison for panel in drawn([CURVES, other]).axes] == [True, True, True, False]


@pytest.mark.parametrize("picture", [CURVES, BARS], ids=["curves", "bars"])
def test_the_same_numbers_are_the_same_file_with_text_in_it(picture):
    assert svg(picture) == svg(picture)
    assert f">{picture.title}</text>" in svg(picture)

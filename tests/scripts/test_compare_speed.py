"""Two commits take turns, and what is printed are medians of ratios of the same round."""

from __future__ import annotations

import compare_speed
import pytest
from compare_speed import figures, ratio, times
from tiny_vilt import tiny_vilt_config, tiny_vilt_inputs


def test_ratios_are_of_the_same_round():
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0


def test_speed_ups_and_new_over_old():
    taken = {
        "old": {"full": [8.0, 8.0, 6.0], "reduced": [2.0, 2.0, 2.0]},
        "new": {"full": [8.0, 4.0, 6.0], "reduced": [1.0, 1.0, 2.0]},
    }
    assert figures(taken) == {
        "speed_up_old": 4.0,
        "speed_up_new": 4.0,
        "full_new_over_old": 1.0,
        "reduced_new_over_old": 0.5,
    }


@pytest.fixture
def tiny(monkeypatch):
    """A tiny ViLT with PuMer."""
    case = {**compare_speed.CASES["vilt"], "config": tiny_vilt_config().to_diff_dict()}
    monkeypatch.setitem(compare_speed.CASES, "vilt", case)
    monkeypatch.setattr(compare_speed, "inputs_of", lambda name: tiny_vilt_inputs())


def test_trees_take_turns_and_the_first_round_does_not_count(tiny, monkeypatch, tmp_path):
    asked, time_of = [], compare_speed.seconds

    def noted(process, variant):
        asked.append((process.args[-1].stem, variant))
        return time_of(process, variant)

    monkeypatch.setattr(compare_speed, "seconds", noted)
    trees = []
    for name in ("old", "new"):
        tree = tmp_path / name
        tree.symlink_to(compare_speed.TIME.parents[1])
        trees.append(tree)
    taken = times(trees, tmp_path, "vilt", repeats=2)
    one = [("old", "full"), ("new", "full"), ("old", "reduced"), ("new", "reduced")]
    other = [("new", "full"), ("old", "full"), ("new", "reduced"), ("old", "reduced")]
    assert asked == [*one, *other, *one]
    assert all(len(of[variant]) == 2 and min(of[variant]) > 0 for of in taken.values() for variant in of)


def test_a_tree_that_fails_is_an_error(monkeypatch, tmp_path, capfd):
    monkeypatch.setitem(compare_speed.CASES, "vilt", {**compare_speed.CASES["vilt"], "reduction": {"method": "pumre"}})
    root = compare_speed.TIME.parents[1]
    with pytest.raises(ValueError, match="a commit fails; its traceback is above"):
        times((root, root), tmp_path, "vilt", repeats=1)
    assert "method='pumre'" in capfd.readouterr().err

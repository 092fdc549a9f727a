"""The measurement hides what it says it hides."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "measure_pocket_llava_next.py"


@pytest.fixture
def measure(monkeypatch):
    specification = importlib.util.spec_from_file_location("measure_pocket_llava_next", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, specification.name, module)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("keep", "kept"), [(1.0, 20), (0.5, 10), (0.11, 2), (0.0, 0)])
def test_random_choice_keeps_the_share_and_all_text(measure, keep, kept):
    visual = torch.tensor([False] * 3 + [True] * 20 + [False] * 5)
    seen = measure.visible(visual, keep, 0, 4)
    assert int(seen[visual].sum()) == kept
    assert seen[~visual].all()
    assert torch.equal(seen, measure.visible(visual, keep, 0, 4))


def test_random_choice_differs_between_questions(measure):
    visual = torch.ones(100, dtype=torch.bool)
    assert not torch.equal(measure.visible(visual, 0.5, 0, 1), measure.visible(visual, 0.5, 0, 2))


def test_rows(measure):
    assert measure.row([True, False, True, True]) == {"accuracy": 0.75, "standard_error": 0.2165}


def test_majority_by_question(measure):
    item = measure.Item(None, "is there a shape?", "yes", "easy_vqa", 2)
    training = [("is there a shape?", "yes"), ("is there a shape?", "yes"), ("is there a shape?", "no")]
    assert measure.majority_by_question(training, [item]) == [True]

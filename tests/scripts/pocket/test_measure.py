"""The measurement hides what it says it hides."""

import pytest
import torch

from pocket import measuring


@pytest.mark.parametrize(("keep", "kept"), [(1.0, 20), (0.5, 10), (0.11, 2), (0.0, 0)])
def test_random_choice_keeps_the_share_and_all_text(keep, kept):
    visual = torch.tensor([False] * 3 + [True] * 20 + [False] * 5)
    seen = measuring.visible(visual, keep, 0, 4)
    assert int(seen[visual].sum()) == kept
    assert seen[~visual].all()
    assert torch.equal(seen, measuring.visible(visual, keep, 0, 4))


def test_random_choice_differs_between_questions():
    visual = torch.ones(100, dtype=torch.bool)
    assert not torch.equal(measuring.visible(visual, 0.5, 0, 1), measuring.visible(visual, 0.5, 0, 2))


def test_rows():
    assert measuring.row([True, False, True, True]) == {"accuracy": 0.75, "standard_error": 0.2165}


def test_accuracy_by_type():
    items = [measuring.Item(None, "", "", kind, 2) for kind in ("count", "order", "count")]
    assert measuring.by_type(items, [True, False, False]) == {"count": 0.5, "order": 0.0}

"""A reduction that the options demand and that didn't happen ends the run."""

from types import SimpleNamespace

import pytest
import torch

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.evaluation.reduction import check_reduced

IMAGE = torch.tensor([[-1, 0, 0, 0, 0, 1, 1, 1, 1, -1], [-1] * 10])
TILE = torch.tensor([[-1, 0, 0, 1, 1, 0, 0, 1, 1, -1], [-1] * 10])
CACHE = SimpleNamespace(tokens=SimpleNamespace(image=IMAGE, tile=TILE))


def check_drop(reduced: bool = False, **options) -> None:
    report = SimpleNamespace(reduced=[reduced, False], full_visual_tokens=[8, 0])
    check_reduced(TokenReductionConfig.from_dict(options), CACHE, report)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "random", "keep_ratio": 0.5},
        {"method": "random", "visual_tokens": 3},
        {"method": "random", "visual_tokens": 7, "scope": "request"},
        {"method": "mustdrop", "visual_tokens": 1, "scope": "tile"},
        {"method": "mustdrop", "keep_ratio": 0.75, "scope": "image"},
    ],
)
def test_a_budget_below_the_count_demands_a_drop(options):
    with pytest.raises(RuntimeError, match=r"was to drop visual tokens of a sample with 8 .* and dropped none"):
        check_drop(**options)
    check_drop(reduced=True, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "none"},
        {"method": "random", "keep_ratio": 1.0},
        {"method": "random", "visual_tokens": 4},
        {"method": "random", "visual_tokens": 8, "scope": "request"},
        {"method": "mustdrop", "visual_tokens": 2, "scope": "tile"},
        {"method": "mustdrop", "keep_ratio": 0.9, "scope": "image"},
        {"method": "mustdrop", "global_threshold": 0.0},
    ],
)
def test_nothing_to_drop_is_no_failure(options):
    check_drop(**options)
    check_drop(reduced=True, **options)

"""A reduction that was asked for and didn't happen is an error."""

from __future__ import annotations

from typing import Any

import torch

from lmms_tokendrop.modeling.core.staged_cache import StagedCache
from lmms_tokendrop.modeling.core.token_report import TokenReport


def check_reduced(options: Any, cache: StagedCache, report: TokenReport) -> None:
    """Raise if a budget says that tokens of a sample leave and none left.

    A prompt without images, a budget above what there is, and thresholds that keep everything are fine.
    """
    for row, reduced in enumerate(report.reduced):
        if not reduced and _budget_demands_drop(options, cache, row):
            raise RuntimeError(
                f"{options.method} was to drop visual tokens of a sample with {report.full_visual_tokens[row]} "
                f"(visual_tokens={options.visual_tokens}, keep_ratio={options.keep_ratio}) and dropped none"
            )


def _budget_demands_drop(options: Any, cache: StagedCache, row: int) -> bool:
    """Whether the budget is at least one token below the count of any tile, image or request."""
    visual_tokens, keep_ratio = (getattr(options, name, None) for name in ("visual_tokens", "keep_ratio"))
    if visual_tokens is None and keep_ratio is None:
        return False
    image, tile = cache.tokens.image[row], cache.tokens.tile[row]
    visual = image >= 0
    group = {"request": torch.zeros_like(image), "image": image, "tile": image * (int(tile.max()) + 1) + tile}
    counts = group[options.scope][visual].unique(return_counts=True)[1]
    if visual_tokens is not None:
        return bool((counts >= visual_tokens + 1).any())
    return bool((counts * (1 - keep_ratio) >= 1).any())

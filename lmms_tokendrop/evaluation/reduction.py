"""A reduction that was asked for and didn't happen is an error."""

from __future__ import annotations

import torch

from lmms_tokendrop.modeling.staged_cache import StagedCache
from lmms_tokendrop.modeling.token_reducer import TokenReductionConfig
from lmms_tokendrop.modeling.token_report import TokenReport


def check_reduced(config: TokenReductionConfig, cache: StagedCache, report: TokenReport) -> None:
    """Raise if a budget says that tokens of a sample leave and none left.

    A prompt without images, a budget above what there is, and thresholds that keep everything are fine.
    """
    for row, reduced in enumerate(report.reduced):
        if not reduced and _budget_demands_drop(config, cache, row):
            raise RuntimeError(
                f"{config.method} was to drop visual tokens of a sample with {report.full_visual_tokens[row]} "
                f"(visual_tokens={config.visual_tokens}, keep_ratio={config.keep_ratio}) and dropped none"
            )


def _budget_demands_drop(config: TokenReductionConfig, cache: StagedCache, row: int) -> bool:
    """Whether the budget is at least one token below the count of any tile, image or request."""
    if config.visual_tokens is None and config.keep_ratio is None:
        return False
    image, tile = cache.tokens.image[row], cache.tokens.tile[row]
    visual = image >= 0
    group = {"request": torch.zeros_like(image), "image": image, "tile": image * (int(tile.max()) + 1) + tile}
    counts = group[config.scope][visual].unique(return_counts=True)[1]
    if config.visual_tokens is not None:
        return bool((counts >= config.visual_tokens + 1).any())
    return bool((counts * (1 - config.keep_ratio) >= 1).any())

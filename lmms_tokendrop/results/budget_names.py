"""What the rows of `scripts/measure_budgets.py` are called in its results files."""

from __future__ import annotations

from typing import Any

RATIOS = (0.25, 0.11, 0.5, 0.05)
COUNTERS = ("input", "release")
SEEDS = (0, 1, 2)
ABLATED_RATIOS = (0.25, 0.11)

PREFILL_ALONE = {"merge_threshold": 1.1, "key_ratio": 0.0, "text_ratio": 0.0}
VISION_ALONE = {"key_ratio": 1.0}

PARTS: dict[str, dict[str, Any]] = {
    "vision alone": VISION_ALONE,
    "prefill alone": PREFILL_ALONE,
    "decode alone": {"keep_ratio": 1.0, "decode_interval": 1},
    "vision left out": {**PREFILL_ALONE, "decode_interval": 1},
    "prefill left out": {**VISION_ALONE, "decode_interval": 1},
    "all three": {"decode_interval": 1},
    "text_ratio 0": {"text_ratio": 0.0},
    "key_ratio 0": {"key_ratio": 0.0},
    "key_ratio 0.04": {"key_ratio": 0.04},
    "key_ratio 0.12": {"key_ratio": 0.12},
    "newlines row": {"newlines": "row"},
    "newlines keep": {"newlines": "keep"},
    "all layers compacted": {"compact_first_layers": True},
    "merge_threshold 0.6": {"merge_threshold": 0.6},
    "layers 0, 2, 4, 6": {"layers": "0+2+4+6"},
    "layers 2, 4, 6, 8": {"layers": "2+4+6+8"},
}
"""Options of MustDrop that differ from the defaults, by what a table calls them; the defaults leave decode out."""

TEXT_RATIOS: dict[str, dict[str, Any]] = {f"text_ratio {ratio:g}": {"text_ratio": ratio} for ratio in (0.0, 0.5, 2.0)}
"""What `text_ratio` was chosen from on validation questions, beside the default."""


def row_name(method: str, counter: str, ratio: float, what: str = "") -> str:
    """Name of a row in the results file."""
    return ", ".join([method, counter, f"{ratio:.0%}", *([what] if what else [])])

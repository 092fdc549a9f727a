"""The table of `scripts/measure_prefill.py --output`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmms_tokendrop.markdown import escaped, markdown_table, number


def prefill_table(speed: dict[str, Any]) -> str:
    """Measured speed-up of the prefill, beside the one that MACs allow."""
    rows = [
        ("stock sdpa, s", _seconds(speed["stock_seconds"], speed["stock_range"])),
        ("MustDrop, scoring included, s", _seconds(speed["reduced_seconds"], speed["reduced_range"])),
        ("speed-up", number(speed["speed_up"], ".2f")),
        ("speed-up that MACs allow, causal attention at half", number(speed["macs_speed_up"], ".2f")),
        ("the same, attention in full", number(speed["macs_speed_up_full_attention"], ".2f")),
        ("quotient (measured / allowed, causal)", number(speed["quotient"], ".2f")),
    ]
    layers, hidden_size, visual_tokens, text_tokens, kept, drop_after_layer, threads, repeats = (
        number(speed[name], "d")
        for name in (
            "layers",
            "hidden_size",
            "visual_tokens",
            "text_tokens",
            "kept",
            "drop_after_layer",
            "threads",
            "repeats",
        )
    )
    setting = (
        f"{layers} layers, hidden size {hidden_size}, {visual_tokens} visual and {text_tokens} text tokens, {kept} "
        f"visual tokens kept after layer {drop_after_layer}, {escaped(speed['dtype'])}, {escaped(speed['machine'])}, "
        f"{threads} threads, median of {repeats} alternating runs (smallest to largest in brackets)."
    )
    return f"{setting}\n\n{markdown_table(('', 'measured'), rows)}"


def _seconds(median: float, spread: Sequence[float]) -> str:
    return f"{number(median)} ({number(spread[0])} to {number(spread[1])})"

"""Tables of `lmms-tokendrop bench --output`, for decoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmms_tokendrop.markdown import code, escaped, markdown_table, median_and_range, number, number_if_any


def speed_table(measured: Mapping[str, Any]) -> str:
    """Times of each part, what they could be, and the shares of scoring and selecting."""
    tables = {"rows": _times, "shares": _shares}
    found = [table(measured[name]) for name, table in tables.items() if measured[name]]
    return "\n\n".join([_setting(measured), *found])


def _setting(measured: Mapping[str, Any]) -> str:
    sizes = f"decoder {measured['shape']}, tower {measured['tower']}, random weights"
    model = escaped(measured["pretrained"] or sizes)
    tokens = {row["image"]: row["visual_tokens"] for row in measured["costs"] if row["name"] == "stock"}
    images = ", ".join(f"{number(count, '.0f')} visual tokens ({escaped(image)} px)" for image, count in tokens.items())
    text, batch, threads, repeats = (
        number(measured[name], "d") for name in ("text_tokens", "batch_size", "threads", "repeats")
    )
    return (
        f"{escaped(measured['architecture'])}, {model}, {images}, {text} text tokens, budget "
        f"{escaped(measured['budget'])} ({escaped(measured['counter'])}), batch {batch}, {escaped(measured['dtype'])}, "
        f"{escaped(measured['machine'])}, {threads} threads; the stock model with "
        f"{escaped(measured['stock_attention'])}, its fastest attention. Median of {repeats} alternating runs "
        "(smallest to largest)."
    )


def _times(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        (
            escaped(row["part"]),
            escaped(row["image"]),
            code(row["name"]),
            *time_figures(row),
        )
        for row in rows
    ]
    header = ("part", "image", "model", "ms", "over `stock`", "allowed", "quotient", "over `published`")
    return markdown_table(header, lines)


def time_figures(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Milliseconds, speed-up, what is allowed, the quotient, and the speed-up over the published implementation."""
    return (
        median_and_range(row["seconds"], ".1f", times=1000),
        median_and_range(row["speed_up"]),
        number_if_any(row.get("allowed")),
        number_if_any(row.get("quotient")),
        median_and_range(row.get("over_published")),
    )


def _shares(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        (escaped(row["image"]), code(row["name"]), *(_percent(row[name]) for name in ("rows", "selection", "before")))
        for row in rows
    ]
    header = (
        "image",
        "model",
        "attention rows, of its prefill",
        "rows and selection, of its prefill",
        "selection before the decoder, of the stock prefill",
    )
    return markdown_table(header, lines)


def _percent(value: float) -> str:
    return f"{number(100 * value, '.2f')} %"

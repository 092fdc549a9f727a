"""Tables of `lmms-tokendrop bench --output`, for encoders."""

from __future__ import annotations

from typing import Any

from lmms_tokendrop.markdown import NOT_MEASURED, code, escaped, markdown_table, median_and_range, number, number_if_any

NOT_STATED = "not stated"


def throughput_table(measured: dict[str, Any]) -> str:
    """Throughput, peak memory and training steps."""
    setting = (
        f"{escaped(measured['model'])}, {number(measured['image_size'], 'd')} px, "
        f"{number(measured['text_tokens'], 'd')} text tokens, {escaped(measured['dtype'])}, "
        f"{escaped(measured['machine'])}, {number(measured['threads'], 'd')} threads. Median (smallest to largest)."
    )
    parts = {"Throughput": _throughput, "Peak memory": _memory, "Training step": _training_step}
    sections = [
        f"{title}:\n\n{part(measured[key])}" if key in measured else f"{title}: {NOT_MEASURED}"
        for (title, part), key in zip(parts.items(), ("throughput", "memory", "training_step"), strict=True)
    ]
    return "\n\n".join([setting, *sections])


def _throughput(rows: list[dict[str, Any]]) -> str:
    lines = [
        (
            code(row["name"]),
            number(row["batch_size"], "d"),
            median_and_range(row["examples_per_second"], missing=NOT_MEASURED),
            median_and_range(row.get("speed_up_over_stock"), missing=NOT_MEASURED),
            median_and_range(row.get("speed_up_over_full"), missing=NOT_MEASURED),
            number_if_any(row.get("macs_speed_up"), missing=NOT_MEASURED),
            number_if_any(row.get("quotient"), missing=NOT_MEASURED),
            escaped(row["paper"] or NOT_STATED),
        )
        for row in rows
    ]
    header = (
        "variant",
        "batch",
        "examples/s",
        "over `stock`",
        "over `full`",
        "MACs allow",
        "quotient",
        "paper, on a GPU",
    )
    return markdown_table(header, lines)


def _memory(rows: list[dict[str, Any]]) -> str:
    lines = [
        (
            code(row["name"]),
            escaped(row["mode"]),
            number(row["batch_size"], "d"),
            number((row["peak"] - row["before"]) / 1e6, ".0f"),
            _percent(row.get("change_of_added")),
            number(row["peak"] / 1e6, ".0f"),
            _percent(row.get("change_of_peak")),
            escaped(row["paper"] if row["paper"] and row["mode"] == "grad" else NOT_STATED),
        )
        for row in rows
    ]
    header = (
        "variant",
        "mode",
        "batch",
        "activations, MB",
        "change to `full`",
        "whole process, MB",
        "change to `full`",
        "paper, on a GPU",
    )
    return markdown_table(header, lines)


def _training_step(rows: list[dict[str, Any]]) -> str:
    lines = [
        (
            code(row["name"]),
            number(row["batch_size"], "d"),
            median_and_range(row["step_seconds"], missing=NOT_MEASURED),
            median_and_range(row["teacher_seconds"], missing=NOT_MEASURED),
            median_and_range(row["speed_up"], missing=NOT_MEASURED),
            median_and_range(row["speed_up_with_teacher"], missing=NOT_MEASURED),
        )
        for row in rows
    ]
    header = (
        "variant",
        "batch",
        "step, s",
        "teacher's forward pass, s",
        "over `full`",
        "over `full`, with the teacher",
    )
    return markdown_table(header, lines)


def _percent(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{number(100 * value, '+.0f')} %"

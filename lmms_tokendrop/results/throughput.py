"""Tables of `lmms-tokendrop bench --output`, for encoders."""

from __future__ import annotations

from typing import Any

from lmms_tokendrop.markdown import NOT_MEASURED, code, escaped, markdown_table, number

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
            _spread(row["examples_per_second"]),
            _spread(row.get("speed_up_over_stock")),
            _spread(row.get("speed_up_over_full")),
            _number(row.get("macs_speed_up")),
            _number(row.get("quotient")),
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
            _spread(row["step_seconds"]),
            _spread(row["teacher_seconds"]),
            _spread(row["speed_up"]),
            _spread(row["speed_up_with_teacher"]),
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


def _number(value: float | None) -> str:
    return NOT_MEASURED if value is None else number(value, ".2f")


def _percent(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{number(100 * value, '+.0f')} %"


def _spread(value: dict[str, float] | None) -> str:
    if value is None:
        return NOT_MEASURED
    median, low, high = (number(value[name], ".2f") for name in ("median", "low", "high"))
    return f"{median} ({low} to {high})"

"""Tables of `scripts/measure_gpu.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lmms_tokendrop.markdown import NOT_MEASURED, code, escaped, markdown_table, median_and_range, number
from lmms_tokendrop.results.measured import measured_table

FILE = "gpu.json"
Row = Mapping[str, Any]

DECODER = (
    "method",
    "budget",
    "attention",
    "batch",
    "tokens (input)",
    "vision, ms",
    "first token, ms",
    "a token, ms",
    "peak, GB",
    "KV, MB",
)
ENCODERS = ("encoder", "variant", "batch", "examples per second")
CHECKS = ("method", "budget", "logits from the CPU's", "same tokens", "synchronisations in prefill", "in a step")


def gpu_table(header: tuple[str, ...], cells: Callable[[list[Row]], list[tuple[str, ...]]]) -> Callable[[Any], str]:
    """Make the function that renders a table of what the file holds.

    Parameters
    ----------
    header
        Of the table.
    cells
        From the rows that were measured to the table's.

    Returns
    -------
    Callable
        From what the file holds to Markdown; a dry run is no measurement.
    """

    def render(found: Mapping[str, Any]) -> str:
        rows = cells(measured_rows(found))
        if not rows:
            return NOT_MEASURED
        machine = found["machine"]
        names = ("machine", "torch", "transformers")
        setting = ", ".join(escaped(part) for part in (*(machine[name] for name in names), found["dtype"]))
        return f"{setting}.\n\n{markdown_table(header, rows)}"

    return render


def measured_rows(found: Mapping[str, Any]) -> list[Row]:
    """Rows for which there was time; none of a dry run."""
    return [] if found["dry_run"] else [row for row in found["rows"] if "left_out" not in row]


def decoder_cells(rows: list[Row]) -> list[tuple[str, ...]]:
    """LLaVA-NeXT at batch 1 and at the largest that fits."""
    return [
        (
            *_variant(row),
            code(row["attention"]),
            number(row["batch_size"], "d"),
            number(row["visual_tokens"], ".1f"),
            *(
                median_and_range(row[name], ".1f", times=1000)
                for name in ("vision_seconds", "first_token_seconds", "token_seconds")
            ),
            NOT_MEASURED if row["peak_bytes"] is None else number(row["peak_bytes"] / 1e9, ".2f"),
            number(row["kv_bytes"] / 1e6, ".1f"),
        )
        for row in rows
        if row["kind"] in ("decoder", "largest")
    ]


def encoder_cells(rows: list[Row]) -> list[tuple[str, ...]]:
    """ViLT and METER."""
    return [
        (
            escaped(row["kind"]),
            code(row["method"]),
            number(row["batch_size"], "d"),
            number(row["examples_per_second"], ".0f"),
        )
        for row in rows
        if "examples_per_second" in row
    ]


def check_cells(rows: list[Row]) -> list[tuple[str, ...]]:
    """Agreement with the CPU, and synchronisations of the host."""
    syncs = {(row["method"], row["budget"]): row for row in rows if row["kind"] == "syncs"}
    cells = []
    for row in rows:
        if row["kind"] != "agreement":
            continue
        seen = syncs.get((row["method"], row["budget"]), {})
        counts = (seen.get(name) for name in ("prefill", "step"))
        same = "yes" if row["same_tokens"] else "no"
        counted = (NOT_MEASURED if count is None else number(count, "d") for count in counts)
        cells.append((*_variant(row), number(row["largest_difference"], ".1e"), same, *counted))
    return cells


def _variant(row: Row) -> tuple[str, str]:
    return code(row["method"]), "all" if row["budget"] is None else number(row["budget"], "d")


RENDERERS = {
    "gpu-decoder": gpu_table(DECODER, decoder_cells),
    "gpu-encoders": gpu_table(ENCODERS, encoder_cells),
    "gpu-checks": gpu_table(CHECKS, check_cells),
}
"""From what the file holds to a table in Markdown."""

GPU_TABLES = {name: measured_table(FILE, render) for name, render in RENDERERS.items()}
"""From the folder of the results files."""

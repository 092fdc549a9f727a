"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lmms_tokendrop.bench.encoder_variants import FULL, STOCK
from lmms_tokendrop.markdown import median_and_range, number_if_any
from lmms_tokendrop.results.speed import time_figures


def result_tables(results: Mapping[str, Any]) -> list[Any]:
    """What was measured on what, and a table for each kind of row.

    Parameters
    ----------
    results
        As `measure`, or the measurements of encoders, give them.
    """
    makers = {
        "rows": _times,
        "costs": _costs,
        "shares": _shares,
        "throughput": _throughput,
        "memory": _memory,
        "training_step": _training,
    }
    return [heading(results), *(makers[name](results[name]) for name in makers if results.get(name))]


def heading(results: Mapping[str, Any]) -> str:
    """One line: the model, the machine, versions and the commit."""
    if "model" in results:
        model = results["model"]
    else:
        sizes = f"{results['shape']}, tower {results['tower']}"
        model = f"{results['architecture']} {results['pretrained'] or sizes}, stock {results['stock_attention']}"
    versions = ", ".join(f"{name} {results[name]}" for name in ("torch", "transformers", "lmms_tokendrop"))
    return (
        f"{model}; {results['dtype']}, {results['machine']}, {results['threads']} threads; {versions}, commit "
        f"{results['commit'] or 'unknown'}"
    )


def table(title: str, caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> Table:
    """A table whose first columns are names and the others numbers."""
    made = Table(title=title, caption=caption, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(header):
        made.add_column(name, justify="left" if number < names else "right")
    for row in rows:
        made.add_row(*row)
    return made


def _times(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [
        (
            row["part"],
            row["image"],
            row["name"],
            *time_figures(row),
        )
        for row in rows
    ]
    header = ("part", "image", "model", "ms", "over stock", "allowed", "quotient", "over published")
    caption = (
        "median (smallest to largest). decode: of a token. allowed: by MACs (prefill: attention at half), in decode "
        "by the bytes of weights and cache"
    )
    return table("Time", caption, header, cells, names=3)


def _costs(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [
        (
            row["image"],
            row["name"],
            f"{row['visual_tokens']:.1f}",
            f"{row['macs'] / 1e9:.3f}",
            f"{row['causal_macs'] / 1e9:.3f}",
            f"{row['kv_bytes'] / 1e6:.3f}",
            f"{row['weight_bytes'] / 1e6:.3f}",
        )
        for row in rows
    ]
    header = ("image", "model", "visual tokens", "MACs, G", "causal, G", "KV, MB", "weights, MB")
    return table(
        "Prefill, counted and equal to the formulas", "visual tokens: mean over layers", header, cells, names=2
    )


def _shares(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [
        (row["image"], row["name"], *(f"{100 * row[name]:.2f}" for name in ("rows", "selection", "before")))
        for row in rows
    ]
    header = ("image", "model", "attention rows", "rows and selection", "before the decoder")
    caption = "the first two: of the reduced prefill; the last: of the stock one"
    return table("Shares, %", caption, header, cells, names=2)


def _throughput(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = []
    for row in rows:
        rate = row.get("requests_per_second") or row["examples_per_second"]
        over_stock = row.get("speed_up") or row.get(f"speed_up_over_{STOCK}")
        over_full = row.get(f"speed_up_over_{FULL}")
        allowed, quotient = number_if_any(row.get("macs_speed_up")), number_if_any(row.get("quotient"))
        name = " ".join(filter(None, (row.get("image"), row["name"])))
        cells.append(
            (
                name,
                str(row["batch_size"]),
                median_and_range(rate),
                median_and_range(over_stock),
                median_and_range(over_full),
                allowed,
                quotient,
            )
        )
    header = ("model", "batch", "a second", "over stock", "over full", "MACs allow", "quotient")
    return table("Throughput", "median (smallest to largest)", header, cells)


def _memory(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [
        (
            " ".join(filter(None, (row.get("image"), row["name"], row.get("mode")))),
            str(row["batch_size"]),
            f"{(row['peak'] - row['before']) / 1e6:.1f}",
            number_if_any(row.get("change_of_added"), "+.0%"),
            f"{row['peak'] / 1e6:.0f}",
        )
        for row in rows
    ]
    header = ("model", "batch", "added, MB", "change", "peak of the process, MB")
    return table("Peak memory", "each in a process of its own", header, cells)


def _training(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [
        (row["name"], str(row["batch_size"]), median_and_range(row["step_seconds"]), median_and_range(row["speed_up"]))
        for row in rows
    ]
    return table("Training step", "median (smallest to largest)", ("model", "batch", "seconds", "over full"), cells)

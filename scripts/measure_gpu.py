"""Measure on one GPU, in one process and without a network: `measure_gpu.py --output FILE.json`.

The rows come in order of value, and the file is written anew after each, so that a run that is cut off has what it did.
A row for which the time that is left does not suffice by arithmetic is left out. `--dry-run` prints every row with its
time on an H100 and runs all of them on the CPU, with the sizes of the bundled models.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # before torch: caches grow token by token

import torch
import typer

from gpu import encoders
from gpu.decoder import Decoder, agreement
from gpu.schedule import BUILD, Row, rows
from gpu.sizes import Sizes, real, tiny
from lmms_tokendrop.bench.machine import machine
from lmms_tokendrop.modeling.core.budget import UnreachableBudget
from lmms_tokendrop.modeling.core.options import checked_number
from lmms_tokendrop.user_errors import check_output_file, one_line_errors

OUTPUT = Path(__file__).resolve().parents[1] / "model_cards" / "results" / "gpu.json"


def main(
    output: Annotated[
        Path | None, typer.Option(help="JSON file. Default: that of the docs; with --dry-run none.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time for everything.")] = 420.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the rows, and run them tiny on the CPU.")] = False,
) -> None:
    """Measure LLaVA-NeXT 7B's shape, ViLT-B and METER with random weights on a GPU."""
    start = time.monotonic()
    with one_line_errors():
        check_output_file("output", output)
        checked_number("seconds", seconds, whole=False, low=1)
        if dry_run:
            print_schedule(list(rows(real(), ("sdpa", "flash_attention_2"))), seconds)
        elif not torch.cuda.is_available():
            raise ValueError("this machine has no GPU that torch sees; --dry-run runs on the CPU")
        device, sizes = (torch.device("cpu"), tiny()) if dry_run else (torch.device("cuda"), real())
        path = output if dry_run else output or OUTPUT
        for found in measured(sizes, device, lambda: seconds - (time.monotonic() - start)):
            typer.echo(json.dumps(found["rows"][-1]))
            if path is not None:
                write(path, {"dry_run": dry_run, **found})


def measured(sizes: Sizes, device: torch.device, left: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """Measure the rows for which there is time.

    Parameters
    ----------
    sizes
        What is measured.
    device
        Where.
    left
        Seconds that are left.

    Yields
    ------
    dict
        After each row, all results so far.
    """
    found: dict[str, Any] = {"machine": machine(device), "dtype": str(sizes.dtype).removeprefix("torch."), "rows": []}
    decoder: Decoder | None = None
    for row in rows(sizes, kernels(device)):
        result = {"kind": row.kind, "method": row.method, "budget": row.budget, "attention": row.attention}
        if row.seconds > left():
            result["left_out"] = f"{row.seconds:.0f} s by arithmetic, {left():.0f} s left"
        elif row.kind in sizes.encoders:
            result.update(encoders.measure(row, sizes, device))
        elif row.kind == "agreement":
            result.update(agreement(row, device))
        else:
            decoder = decoder or Decoder(sizes, device)
            try:
                result.update(decoder.measure(row))
            except UnreachableBudget as error:
                result["left_out"] = str(error)
        found["rows"].append(result)
        yield found


def kernels(device: torch.device) -> tuple[str, ...]:
    """Attention implementations for a device."""
    flash = device.type == "cuda" and find_spec("flash_attn") is not None
    return ("sdpa", "flash_attention_2") if flash else ("sdpa",)


def write(output: Path, found: dict[str, Any]) -> None:
    """Write results so that the file is whole whenever the run ends."""
    part = output.with_name(f"{output.name}.part")
    part.write_text(json.dumps(found, indent=1) + "\n")
    part.replace(output)


def print_schedule(planned: list[Row], seconds: float) -> None:
    """Print rows with their time by arithmetic."""
    total = BUILD
    typer.echo(f"{'seconds':>9} {'until':>7}  on an H100, by arithmetic; nothing here was measured")
    typer.echo(f"{BUILD:9.1f} {total:7.1f}  imports, CUDA, weights")
    for row in planned:
        total += row.seconds
        typer.echo(f"{row.seconds:9.1f} {total:7.1f}  {row.name}{'' if total <= seconds else ' (left out if so slow)'}")


if __name__ == "__main__":
    typer.run(main)

"""Measure throughput, memory and training time of ViLT's or METER's variants by PuMer's protocol."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import psutil
import torch
import typer
from rich.console import Console

from lmms_tokendrop.benchmark.encoder_variants import ENCODERS, HEADLINE, STOCK, MeasuredEncoder, Variant
from lmms_tokendrop.benchmark.throughput import Settings, measure_memory, measure_throughput
from lmms_tokendrop.benchmark.training_step import measure_training_step
from lmms_tokendrop.modeling.core.options import checked_number
from lmms_tokendrop.user_errors import check_output_file, one_line_errors

Name = StrEnum("Name", list(ENCODERS))


class DType(StrEnum):
    """Types of weights and images."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def chosen_variants(architecture: MeasuredEncoder, names: str) -> list[Variant]:
    if not names:
        return list(architecture.variants)
    try:
        return [architecture.variant(name) for name in dict.fromkeys(names.split(","))]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--variants") from error


def main(
    architecture: Annotated[Name, typer.Argument(help="The encoder.")],
    output: Annotated[Path | None, typer.Option(help="JSON file for the results.")] = None,
    variants: Annotated[str, typer.Option(help="Whose throughput: names with commas between; default: all.")] = "",
    seconds: Annotated[float, typer.Option(min=0, help="Timed seconds per variant, over all rounds.")] = 30.0,
    window: Annotated[float, typer.Option(min=0, help="Timed seconds per variant in a round.")] = 3.0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Batch size; default: the best of each variant.")
    ] = None,
    max_batch_size: Annotated[int | None, typer.Option(min=1, help="Largest batch size to try; default: none.")] = None,
    max_memory: Annotated[float, typer.Option(min=0, max=1, help="Share of RAM while the batch size rises.")] = 0.6,
    dtype: Annotated[DType, typer.Option(help="Type of weights and images.")] = DType.float32,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: torch's.")] = None,
    memory: Annotated[bool, typer.Option(help=f"Peak memory too, of {', '.join(HEADLINE)}.")] = True,
    memory_batch_size: Annotated[int, typer.Option(min=1, help="Batch size of the memory measurement.")] = 8,
    training_steps: Annotated[
        int, typer.Option(min=0, help=f"Optimisation steps to time, of {', '.join(HEADLINE[1:])}.")
    ] = 0,
    training_batch_size: Annotated[int, typer.Option(min=1, help="Batch size of the optimisation steps.")] = 8,
) -> None:
    """Measure, print, and with --output write the figures as JSON."""
    with one_line_errors():
        for name, value in {"seconds": seconds, "window": window, "max_memory": max_memory}.items():
            checked_number(name, value, whole=False, low=0)
        check_output_file("output", output)
    encoder = ENCODERS[architecture]
    chosen = chosen_variants(encoder, variants)
    if max_batch_size is not None and max_batch_size < encoder.first_batch:
        raise typer.BadParameter(f"the first is {encoder.first_batch}", param_hint="--max-batch-size")
    if threads is not None:
        torch.set_num_threads(threads)
    settings = Settings(
        dtype=getattr(torch, dtype),
        seconds=seconds,
        window=window,
        memory_limit=max_memory * psutil.virtual_memory().total,
        max_batch_size=max_batch_size,
    )
    say = Console(log_path=False).log
    headline = [encoder.variant(name) for name in HEADLINE]
    trained = [variant for variant in headline if variant.name != STOCK]
    results = settings.conditions(encoder)
    # memory first: afterwards this process is large
    if memory:
        results["memory"] = measure_memory(encoder, headline, settings, memory_batch_size, say)
    results["throughput"] = measure_throughput(encoder, chosen, settings, batch_size, say)
    if training_steps:
        results["training_step"] = measure_training_step(
            encoder, trained, settings.dtype, training_batch_size, training_steps, say
        )
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)

"""Print the prefill speed-up of MustDrop's decoder beside the one that MACs allow."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lmms_tokendrop.benchmark.prefill import measure_prefill
from lmms_tokendrop.user_errors import check_output_file, one_line_errors


def main(
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    repeats: Annotated[int, typer.Option(help="Timed runs of each decoder.")] = 7,
    drop_after_layer: Annotated[int, typer.Option(help="Layer after which tokens leave, from 0.")] = 0,
    kept: Annotated[int, typer.Option(help="Visual tokens that stay.")] = 320,
) -> None:
    """Measure, print, and with --output write the figures as JSON."""
    with one_line_errors():
        check_output_file("output", output)
        speed = measure_prefill(kept=kept, drop_after_layer=drop_after_layer, repeats=repeats)
    Console().print(speed.to_dict())
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(speed.to_dict(), indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)

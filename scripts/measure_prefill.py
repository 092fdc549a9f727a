"""Print the prefill speed-up of MustDrop's decoder beside the one that MACs allow."""

import json
from pathlib import Path

import typer
from rich.console import Console

from lmms_tokendrop.benchmark.prefill import measure_prefill


def main(output: Path | None = None, repeats: int = 7, drop_after_layer: int = 0, kept: int = 320) -> None:
    """Measure, print, and with --output write the figures as JSON."""
    speed = measure_prefill(kept=kept, drop_after_layer=drop_after_layer, repeats=repeats)
    Console().print(speed.to_dict())
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(speed.to_dict(), indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)

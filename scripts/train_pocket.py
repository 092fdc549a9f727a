"""Train a bundled pocket model, or continue where a killed run stopped.

Train with `llava_next --output runs/pocket`, then write the last checkpoint as a model with
`llava_next --output runs/pocket --export lmms_tokendrop/pocket/weights/llava_next`.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer

from lmms_tokendrop.modeling.core.options import checked_number
from lmms_tokendrop.user_errors import check_output_folder, one_line_errors
from pocket.recipes import RECIPES

Name = StrEnum("Name", sorted(RECIPES))


def main(
    model: Annotated[Name, typer.Argument(help="The model.")],
    output: Annotated[Path, typer.Option(help="Folder of checkpoints and log.")],
    max_steps: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate. Default: the recipe's.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    float32: Annotated[bool, typer.Option("--float32", help="No bfloat16 autocast; a teacher keeps it.")] = False,
    export_to: Annotated[
        Path | None, typer.Option("--export", help="Only write the last checkpoint as a model into this folder.")
    ] = None,
) -> None:
    """Train a bundled pocket model, or continue where a killed run stopped; with --export write the model."""
    with one_line_errors(FloatingPointError):
        if learning_rate is not None:
            checked_number("learning_rate", learning_rate, whole=False, low=0)
        check_output_folder("output", output)
        check_output_folder("export", export_to)
        torch.set_num_threads(threads)
        recipe = RECIPES[model]()
        if export_to is not None:
            recipe.export(output, export_to)
            return
        recipe.train(output, seed, max_steps=max_steps, learning_rate=learning_rate, bf16=not float32)


if __name__ == "__main__":
    typer.run(main)

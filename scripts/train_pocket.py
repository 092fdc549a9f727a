"""Train a bundled pocket model, or continue where a killed run stopped.

Train with `llava_next --output runs/pocket`, then write the last checkpoint as a stock model with
`llava_next --output runs/pocket --export lmms_tokendrop/pocket/weights/llava_next`.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file
from transformers.trainer_utils import get_last_checkpoint

from lmms_tokendrop.modeling.core.options import checked_number
from lmms_tokendrop.user_errors import check_output_folder, one_line_errors
from pocket.recipes import RECIPES
from pocket.training import export, make_trainer

Name = StrEnum("Name", sorted(RECIPES))


def main(
    architecture: Annotated[Name, typer.Argument(help="The model.")],
    output: Annotated[Path, typer.Option(help="Folder of checkpoints and log.")],
    max_steps: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's.")] = None,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    float32: Annotated[bool, typer.Option("--float32", help="No bfloat16 autocast.")] = False,
    export_to: Annotated[
        Path | None, typer.Option("--export", help="Only write the last checkpoint as a stock model into this folder.")
    ] = None,
) -> None:
    """Train a bundled pocket model, or continue where a killed run stopped; with --export write the stock model."""
    with one_line_errors(FloatingPointError):
        checked_number("learning_rate", learning_rate, whole=False, low=0)
        check_output_folder("output", output)
        check_output_folder("export", export_to)
        torch.set_num_threads(threads)
        recipe = RECIPES[architecture]()
        checkpoint = get_last_checkpoint(str(output)) if output.is_dir() else None
        model = recipe.build(seed)
        if export_to is not None:
            if checkpoint is None:
                raise ValueError(f"output={str(output)!r} has no checkpoint to export")
            model.load_state_dict(load_file(Path(checkpoint) / "model.safetensors"))
            export(model.model, recipe.processor, export_to, output / "training_log.jsonl")
            return
        trainer = make_trainer(
            model,
            output,
            recipe.curriculum,
            seed=seed,
            start=int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0,
            max_steps=max_steps or recipe.steps,
            learning_rate=learning_rate,
            bf16=not float32,
        )
        trainer.train(resume_from_checkpoint=checkpoint)


if __name__ == "__main__":
    typer.run(main)

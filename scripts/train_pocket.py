"""Train a bundled pocket model, or continue where a killed run stopped.

Train with `llava_next --output runs/pocket`, then write the last checkpoint as a stock model with
`llava_next --output runs/pocket --export lmms_tokendrop/pocket/weights/llava_next`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers.trainer_utils import get_last_checkpoint

from lmms_tokendrop.pocket.recipes import RECIPES
from lmms_tokendrop.pocket.training import export, make_trainer


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", choices=sorted(RECIPES))
    parser.add_argument("--output", type=Path, required=True, help="folder of checkpoints and log")
    parser.add_argument("--max-steps", type=int, help="default: the recipe's")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--float32", action="store_true", help="no bfloat16 autocast")
    parser.add_argument("--export", type=Path, help="only write the last checkpoint as a stock model into this folder")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    recipe = RECIPES[options.architecture]()
    checkpoint = get_last_checkpoint(str(options.output)) if options.output.is_dir() else None
    model = recipe.build(options.seed)
    if options.export is not None:
        if checkpoint is None:
            parser.error(f"no checkpoint in {options.output}")
        model.load_state_dict(load_file(Path(checkpoint) / "model.safetensors"))
        export(model.model, recipe.processor, options.export, options.output / "training_log.jsonl")
        return
    trainer = make_trainer(
        model,
        options.output,
        recipe.curriculum,
        seed=options.seed,
        start=int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0,
        max_steps=options.max_steps or recipe.steps,
        learning_rate=options.learning_rate,
        bf16=not options.float32,
    )
    trainer.train(resume_from_checkpoint=checkpoint)


if __name__ == "__main__":
    main()

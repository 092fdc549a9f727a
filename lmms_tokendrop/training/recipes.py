"""Published training settings by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Options that a name stands for.

    Parameters
    ----------
    options
        Fields of `TrainingOptions`.
    image_size
        Side of the images in pixels, as published.
    """

    options: dict[str, Any]
    image_size: int


def vilt(task: str, preset: str, accumulate: int) -> Recipe:
    """PuMer's training of ViLT."""
    return Recipe(
        {
            "architecture": "vilt",
            "method": "pumer",
            "reduction": {"preset": preset},
            "task": task,
            "vqa_loss": "mean" if task == "vqa" else "sum",
            "learning_rate": 1e-4,
            "lr_multipliers": {"classifier": 10.0},
            "batch_size": 64,
            "accumulate": accumulate,
            "epochs": 20,
        },
        384,
    )


RECIPES: dict[str, Recipe] = {
    "vilt-vqav2": vilt("vqa", "vilt-vqav2", 8),
    "vilt-snli-ve": vilt("snli-ve", "vilt-snli-ve", 8),
    "vilt-nlvr2": vilt("nlvr2", "vilt-nlvr2", 4),
}
"""What PuMer's release trains with (https://github.com/csarron/PuMer, notes/cmd.md)."""

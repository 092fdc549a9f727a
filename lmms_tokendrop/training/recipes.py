"""Published training settings by name."""

from __future__ import annotations

from typing import Any


def pumer(
    architecture: str,
    task: str,
    preset: str,
    learning_rate: float,
    multipliers: dict[str, float],
    batch: tuple[int, int],
    image_size: int = 384,
) -> dict[str, Any]:
    """PuMer's training of an encoder for a task; the batch is one of a device and how many are accumulated."""
    batch_size, accumulate = batch
    options = {
        "architecture": architecture,
        "method": "pumer",
        "reduction": {"preset": preset},
        "task": task,
        "learning_rate": learning_rate,
        "lr_multipliers": multipliers,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "epochs": 20,
        "image_size": image_size,
        "square_images": True,
        "rand_augment": True,
    }
    return {**options, "vqa_loss": "mean"} if task == "vqa" else options


RECIPES: dict[str, dict[str, Any]] = {
    "vilt-vqav2": pumer("vilt", "vqa", "vilt-vqav2", 1e-4, {"classifier": 10.0}, (64, 8)),
    "vilt-snli-ve": pumer("vilt", "snli-ve", "vilt-snli-ve", 1e-4, {"classifier": 10.0}, (64, 8)),
    "vilt-nlvr2": pumer("vilt", "nlvr2", "vilt-nlvr2", 1e-4, {"classifier": 10.0}, (64, 4)),
    "meter-vqav2": pumer("meter", "vqa", "meter-vqav2", 5e-6, {"classifier": 50.0, "cross_modal": 5.0}, (32, 8)),
    "meter-snli-ve": pumer(
        "meter", "snli-ve", "meter-snli-ve", 2e-6, {"classifier": 10.0, "cross_modal": 5.0}, (24, 8)
    ),
    "meter-nlvr2": pumer("meter", "nlvr2", "meter-nlvr2", 5e-6, {"classifier": 50.0, "cross_modal": 5.0}, (12, 8), 288),
}
"""What PuMer's release trains with (https://github.com/csarron/PuMer, notes/cmd.md), as fields of `TrainingOptions`.

All of them distil. For retrieval it states none.

Left out: the best evaluation with a patience of 15, seed 2021, texts padded to 32 or 40 tokens, and for ViLT bilinear
resizing.
"""

"""The bundled tasks, pictures for local data sets, and what stock models say of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from sizes import some_fast
from tiny_meter import METER_HEADS
from tiny_vilt import STOCK_HEADS
from transformers import AutoProcessor

from lmms_tokendrop.pocket.scenes import render
from lmms_tokendrop.pocket.task_data import task_scenes

TASKS = Path(__file__).resolve().parent.parent / "tasks"
MODELS = some_fast(("vilt_full", "meter_pumer", "vilt_pumer", "meter_full"), 2)
HEADS = {"vilt": STOCK_HEADS, "meter": METER_HEADS}


def pictures(number: int) -> list[Image.Image]:
    """Draw some scenes, cut to different sizes."""
    return [
        render(scene).crop((0, 0, 96 - 16 * (place % 3), 96 - 32 * (place % 2)))
        for place, (scene, _) in enumerate(islice(task_scenes(), number))
    ]


def named(labels: Sequence[str]) -> dict[str, dict]:
    """Return the options of a configuration with these labels."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}


@torch.no_grad()
def stock_logits(path: Path, architecture: str, head: str, texts: Sequence[str], images: Sequence) -> torch.Tensor:
    """Run the unreduced class of a head on one row after the other; a row may have several images."""
    model, processor = HEADS[architecture][head].from_pretrained(path).eval(), AutoProcessor.from_pretrained(path)
    rows = []
    for text, pictured in zip(texts, images, strict=True):
        inputs = processor(images=pictured, text=text, return_tensors="pt")
        if isinstance(pictured, list):
            inputs = {name: value[None] if name.startswith("pixel") else value for name, value in inputs.items()}
        rows.append(model(**inputs).logits[0])
    return torch.stack(rows)

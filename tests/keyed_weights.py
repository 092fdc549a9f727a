"""Weights that depend on their names in the file and on nothing else.

The order in which a model builds its modules, the version of transformers, and where the code lies change nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_clip_config, tiny_tokenizer
from transformers import CLIPModel


def keyed_values(name: str, shape: torch.Size) -> torch.Tensor:
    """Values of a parameter: matrices of deviation 0.15, norms about 1, biases and lone vectors of deviation 0.1."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(crc32(name.encode())))
    if len(shape) > 1:
        return 0.15 * values
    return 0.1 * values + (1.0 if name.endswith("weight") else 0.0)


def fill(folder: Path) -> None:
    """Give every parameter of a checkpoint its values."""
    path = folder / "model.safetensors"
    filled = {
        name: keyed_values(name, values.shape) if values.is_floating_point() else values
        for name, values in load_file(path).items()
    }
    save_file(filled, path, metadata={"format": "pt"})


def with_clip(reduction: dict[str, Any], folder: Path, width: int = 64) -> dict[str, Any]:
    """Options whose `clip`, or `METHOD.clip`, is a tiny one in a folder of that name beside a checkpoint's files."""
    found = {option: folder / value for option, value in reduction.items() if option.rpartition(".")[2] == "clip"}
    for path in found.values():
        if not path.exists():
            CLIPModel(tiny_clip_config(width)).save_pretrained(path)
            fill(path)
            tiny_tokenizer().save_pretrained(path)
    return {**reduction, **{option: str(path) for option, path in found.items()}}

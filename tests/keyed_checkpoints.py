"""Tiny checkpoints in the stock format whose weights depend on their names in the file, and on nothing else.

The order in which a model builds its modules, the version of transformers, and where the code lies change nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from safetensors.torch import load_file, save_file
from tiny_meter import tiny_meter_config
from tiny_models import tiny_clip_config, tiny_config, tiny_llava_config, tiny_tokenizer
from tiny_vilt import STOCK_HEADS, tiny_vilt_config
from transformers import CLIPModel, LlavaForConditionalGeneration, LlavaNextForConditionalGeneration

import lmms_tokendrop

HEADS = {
    "question_answering": "ForQuestionAnswering",
    "two_images": "ForImagesAndTextClassification",
    "retrieval": "ForImageAndTextRetrieval",
}
LAYERS = {"llava_next": 8, "llava": 8, "vilt": 12, "meter": 6}
"""Enough for the layers of the papers: eight of a LLaVA's 32 by scaling, ViLT's twelve, METER's six pairs."""


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


def stock_model(architecture: str, model: str) -> Any:
    """A stock model; `model` is a text backbone of a LLaVA or a head of an encoder."""
    layers = LAYERS[architecture]
    if architecture == "llava_next":
        return LlavaNextForConditionalGeneration(tiny_config(model, layers=layers, vocab_size=64))
    if architecture == "llava":
        return LlavaForConditionalGeneration(tiny_llava_config(model, layers=layers, vocab_size=64))
    if architecture == "vilt":
        return STOCK_HEADS[model](tiny_vilt_config(layers))
    return getattr(lmms_tokendrop, f"Meter{HEADS[model]}")(tiny_meter_config(layers))


def trained_model(architecture: str, model: str, reduction: dict) -> Any:
    """A model with a method that has parameters of its own."""
    title = architecture.capitalize()
    config = {**stock_model(architecture, model).config.to_diff_dict(), "token_reduction": reduction}
    config.pop("model_type")
    config_class = getattr(lmms_tokendrop, f"{title}TokenDropConfig")
    return getattr(lmms_tokendrop, f"{title}TokenDrop{HEADS[model]}")(config_class(**config))


def save_keyed(folder: Path, architecture: str, model: str, trained: dict | None = None) -> Path:
    """Write a checkpoint; `trained` is the reduction whose own parameters it has."""
    built = stock_model(architecture, model) if trained is None else trained_model(architecture, model, trained)
    built.save_pretrained(folder)
    fill(folder)
    if architecture.startswith("llava"):
        tiny_tokenizer().save_pretrained(folder)
    return folder


def with_clip(reduction: dict[str, Any], folder: Path, width: int = 64) -> dict[str, Any]:
    """Options whose `clip`, or `METHOD.clip`, is a tiny one in a folder of that name beside a checkpoint's files."""
    found = {option: folder / value for option, value in reduction.items() if option.rpartition(".")[2] == "clip"}
    for path in found.values():
        if not path.exists():
            CLIPModel(tiny_clip_config(width)).save_pretrained(path)
            fill(path)
            tiny_tokenizer().save_pretrained(path)
    return {**reduction, **{option: str(path) for option, path in found.items()}}

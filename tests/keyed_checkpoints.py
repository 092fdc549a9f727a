"""Tiny checkpoints in the stock format whose weights depend on their names alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keyed_weights import fill
from tiny_meter import tiny_meter_config
from tiny_models import tiny_config, tiny_llava_config, tiny_tokenizer
from tiny_vilt import STOCK_HEADS, tiny_vilt_config
from transformers import LlavaForConditionalGeneration, LlavaNextForConditionalGeneration

import lmms_tokendrop

HEADS = {
    "question_answering": "ForQuestionAnswering",
    "two_images": "ForImagesAndTextClassification",
    "retrieval": "ForImageAndTextRetrieval",
}
LAYERS = {"llava_next": 8, "llava": 8, "vilt": 12, "meter": 6}
"""Enough for the layers of the papers: eight of a LLaVA's 32 by scaling, ViLT's twelve, METER's six pairs."""


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

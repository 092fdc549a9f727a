"""Every method in every dtype, and under every default dtype of torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from cases import METHODS as LLAVA_METHODS
from cases import PROMPTS, greedy, stacked_logits
from fusion_architectures import ARCHITECTURES
from keyed_weights import with_clip
from sizes import one_fast
from tiny_models import tiny_image

from lmms_tokendrop.modeling.architectures.modeling_llava_next_tokendrop import (
    FlatLlavaNextProcessor,
    LlavaNextTokenDropForConditionalGeneration,
)

RELEASE_SWITCHES = {"packing": "flat", "merge_order": "similarity", "position_mode": "compact"}
REDUCTIONS: dict[str, dict[str, dict]] = {
    "llava_next": {
        **LLAVA_METHODS,
        "evicting": {**LLAVA_METHODS["budget"], "decode_interval": 2},
        "release": {
            **LLAVA_METHODS["threshold"],
            **RELEASE_SWITCHES,
            "newlines": "drop",
            "merge_count": "batch_minimum",
        },
    },
    **{
        name: {**architecture.methods, "release": {"method": "pumer", "reference": "release", "layers": [0, 2]}}
        for name, architecture in ARCHITECTURES.items()
    },
}
CASES = [(name, method) for name, methods in REDUCTIONS.items() for method in methods]


@pytest.fixture
def logits_of(workshop, fusion_checkpoint):
    """Return `load(architecture, method, dtype)`: a function that runs a model and gives its logits."""

    def load_llava_next(method: str, dtype: torch.dtype):
        reduction, folder = REDUCTIONS["llava_next"][method], workshop.checkpoint()
        model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(
            folder, token_reduction=with_clip(reduction, folder), dtype=dtype
        )
        processor = FlatLlavaNextProcessor.from_pretrained(folder) if "packing" in reduction else workshop.processor()
        [(text, sizes)] = PROMPTS["one_image"]
        inputs = processor(images=[tiny_image(*size) for size in sizes], text=text, return_tensors="pt").to(dtype)
        return lambda: stacked_logits(greedy(model, inputs))

    def load(name: str, method: str, dtype: torch.dtype):
        if name == "llava_next":
            return load_llava_next(method, dtype)
        architecture = ARCHITECTURES[name]
        torch.manual_seed(0)
        model = architecture.question_answering.from_pretrained(
            fusion_checkpoint(name),
            token_reduction=REDUCTIONS[name][method],
            new_parameters=(f"{architecture.prefix}.token_reducer.",),
            dtype=dtype,
        )
        inputs = architecture.inputs("ragged")
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        return torch.no_grad()(lambda: model(**inputs).logits)

    return load


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make `dtype` that of new tensors."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("dtype", one_fast([torch.bfloat16, torch.float16, torch.float64]))
@pytest.mark.parametrize(("name", "method"), CASES)
def test_every_method_runs_in_every_dtype(logits_of, name, method, dtype):
    assert bool(logits_of(name, method, dtype)().isfinite().all())


@pytest.mark.parametrize("dtype", one_fast([torch.bfloat16, torch.float64]))
@pytest.mark.parametrize(("name", "method"), CASES)
def test_the_default_dtype_changes_nothing(logits_of, name, method, dtype):
    logits = logits_of(name, method, torch.float32)
    expected = logits()
    with default_dtype(dtype):
        actual = logits()
    assert torch.equal(actual, expected)

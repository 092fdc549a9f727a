"""What a model does with a batch, read from what every layout of the code offers: public names, outputs and reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from keyed_weights import with_clip

import lmms_tokendrop

STEPS = 4
"""Tokens that a decoder writes: a prefill and three steps."""

Record = dict[str, Any]
"""What one call gave: `exact`, whose values must be equal, and `logits [batch, ...]` of the last position or None."""

DECODER_REPORT = (
    "visual_tokens_per_layer",
    "average_visual_tokens",
    "average_visual_tokens_release",
    "full_visual_tokens",
    "reduced",
    "kv_bytes",
    "kv_bytes_per_row",
    "kv_lengths",
    "kept",
    "counts",
    "forced_merges",
)
ENCODER_REPORT = {
    "text_tokens": "text_tokens",
    "image_tokens": "visual_tokens_per_layer",
    "average_image_tokens": "average_visual_tokens",
    "average_image_tokens_left": "average_visual_tokens_release",
    "full_image_tokens": "full_visual_tokens",
    "vision_tokens": "vision_tokens",
}
"""By the name that recorded values and earlier versions have."""


def load(job: dict[str, Any], folder: Path) -> Any:
    """Load the model of a described job, see `comparison_cases.Job`."""
    model_class = getattr(lmms_tokendrop, job["model_class"])
    checkpoint = folder / job["checkpoint"]
    model = model_class.from_pretrained(checkpoint, token_reduction=with_clip(job["reduction"], checkpoint))
    return model.train(job["training"])


@torch.no_grad()
def run(model: Any, inputs: dict[str, torch.Tensor]) -> list[Record]:
    """Run a batch: an encoder once, a decoder through a prefill and steps."""
    torch.manual_seed(0)
    with recorded(model) as records:
        if not model.can_generate():
            model(**inputs)
            return records
        sequences = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, eos_token_id=None)
    return [*records, {"exact": {"answer": sequences.tolist()}, "logits": None}]


@contextmanager
def recorded(model: Any) -> Iterator[list[Record]]:
    """Note what every call of a model gives."""
    records: list[Record] = []
    handle = model.register_forward_hook(lambda module, inputs, output: records.append(read(output)))
    try:
        yield records
    finally:
        handle.remove()


def read(output: Any) -> Record:
    """Read a model's output."""
    if "report" not in output:
        report = lmms_tokendrop.cache_of(output).report()
        exact = {name: getattr(report, name) for name in DECODER_REPORT}
        return {"exact": exact, "logits": output.logits[:, -1].clone()}
    reports = output.report if isinstance(output.report, list) else [output.report]
    exact = {
        before: [getattr(report, name if hasattr(report, name) else before) for report in reports]
        for before, name in ENCODER_REPORT.items()
    }
    exact["kept"] = [encoder_tokens(report) for report in reports]
    return {"exact": exact, "logits": output.logits.clone()}


def encoder_tokens(report: Any) -> dict[str, Any]:
    """Where tokens stay in an encoder. The one place that reads what is not public: adapt it to a new layout here.

    Returns
    -------
    dict
        `left`: per layer and row, places in the unreduced sequence; None for a layer that left what the one before it
        did. `owner`: per row, the token that each unreduced token is part of in the end, -1 if it left.
    """
    left: list[Any] = []
    before: Any = None
    for tokens in report.left:
        places = [row[row >= 0].tolist() for row in tokens.place]
        left.append(None if places == before else places)
        before = places
    return {"left": left, "owner": report.left[-1].owner.tolist()}


@torch.no_grad()
def nudge(model: Any, size: float, seed: int) -> None:
    """Move every weight by about `size` of itself."""
    generator = torch.Generator().manual_seed(seed)
    for values in model.parameters():
        values.mul_(1 + size * torch.randn(values.shape, generator=generator).to(values))

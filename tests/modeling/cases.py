"""Models, prompts and reductions that the tests of the core share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from keyed_weights import with_clip
from sizes import one_fast
from tiny_models import tiny_image
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration
from lmms_tokendrop.modeling.core.reducer import Host
from lmms_tokendrop.modeling.methods.available import reductions

ATTENTIONS = one_fast(("sdpa", "eager"))
BACKBONES = (
    ("llama", "sdpa"),
    pytest.param("mistral", "eager", marks=pytest.mark.slow),
    pytest.param("qwen2", "sdpa", marks=pytest.mark.slow),
)
"""Text models, with an attention each."""

EVERY_LAYER_AND_NEWLINE: dict[str, Any] = {"compact_first_layers": True, "newlines": "row"}
"""Settings that make the most of the framework's work: all caches shrink, newlines leave with their rows."""

METHODS: dict[str, dict[str, Any]] = {
    "none": {"method": "none"},
    "budget": {"method": "mustdrop", "keep_ratio": 0.45, "merge_threshold": 0.6, **EVERY_LAYER_AND_NEWLINE},
    "threshold": {
        "method": "mustdrop",
        "merge_threshold": 0.6,
        "global_threshold": 0.016,
        "individual_threshold": 0.1,
        **EVERY_LAYER_AND_NEWLINE,
    },
    "random": {"method": "random", "keep_ratio": 0.3, "newlines": "row"},
    "uniform": {"method": "uniform", "keep_ratio": 0.3},
    "vision_tome": {"method": "vision_tome", "vision_r": 5},
    "fastv": {"method": "fastv", "R": 0.6, "newlines": "row"},
    "sparsevlm": {"method": "sparsevlm", "keep_ratio": 0.45, "recycling": "none"},
    "recycling": {"method": "sparsevlm", "keep_ratio": 0.45},
    "pyramiddrop": {"method": "pyramiddrop", "newlines": "row"},
    "dart": {"method": "dart", "R": 0.6},
    "visionzip": {"method": "visionzip", "keep_ratio": 0.3},
    "divprune": {"method": "divprune", "keep_ratio": 0.3},
    "cdpruner": {"method": "cdpruner", "keep_ratio": 0.3, "clip": "clip"},
    "prumerge": {"method": "prumerge", "keep_ratio": 0.3},
    "scope": {"method": "scope", "keep_ratio": 0.3},
    "hiprune_like": {"method": "hiprune_like", "keep_ratio": 0.3, "anchor_ratio": 0.5},
    "starpro_like": {"method": "starpro_like", "keep_ratio": 0.15},
    "area_pooling": {"method": "area_pooling", "keep_ratio": 0.3},
}
WHOLE_CACHES = {"fastv": 2, "sparsevlm": 4, "recycling": 4, "pyramiddrop": 4, "dart": 2, "starpro_like": 4}
"""Layers in front that keep what they received after prefill, too; of other methods none holds more than the last."""

REDUCING = tuple(name for name in METHODS if name != "none")


def reducer_of(options: dict[str, Any]) -> Any:
    """The reducer of options in the tiny model."""
    methods = reductions("llava_next")
    return methods.build(methods.from_dict(options), Host(4, 32, 42, vision_layers=4, feature_block=2))


def masks(options: dict[str, Any]) -> bool:
    """Whether `masked_reference` can follow a reduction, by what its method declares.

    It can't where tokens join or count by their size; the tests of such a method have its values.
    """
    reducer = reducer_of(options)
    return not (reducer.adds or reducer.proportional_attention)


def merges_windows(options: dict[str, Any]) -> bool:
    """Whether what leaves before the decoder is part of windows, which a masked reference has to merge."""
    return bool(reducer_of(options).stages_at("vision"))


MASKED = tuple(name for name, options in METHODS.items() if masks(options))

KEEP_ALL: dict[str, dict[str, Any]] = {
    "none": {"method": "none"},
    "mustdrop": {
        "method": "mustdrop",
        "merge_threshold": 1.1,
        "global_threshold": 0.0,
        "individual_threshold": 0.0,
        "newlines": "keep",
    },
    "random": {"method": "random", "keep_ratio": 1.0, "newlines": "keep"},
    "fastv": {"method": "fastv", "R": 0.0, "newlines": "keep"},
    "pyramiddrop": {"method": "pyramiddrop", "stage_ratio": 1.0, "newlines": "keep"},
}

QUESTION = "USER: <image>\nwhat colour is the square ? ASSISTANT:"
SHORT = "USER: <image>\nyes or no ? ASSISTANT:"

PROMPTS: dict[str, list[tuple[str, list[tuple[int, int]]]]] = {
    "text_only": [("USER: is there a circle ? ASSISTANT:", [])],
    "one_image": [(QUESTION, [(60, 40)])],
    "two_images": [("USER: <image>\nand <image>\nyes or no ? ASSISTANT:", [(60, 40), (30, 90)])],
    "odd_aspect": [(QUESTION, [(150, 37)])],
    "ragged_batch": [(QUESTION, [(60, 40)]), (SHORT, [(37, 101)])],
    "beside_long_text": [("is there a circle ? " * 40, []), (SHORT, [(60, 40)])],
}


class Workshop:
    """Builds and keeps models, processors and inputs of tiny checkpoints.

    The checkpoints' matrices are halved, so that logits are of order one and 1e-5 is a sharp bound in fp32.
    """

    def __init__(self, checkpoint: Callable[..., Path], folder: Path):
        self._checkpoint, self._folder = checkpoint, folder
        self._made: dict[Any, Any] = {}

    def checkpoint(self, text: str = "llama", **options) -> Path:
        """The folder of a checkpoint: logits of order one, and no two norms alike."""

        def soften():
            source, target = self._checkpoint(text, **options), self._folder / f"checkpoint_{len(self._made)}"
            shutil.copytree(source, target)
            model = LlavaNextForConditionalGeneration.from_pretrained(source)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if parameter.ndim >= 2:
                        parameter.mul_(0.5)
                    elif "norm" in name and name.endswith("weight"):
                        parameter.mul_(torch.linspace(0.5, 1.0, len(parameter)).roll(len(name)))
            model.save_pretrained(target)
            return target

        return self._keep(("checkpoint", text, *sorted(options.items())), soften)

    def _keep(self, key, make):
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def stock(self, text: str = "llama", attention: str = "sdpa", **options) -> LlavaNextForConditionalGeneration:
        """The stock model."""

        def load():
            folder = self.checkpoint(text, **options)
            return LlavaNextForConditionalGeneration.from_pretrained(folder, attn_implementation=attention).eval()

        return self._keep(("stock", text, attention, *sorted(options.items())), load)

    def reduced(
        self, reduction: dict | str, text: str = "llama", attention: str = "sdpa", **options
    ) -> LlavaNextTokenDropForConditionalGeneration:
        """The model with a reduction: options, or a name from `METHODS`."""
        reduction = METHODS[reduction] if isinstance(reduction, str) else reduction

        def load():
            folder = self.checkpoint(text, **options)
            return LlavaNextTokenDropForConditionalGeneration.from_pretrained(
                folder, token_reduction=with_clip(reduction, folder), attn_implementation=attention
            )

        return self._keep(("reduced", repr(reduction), text, attention, *sorted(options.items())), load)

    def processor(self, **options):
        """The processor; it is the same for every text backbone."""
        return self._keep(
            ("processor", *sorted(options.items())),
            lambda: AutoProcessor.from_pretrained(self.checkpoint("llama", **options)),
        )

    def inputs(self, prompts: str | list[tuple[str, list[tuple[int, int]]]], **options) -> dict[str, torch.Tensor]:
        """Model inputs for prompts with images of the given sizes, padded on the left; or for a name of `PROMPTS`."""
        prompts = PROMPTS[prompts] if isinstance(prompts, str) else prompts
        pictures = [tiny_image(*size, seed=sum(size)) for _, sizes in prompts for size in sizes]
        batch = self.processor(**options)(
            images=pictures or None, text=[text for text, _ in prompts], padding=True, return_tensors="pt"
        )
        return dict(batch)


def greedy(model, inputs: dict, steps: int = 5, **options):
    """Greedy generation of exactly `steps` tokens, with logits."""
    return model.generate(
        **inputs,
        **{"max_new_tokens": steps, "do_sample": False, "eos_token_id": None, **options},
        return_dict_in_generate=True,
        output_logits=True,
    )


def stacked_logits(output) -> torch.Tensor:
    """`[batch, steps, vocabulary]` logits of a generation."""
    return torch.stack(output.logits, dim=1)


def largest_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Largest absolute difference of two tensors of one shape."""
    assert first.shape == second.shape
    return (first - second).abs().max().item()

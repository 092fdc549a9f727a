"""What commits are compared on, and golden data are of: reductions, tiny models, and the batches that they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from keyed_checkpoints import HEADS, save_keyed
from tiny_meter import tiny_meter_inputs
from tiny_vilt import tiny_vilt_inputs

MERGING = {"merge_threshold": 0.6}
THRESHOLDS = {"merge_threshold": 0.6, "global_threshold": 0.012, "individual_threshold": 0.05}
FLAT = {"packing": "flat"}

REDUCTIONS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "llava_next": {
        "none": [{}],
        "mustdrop": [
            {"keep_ratio": 0.45, "compact_first_layers": True, "newlines": "row", **MERGING},
            {"newlines": "keep", **THRESHOLDS},
            {"visual_tokens": 30, "counter": "release", "decode_interval": 1, "decode_drop_ratio": 0.2},
            {"visual_tokens": 30, "counter": "input", "text_ratio": 0.0},
            {"visual_tokens": 60, "counter": "input", "key_ratio": 0.2, "layers": [1, 3, 6]},
            {"visual_tokens": 12, "scope": "tile"},
            {"visual_tokens": 60, "scope": "request", "newlines": "row"},
            {"keep_ratio": 0.11, "merge_threshold": 1.1},
            {"keep_ratio": 0.4, "position_mode": "compact"},
            {"keep_ratio": 0.4, "format": 1},
            {"keep_ratio": 0.4, "format": 2},
            {"keep_ratio": 0.4, **FLAT},
            {"merge_count": "batch_minimum", "merge_order": "similarity", **FLAT, **THRESHOLDS},
            {"decode_interval": 2, "decode_floor": 3, "position_mode": "compact", **THRESHOLDS},
            {"preset": "textvqa-64"},
            {"preset": "vizwiz-64"},
            {"preset": "64"},
        ],
        "fastv": [
            {},
            {"K": 1, "keep_ratio": 0.4, "query": "text", "newlines": "row"},
            {"K": 3, "keep_ratio": 0.6, "scope": "request", "newlines": "keep"},
            {"K": 2, "keep_ratio": 0.5, "scope": "tile", "counter": "release"},
            {"preset": "k2-r75"},
        ],
        "visionzip": [
            {"keep_ratio": 0.3},
            {"visual_tokens": 12, "scope": "tile", "contextual": "sum", "cls_slot": False},
            {"visual_tokens": 60, "scope": "request", "contextual_ratio": 0.5, "position_mode": "compact"},
            {"preset": "64"},
        ],
        "divprune": [
            {"keep_ratio": 0.3},
            {"visual_tokens": 8, "scope": "tile"},
            {"visual_tokens": 40, "scope": "request"},
        ],
        "cdpruner": [
            {"keep_ratio": 0.3, "clip": "clip"},
            {"visual_tokens": 8, "scope": "tile", "clip": "clip"},
            {"visual_tokens": 40, "scope": "request", "clip": "clip"},
        ],
        "prumerge": [
            {},
            {"keep_ratio": 0.3, "neighbours": 4},
            {"visual_tokens": 12, "scope": "tile", "plus": True},
            {"iqr_factor": 0.5, "plus": True, "position_mode": "compact"},
        ],
        "scope": [{"keep_ratio": 0.3}, {"visual_tokens": 40, "scope": "request", "alpha": 0.5}, {"preset": "64"}],
        "hiprune_like": [
            {"keep_ratio": 0.3, "anchor_ratio": 0.5},
            {"visual_tokens": 12, "scope": "tile", "attention": "cls", "anchor_block": 1},
            {"preset": "64"},
        ],
        "starpro_like": [
            {"keep_ratio": 0.1},
            {"visual_tokens": 8, "scope": "tile", "pool": 1.5, "layers": [1, 3], "query": "last"},
            {"visual_tokens": 16, "scope": "request", "counter": "release", "position_mode": "compact"},
        ],
        "area_pooling": [
            {"keep_ratio": 0.3},
            {"visual_tokens": 9, "scope": "tile"},
            {"visual_tokens": 40, "scope": "request"},
        ],
        "sparsevlm": [
            {"keep_ratio": 0.4},
            {"kept": [60, 30, 8], "recycling": "sum", "layers": [0, 1, 3]},
            {"rank_ratio": 0.7, "recycling": "none", "position_mode": "compact"},
            {"visual_tokens": 60, "scope": "request", "recycled_ratio": 0.8, "cluster_ratio": 0.3},
            {"rank_scale": 2.0, "rank_bias": 3.0},
            {"visual_tokens": 12, "scope": "tile", "counter": "release"},
        ],
        "pyramiddrop": [
            {},
            {"keep_ratio": 0.5, "newlines": "row", "position_mode": "compact"},
            {"stage_ratio": 0.7, "layers": [0, 2], "newlines": "keep"},
            {"visual_tokens": 20, "scope": "tile", "counter": "release"},
            {"visual_tokens": 120, "scope": "request"},
        ],
        "dart": [
            {},
            {"K": 1, "keep_ratio": 0.4, "image_pivots": 2, "text_pivots": 0},
            {"K": 2, "R": 0.5, "scope": "tile", "text_pivots": 2},
            {"K": 3, "keep_ratio": 0.6, "scope": "request"},
            {"preset": "k2-r88.9"},
        ],
        "random": [
            {"keep_ratio": 0.3, "newlines": "row"},
            {"visual_tokens": 8, "scope": "tile", "counter": "release"},
            {"visual_tokens": 40, "scope": "request", "newlines": "keep", "seed": 3},
            {"keep_ratio": 0.2, "position_mode": "compact"},
        ],
        "vision_tome": [{}, {"vision_r": 5}],
        "uniform": [
            {"keep_ratio": 0.3},
            {"visual_tokens": 8, "scope": "tile", "counter": "release"},
            {"visual_tokens": 40, "scope": "request", "position_mode": "compact"},
        ],
        "composed": [
            {},
            {"vision": "mustdrop", "decoder": "fastv", "decode": "mustdrop", "visual_tokens": 30, "newlines": "row"},
            {"vision": "vision_tome", "vision_tome.vision_r": 4, "decoder": "mustdrop", "visual_tokens": 30},
            {"features": "random", "random.keep_ratio": 0.6, "decoder": "fastv", "keep_ratio": 0.4, "seed": 3},
        ],
    },
    "llava": {
        "none": [{}],
        "mustdrop": [
            {"keep_ratio": 0.45, "compact_first_layers": True, **MERGING},
            THRESHOLDS,
            {"visual_tokens": 12, "counter": "release", "decode_interval": 1, "decode_drop_ratio": 0.2},
            {"visual_tokens": 24, "scope": "request"},
            {"preset": "textvqa-64"},
        ],
        "fastv": [{}, {"K": 1, "keep_ratio": 0.4, "query": "text"}, {"preset": "k2-r75"}],
        "visionzip": [{"keep_ratio": 0.3}, {"visual_tokens": 20, "scope": "request", "contextual": "sum"}],
        "divprune": [{"keep_ratio": 0.3}, {"visual_tokens": 20, "scope": "request"}],
        "cdpruner": [{"keep_ratio": 0.3, "clip": "clip"}, {"visual_tokens": 20, "scope": "request", "clip": "clip"}],
        "prumerge": [{}, {"keep_ratio": 0.3}, {"visual_tokens": 20, "plus": True}],
        "scope": [{"keep_ratio": 0.3}, {"preset": "64"}],
        "hiprune_like": [{"keep_ratio": 0.3, "anchor_ratio": 0.5}, {"visual_tokens": 20, "attention": "cls"}],
        "starpro_like": [{"keep_ratio": 0.3}, {"visual_tokens": 15, "query": "last"}],
        "area_pooling": [{"keep_ratio": 0.3}, {"visual_tokens": 16}],
        "sparsevlm": [
            {"keep_ratio": 0.4},
            {"kept": [20, 8, 3], "recycling": "sum", "layers": [0, 1, 3]},
            {"rank_ratio": 0.7, "recycling": "none"},
        ],
        "pyramiddrop": [{}, {"keep_ratio": 0.5, "position_mode": "compact"}],
        "dart": [{}, {"K": 1, "keep_ratio": 0.4, "image_pivots": 2, "text_pivots": 0}],
        "random": [{"keep_ratio": 0.3}, {"visual_tokens": 20, "scope": "request", "seed": 3}],
        "uniform": [{"keep_ratio": 0.3}, {"visual_tokens": 8, "counter": "release", "position_mode": "compact"}],
    },
    "vilt": {
        "none": [{}],
        "pumer": [
            {},
            {"layers": [1, 3], "score": "keys", "prune_ratio": 0.3},
            {"prune_ratio": 0.4, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0},
            {"reference": "release"},
            {"score": "queries", "image_size": 24},
            {"score": "first_head", "reference": "release", "prune_ratio": 0.3},
            {"prune_ratio": 0.0, "text_merge_ratio": 0.4},
            {"preset": "vilt-vqav2"},
            {"preset": "vilt-snli-ve"},
            {"preset": "vilt-nlvr2"},
        ],
        "tome": [
            {"r": 5},
            {"r": 7, "merge_scope": "joint", "schedule": "decreasing"},
            {"r": 6, "proportional_attention": False},
        ],
        "dynamicvit": [{}, {"layers": [1, 2, 3], "keep_ratio": 0.6}],
        "random": [{}, {"layers": [1, 4], "prune_ratio": 0.2, "seed": 3}],
        "cls_attention": [{}, {"cls_token": "image"}, {"layers": [0, 3], "prune_ratio": 0.2}],
        "smres": [{}, {"image_size": 20}],
    },
    "meter": {
        "none": [{}],
        "pumer": [
            {},
            {"layers": [2, 6], "score": "queries", "prune_ratio": 0.3},
            {"prune_ratio": 0.4, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0},
            {"reference": "release"},
            {"image_size": 24, "vision_r": 3},
            {"score": "first_head", "reference": "release"},
            {"prune_ratio": 0.0, "text_merge_ratio": 0.4},
            {"preset": "meter-vqav2"},
            {"preset": "meter-snli-ve"},
            {"preset": "meter-nlvr2"},
        ],
        "tome": [{"r": 14}, {"r": 7, "proportional_attention": False, "schedule": "decreasing"}],
        "vision_tome": [{"vision_r": 9}, {"vision_r": 5}],
        "dynamicvit": [{}, {"layers": [2, 4, 6], "keep_ratio": 0.6}],
        "random": [{}, {"layers": [0, 4], "prune_ratio": 0.3, "seed": 3}],
        "cls_attention": [{}, {"layers": [0, 6], "prune_ratio": 0.2}],
        "smres": [{}, {"image_size": 20}],
    },
}
"""Options beside the method; a method that is not here is run with its defaults."""

BACKBONES = ("llama", "mistral", "qwen2")
MODELS = {"llava_next": BACKBONES, "llava": BACKBONES, "vilt": tuple(HEADS), "meter": tuple(HEADS)}
"""Text backbones, or heads; the first ones have golden data."""

TRAINED = {"dynamicvit"}
"""Methods with parameters of their own."""

GOLDEN_REDUCTIONS = 3
GOLDEN_BATCH = "ragged"

PICTURES = {"square": ((84, 84), 5, 192), "wide": ((40, 60), 3, 102), "tall": ((90, 30), 4, 162)}
"""Height and width, tiles of 36 patches, and placeholders with newlines, of images for the tiny LLaVA-NeXT."""

PROMPTS: dict[str, list[tuple[int, Sequence[str], int]]] = {
    "text_only": [(7, (), 0)],
    "one": [(4, ("square",), 9)],
    "two_images": [(3, ("wide", "tall"), 6)],
    "ragged": [(4, ("square",), 9), (2, ("wide",), 4)],
    "beside_text": [(230, (), 0), (3, ("tall",), 7)],
    "four": [(3, ("wide",), 5), (5, ("tall",), 3), (1, ("square",), 8), (2, ("wide", "wide"), 2)],
}
"""Per prompt of a batch: words in front of the images, the images, words behind them."""

ENCODER_INPUTS = {"vilt": (tiny_vilt_inputs, 0), "meter": (tiny_meter_inputs, 2)}
"""What makes inputs, and a seed with which no golden decision is a near tie."""

IMAGE_ID, PAD_ID, FIRST_WORD = 4, 3, 5


@dataclass(frozen=True)
class Job:
    """A tiny model with a reduction, and the batches that it reads.

    Parameters
    ----------
    architecture, method, model
        Which one; `model` is one of `MODELS`.
    reduction
        Options beside the method.
    batches
        Names of its inputs.
    training
        Whether it runs as in training, where a method may weigh tokens in place of dropping them.
    """

    architecture: str
    method: str
    model: str
    reduction: dict[str, Any]
    batches: tuple[str, ...]
    training: bool = False

    @property
    def variant(self) -> str:
        """Its id for lmms-eval."""
        return f"{self.architecture}_{'full' if self.method == 'none' else self.method}"

    @property
    def options(self) -> str:
        """The reduction in words."""
        words = [f"{name}={value}".replace(" ", "") for name, value in self.reduction.items()]
        return " ".join(words + ["training"] * self.training) or "defaults"

    @property
    def model_class(self) -> str:
        """Name of the public class."""
        ending = "ForConditionalGeneration" if self.model in BACKBONES else HEADS[self.model]
        return f"{self.architecture.title().replace('_', '')}TokenDrop{ending}"

    @property
    def checkpoint(self) -> str:
        """Name of its folder."""
        own = f"_{self.method}_{len(self.reduction.get('layers', (0, 0, 0)))}" if self.method in TRAINED else ""
        return f"{self.architecture}_{self.model}{own}"

    def inputs(self, batch: str) -> str:
        """Name of the file of a batch."""
        flat = "_flat" if self.reduction.get("packing") == "flat" else ""
        return f"{self.architecture}_{batch}{flat}{'_two_images' if self.model == 'two_images' else ''}.pt"

    def described(self) -> dict[str, Any]:
        """What another process needs to run it."""
        return {
            "name": f"{self.variant}, {self.model}, {self.options}",
            "variant": self.variant,
            "model_class": self.model_class,
            "checkpoint": self.checkpoint,
            "reduction": {"method": self.method, **self.reduction},
            "inputs": {batch: self.inputs(batch) for batch in self.batches},
            "training": self.training,
        }


def reductions(architecture: str, method: str) -> list[dict[str, Any]]:
    """Options to run a method with."""
    return REDUCTIONS.get(architecture, {}).get(method, [{}])


def jobs(architecture: str, method: str) -> list[Job]:
    """Everything that commits are compared on: each reduction on the first model, the first two on the others."""
    batches = tuple(PROMPTS) if MODELS[architecture] == BACKBONES else ("one", "whole", "ragged")
    first, *others = MODELS[architecture]
    every = reductions(architecture, method)
    found = [Job(architecture, method, first, reduction, batches) for reduction in every]
    found += [Job(architecture, method, model, reduction, batches) for model in others for reduction in every[:2]]
    if method in TRAINED:
        found += [Job(architecture, method, first, reduction, batches, training=True) for reduction in every]
    return found


def golden_jobs(architecture: str, method: str) -> list[Job]:
    """What there are golden data of."""
    model = MODELS[architecture][0]
    chosen = reductions(architecture, method)[:GOLDEN_REDUCTIONS]
    return [Job(architecture, method, model, reduction, (GOLDEN_BATCH,)) for reduction in chosen]


def prepare(folder: Path, wanted: Sequence[Job]) -> None:
    """Write the checkpoints and inputs of jobs into a folder, each once."""
    for job in wanted:
        if not (folder / job.checkpoint).exists():
            trained = {"method": job.method, **job.reduction} if job.method in TRAINED else None
            save_keyed(folder / job.checkpoint, job.architecture, job.model, trained)
        for batch in job.batches:
            path = folder / job.inputs(batch)
            if not path.exists():
                torch.save(inputs_of(job, batch), path)


def inputs_of(job: Job, batch: str) -> dict[str, torch.Tensor]:
    """Inputs of a batch, with a seed per row."""
    if job.model in BACKBONES:
        flat, tiled = job.reduction.get("packing") == "flat", job.architecture == "llava_next"
        inputs = prompt_inputs(PROMPTS[batch], flat=flat, tiled=tiled)
    else:
        make, seed = ENCODER_INPUTS[job.architecture]
        inputs = make(batch, images=2 if job.model == "two_images" else 1, seed=seed)
    return {**inputs, "sample_seeds": torch.arange(len(inputs["input_ids"])) + 11}


def prompt_inputs(
    prompts: Sequence[tuple[int, Sequence[str], int]], *, flat: bool, tiled: bool = True
) -> dict[str, torch.Tensor]:
    """Inputs of a LLaVA-NeXT, or of a LLaVA-1.5, which is not `tiled`, padded on the left.

    Windows of a picture are alike on its left side.
    """
    generator = torch.Generator().manual_seed(0)

    def words(number: int) -> torch.Tensor:
        return torch.randint(FIRST_WORD, 64, (number,), generator=generator)

    rows, pixels, sizes = [], [], []
    for before, pictures, behind in prompts:
        parts = [words(before)]
        for name in pictures:
            size, tiles, placeholders = PICTURES[name] if tiled else ((42, 42), 1, 36)
            parts.append(torch.full((36 * tiles if flat else placeholders,), IMAGE_ID))
            pixels.append(mosaic(tiles, generator))
            sizes.append(size)
        rows.append(torch.cat([*parts, words(behind)]))
    length = max(map(len, rows))
    ids = torch.stack([torch.nn.functional.pad(row, (length - len(row), 0), value=PAD_ID) for row in rows])
    inputs = {"input_ids": ids, "attention_mask": (ids != PAD_ID).long()}
    if pixels and not tiled:
        return {**inputs, "pixel_values": torch.cat(pixels)}
    if pixels:
        most = max(map(len, pixels))
        padded = [torch.nn.functional.pad(picture, (0,) * 7 + (most - len(picture),)) for picture in pixels]
        inputs |= {"pixel_values": torch.stack(padded), "image_sizes": torch.tensor(sizes)}
    return inputs


def mosaic(tiles: int, generator: torch.Generator) -> torch.Tensor:
    """Pixels `[tiles, 3, 42, 42]`: a colour per patch of 7 pixels, on the left half hardly another one."""
    colours = torch.randn(tiles, 3, 6, 6, generator=generator)
    left = torch.randn(tiles, 3, 1, 1, generator=generator)
    colours[..., :3] = left + 0.05 * colours[..., :3]
    return colours.repeat_interleave(7, 2).repeat_interleave(7, 3)

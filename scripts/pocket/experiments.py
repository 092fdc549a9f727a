"""What is measured on the pocket encoders: methods, and parts, places and ratios of PuMer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmms_tokendrop.results import pocket_encoders

STEPS = 400
"""Optimiser steps of every fine-tune."""


@dataclass(frozen=True)
class Experiment:
    """One row of a table.

    Attributes
    ----------
    label
        Name in tables, the same wherever the row stands.
    method
        Reduction method.
    reduction
        Its options.
    trained
        Fine-tuned with the reduction, from the unreduced model; else that model itself is reduced.
    distilled
        Whether the unreduced model teaches in the fine-tune.
    seed
        Seed of the fine-tune.
    """

    label: str
    method: str
    reduction: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = True
    distilled: bool = True
    seed: int = 0


FULL = Experiment(pocket_encoders.FULL, "none", trained=False)


def _pumer(label: str, preset: str, distilled: bool = True, seed: int = 0, **changes: Any) -> Experiment:
    return Experiment(label, "pumer", {"preset": preset, **changes}, distilled=distilled, seed=seed)


def _headline(preset: str) -> tuple[Experiment, ...]:
    return (
        FULL,
        _pumer("PuMer", preset),
        Experiment("PuMer, off the shelf", "pumer", {"preset": preset}, trained=False),
        Experiment("random, off the shelf", "random", trained=False),
        Experiment("full, trained on", "none", distilled=False),
    )


def _components(preset: str) -> tuple[Experiment, ...]:
    return (
        _pumer("PuMer", preset),
        _pumer("without pruning", preset, prune_ratio=0.0),
        _pumer("without merging", preset, image_merge_ratio=0.0, text_merge_ratio=0.0),
        _pumer("without distillation", preset, distilled=False),
    )


def _seeds(preset: str) -> tuple[Experiment, ...]:
    return tuple(_pumer("PuMer" if seed == 0 else f"PuMer, seed {seed}", preset, seed=seed) for seed in range(3))


VILT = "vilt-vqav2"
METER = "meter-vqav2"

EXPERIMENTS: dict[str, dict[str, tuple[Experiment, ...]]] = {
    "vilt": {
        "methods": (
            *_headline(VILT),
            Experiment("DynamicViT", "dynamicvit", {"keep_ratio": 0.7}),
            Experiment("ToMe", "tome", {"r": 13, "merge_scope": "joint"}),
            Experiment("smaller images", "smres", {"image_size": 80}),
        ),
        "components": _components(VILT),
        "locations": (
            _pumer("layers 2, 4, 6, 8", VILT, layers=[2, 4, 6, 8]),
            _pumer("layers 2, 3, 4", VILT, layers=[2, 3, 4]),
            _pumer("layers 7, 8, 9", VILT, layers=[7, 8, 9]),
        ),
        "ratios": (
            _pumer("PuMer", VILT),
            _pumer("pruning 0.3, merging 0.3", VILT, prune_ratio=0.3),
            _pumer("pruning 0.1, merging 0.5", VILT, image_merge_ratio=0.5),
        ),
        "curve": (
            FULL,
            _pumer("pruning 0.05, merging 0.15", VILT, prune_ratio=0.05, image_merge_ratio=0.15),
            _pumer("PuMer", VILT),
            _pumer("pruning 0.3, merging 0.3", VILT, prune_ratio=0.3),
            Experiment("ToMe, r = 7", "tome", {"r": 7, "merge_scope": "joint"}),
            Experiment("ToMe", "tome", {"r": 13, "merge_scope": "joint"}),
            Experiment("DynamicViT", "dynamicvit", {"keep_ratio": 0.7}),
            Experiment("DynamicViT, 0.5", "dynamicvit", {"keep_ratio": 0.5}),
            Experiment("smaller images", "smres", {"image_size": 80}),
            Experiment("smaller images, 64", "smres", {"image_size": 64}),
        ),
        "seeds": _seeds(VILT),
    },
    "meter": {
        "methods": _headline(METER),
        "components": _components(METER),
        "seeds": _seeds(METER),
    },
}
"""Tables by architecture. The published setting for VQAv2 is the one that all of them vary."""


def tables_of(architecture: str) -> dict[str, list[str]]:
    """Labels of the rows of each table of an architecture, as its results file lists them."""
    return {name: [entry.label for entry in table] for name, table in EXPERIMENTS[architecture].items()}


def experiments(architecture: str) -> dict[str, Experiment]:
    """Every row of an architecture once, by its label."""
    return {entry.label: entry for table in EXPERIMENTS[architecture].values() for entry in table}

"""What is measured on the pocket encoders: methods, and parts, places and ratios of PuMer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from lmms_tokendrop.results import pocket_encoders
from lmms_tokendrop.results.pocket_encoders import PUMER, SEEDS, TRAINED_ON, seeded
from pocket.recipes import SETTINGS, STUDENT_STEPS

PART_STEPS = 1000
"""Optimiser steps of the fine-tunes that vary one part of PuMer."""


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
    steps
        Optimiser steps of the fine-tune with the reduction, from the unreduced model; 0: that model itself is reduced.
    distilled
        Whether the unreduced model teaches in the fine-tune.
    seed
        Seed of the fine-tune.
    """

    label: str
    method: str
    reduction: Mapping[str, Any] = field(default_factory=dict)
    steps: int = STUDENT_STEPS
    distilled: bool = True
    seed: int = 0

    def is_bundled(self, architecture: str) -> bool:
        """Whether the fine-tune ships with the package."""
        setting = SETTINGS.get(f"{architecture}_{self.method}")
        plain = self.steps == STUDENT_STEPS and self.distilled and self.seed == 0
        return plain and setting == {"method": self.method, **self.reduction}


FULL = Experiment(pocket_encoders.FULL, "none", steps=0)


def _pumer(label: str, preset: str, steps: int = STUDENT_STEPS, **changes: Any) -> Experiment:
    return Experiment(label, "pumer", {"preset": preset, **changes}, steps)


def _seeds(preset: str) -> tuple[Experiment, ...]:
    rows = (_pumer(PUMER, preset), Experiment(TRAINED_ON, "none", distilled=False))
    return tuple(replace(row, label=seeded(row.label, seed), seed=seed) for row, seed in product(rows, SEEDS))


def _headline(preset: str) -> tuple[Experiment, ...]:
    first = [entry for entry in _seeds(preset) if entry.seed == 0]
    return (
        FULL,
        *first,
        _pumer("PuMer, off the shelf", preset, 0),
        Experiment("random, off the shelf", "random", steps=0),
    )


def _components(preset: str) -> tuple[Experiment, ...]:
    return (
        _pumer(PUMER_PARTS, preset, PART_STEPS),
        _pumer("without pruning", preset, PART_STEPS, prune_ratio=0.0),
        _pumer("without merging", preset, PART_STEPS, image_merge_ratio=0.0, text_merge_ratio=0.0),
        Experiment("without distillation", "pumer", {"preset": preset}, PART_STEPS, distilled=False),
    )


def _locations(preset: str, *places: list[int]) -> tuple[Experiment, ...]:
    varied = [_pumer(f"layers {', '.join(map(str, at))}", preset, PART_STEPS, layers=at) for at in places]
    return (_pumer(PUMER_PARTS, preset, PART_STEPS), *varied)


def _ratios(preset: str, *pairs: tuple[float, float]) -> tuple[Experiment, ...]:
    varied = [
        _pumer(f"pruning {prune}, merging {merge}", preset, PART_STEPS, prune_ratio=prune, image_merge_ratio=merge)
        for prune, merge in pairs
    ]
    return (_pumer(PUMER_PARTS, preset, PART_STEPS), *varied)


PUMER_PARTS = f"{PUMER}, {PART_STEPS:,} steps"
VILT = "vilt-vqav2"
METER = "meter-vqav2"

EXPERIMENTS: dict[str, dict[str, tuple[Experiment, ...]]] = {
    "vilt": {
        "methods": (
            *_headline(VILT),
            Experiment("DynamicViT", "dynamicvit", {"keep_ratio": 0.5}),
            Experiment("ToMe", "tome", {"r": 12, "merge_scope": "joint"}),
            Experiment("smaller images", "smres", {"image_size": 72}),
        ),
        "seeds": _seeds(VILT),
        "components": _components(VILT),
        "locations": _locations(VILT, [2, 4, 6, 8], [2, 3, 4], [7, 8, 9]),
        "ratios": _ratios(VILT, (0.3, 0.3), (0.1, 0.5)),
    },
    "meter": {
        "methods": (
            *_headline(METER),
            Experiment("DynamicViT", "dynamicvit", {"keep_ratio": 0.5, "layers": [0, 2, 4]}),
            Experiment("ToMe", "tome", {"r": 48}),
            Experiment("smaller images", "smres", {"image_size": 72}),
        ),
        "seeds": _seeds(METER),
        "components": _components(METER),
        "locations": _locations(METER, [2, 4, 6], [4, 6, 8]),
        "ratios": _ratios(METER, (0.1, 0.2), (0.1, 0.4)),
    },
}
"""Tables by architecture. All vary the published setting for VQAv2; other methods have its multiply-accumulates."""


def tables_of(architecture: str) -> dict[str, list[str]]:
    """Labels of the rows of each table of an architecture, as its results file lists them."""
    return {name: [entry.label for entry in table] for name, table in EXPERIMENTS[architecture].items()}


def experiments(architecture: str) -> dict[str, Experiment]:
    """Every row of an architecture once, by its label."""
    return {entry.label: entry for table in EXPERIMENTS[architecture].values() for entry in table}

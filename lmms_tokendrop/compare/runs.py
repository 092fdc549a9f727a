"""A run of a comparison, and what all of them have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNSAFE = re.compile(r"[^\w.=+]+")
"""What a file's name has an underscore for."""


@dataclass(frozen=True)
class Setting:
    """What all runs of a comparison have in common.

    Parameters
    ----------
    architecture
        Name of one in the catalogue.
    pretrained
        The checkpoint, as for ``--model_args``.
    limit
        The first so many documents of a task; None for all.
    metric
        The task's score; None: the first that it names.
    model_args
        Further arguments for loading, such as ``dtype``.
    """

    architecture: str
    pretrained: str
    limit: int | None
    metric: str | None
    model_args: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A method at a budget on a task.

    Parameters
    ----------
    task
        Name of a task.
    label
        The method with its options, as asked for.
    variant
        Name for ``lmms-eval --model``.
    budget
        As asked for; None: the method's own setting, or the unreduced model.
    counter
        What the budget counts; None without one.
    seed
        Of a method that draws at random; else None.
    options
        What the method is given: its options, the budget and the seed.
    calibrates, calibrate_on
        The option whose value is found so that the budget is met on average, and the task on whose documents; None
        where the method takes the budget itself.
    """

    task: str
    label: str
    variant: str
    budget: str | None
    counter: str | None
    seed: int | None
    options: Mapping[str, Any]
    calibrates: str | None = None
    calibrate_on: str | None = None

    @property
    def name(self) -> str:
        """How it is called in one line."""
        seed = None if self.seed is None else f"seed {self.seed}"
        return ", ".join(filter(None, (self.task, self.label, self.budget, self.counter, seed)))

    @property
    def file(self) -> str:
        """Its file, below the folder of the comparison."""
        parts = self.name.replace("%", "pct").split(", ")[1:]
        return f"{self.task}/{'-'.join(UNSAFE.sub('_', part) for part in parts)}.json"

"""A run whose numbers are no numbers any more stops, and says which."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import Trainer

ADVICE = "the training has diverged; lower learning_rate, or clip gradients with max_grad_norm"


def check_numbers(step: int, numbers: Mapping[str, Any]) -> None:
    """Check what is logged of a step.

    Parameters
    ----------
    step
        Optimiser steps made.
    numbers
        Losses and other values by name; values that are no floats are not looked at.

    Raises
    ------
    FloatingPointError
        If a value is infinite or not a number.
    """
    wrong = [
        f"{name} is {value}" for name, value in numbers.items() if isinstance(value, float) and not math.isfinite(value)
    ]
    if wrong:
        raise FloatingPointError(f"step {step}: {', '.join(wrong)}: {ADVICE}")


def check_parameters(step: int, model: nn.Module) -> None:
    """Check the parameters of a model before it is saved, with one transfer from its device.

    Parameters
    ----------
    step
        Optimiser steps made.
    model
        What was trained.

    Raises
    ------
    FloatingPointError
        If a parameter has values that are infinite or not a number; names the first.
    """
    names, parameters = zip(*model.named_parameters(), strict=True)
    finite = torch.stack([parameter.isfinite().all() for parameter in parameters]).tolist()
    if not all(finite):
        raise FloatingPointError(
            f"step {step}: {finite.count(False)} of {len(names)} parameters are not finite, the first is "
            f"{names[finite.index(False)]}: {ADVICE}"
        )


class FiniteTrainer(Trainer):
    """`Trainer` that stops with a FloatingPointError rather than log a number, or save a model, that is not finite."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Check and log numbers."""
        check_numbers(self.state.global_step, logs)
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Check and save the model."""
        check_parameters(self.state.global_step, self.model)
        super().save_model(output_dir, _internal_call)

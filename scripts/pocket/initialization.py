"""Initial weights of the pocket encoders, wider than usual: with 0.02 a small model learns too slowly."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

MATRIX = 0.06


def draw_weights(model: nn.Module, deviations: Mapping[str, float]) -> None:
    """Draw every matrix and embedding anew from a normal distribution with mean 0.

    Parameters
    ----------
    model
        Changed in place.
    deviations
        Standard deviation by a part of the parameter's name; the first that fits counts, `MATRIX` where none does.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            nn.init.normal_(parameter, std=next((std for part, std in deviations.items() if part in name), MATRIX))

"""The two sizes of the suite: one value of a kind is fast, the others are slow (see the marker in pyproject.toml)."""

from collections.abc import Sequence
from typing import Any

import pytest


def one_fast(values: Sequence[Any]) -> list[Any]:
    """Return `values` for parametrize: the first as it is, the others marked slow."""
    first, *others = values
    return [first, *(pytest.param(value, marks=pytest.mark.slow) for value in others)]

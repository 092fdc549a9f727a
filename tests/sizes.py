"""The two sizes of the suite: one value of a kind is fast, the others are slow (see the marker in pyproject.toml)."""

from collections.abc import Sequence
from typing import Any

import pytest


def one_fast(values: Sequence[Any]) -> list[Any]:
    """Return `values` for parametrize: the first as it is, the others marked slow."""
    return some_fast(values, 1)


def some_fast(values: Sequence[Any], count: int) -> list[Any]:
    """Return `values` for parametrize: the first `count` as they are, the others marked slow."""
    return [*values[:count], *(pytest.param(value, marks=pytest.mark.slow) for value in values[count:])]

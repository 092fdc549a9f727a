"""Fixtures of the tests of the core."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

from cases import Workshop
from kinds import REPEATED
from tiny_models import TEXT_CONFIGS

FIRST_BACKBONE = next(iter(TEXT_CONFIGS))
HARDEST_PROMPTS = ("two_images", "ragged_batch")

settings.register_profile(
    "core",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("core")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests of a case as slow if an earlier case is of its kind; that one runs with all backbones and prompts."""
    for item in list(items):
        given = item.callspec.params if hasattr(item, "callspec") else {}
        if (given.get("name", "llava_next"), given.get("method")) in REPEATED:
            item.add_marker("slow")
            easier = given.get("prompt", HARDEST_PROMPTS[0]) not in HARDEST_PROMPTS
            if easier or given.get("text", FIRST_BACKBONE) != FIRST_BACKBONE:
                items.remove(item)


@pytest.fixture(scope="session")
def workshop(tiny_checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Return the builder of models and inputs."""
    return Workshop(tiny_checkpoint, tmp_path_factory.mktemp("workshop"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Draw the same random inputs in every run."""
    torch.manual_seed(0)

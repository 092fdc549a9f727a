"""Shared fixtures. The environment is fixed before torch is imported: one thread, no network."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import save_tiny_llava_next


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return ``make(text="llama", **options) -> Path``: a checkpoint folder, built once per set of options.

    The options are those of `tiny_models.tiny_config` (``layers``, ``image_size``, ...) and ``seed``.
    """
    folders: dict[tuple, Path] = {}

    def make(text: str = "llama", **options) -> Path:
        key = (text, *sorted(options.items()))
        if key not in folders:
            folders[key] = save_tiny_llava_next(tmp_path_factory.mktemp(f"tiny_{text}"), text, **options)
        return folders[key]

    return make

"""Bundled tasks on local data sets, put behind them by a YAML file as a user would write it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from lmms_results import evaluator
from local_data import TASKS


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the datasets library caches out of the user's home."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


@pytest.fixture
def local_task(tmp_path: Path) -> Callable[..., Callable[..., dict]]:
    """Return ``make(task, rows, features, split="test", **fields) -> run``.

    ``run(model, **options)`` evaluates the bundled task ``task`` on ``rows``, under the name ``local``. ``fields`` are
    further fields of the user's YAML file.
    """
    from datasets import Dataset, Features

    def make(task: str, rows: list[dict], features: dict, *, split: str = "test", **fields) -> Callable[..., dict]:
        Dataset.from_list(rows, features=Features(features)).to_parquet(tmp_path / "data.parquet")
        own = {
            "include": str(next(TASKS.glob(f"*/{task}.yaml"))),
            "task": "local",
            "dataset_path": "parquet",
            "dataset_kwargs": {"data_files": {split: "data.parquet"}},
            **fields,
        }
        (tmp_path / "local.yaml").write_text(yaml.safe_dump(own))
        return lambda model, **options: evaluator(tmp_path)(model, "local", **options)

    return make

"""Shared fixtures. The environment is fixed before torch is imported: one thread, no network."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_meter import save_tiny_meter
from tiny_models import save_tiny_llava, save_tiny_llava_next
from tiny_tasks import DOCUMENTS, write_tasks
from tiny_vilt import save_tiny_vilt

LONGEST = ("test_documented_commands.py", "test_hub_page.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first, so that of several workers none ends long after the others."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """Let the garbage collections that lmms-eval and accelerate ask for pass by the libraries and the tests."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="session")
def tiny_llava_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a stock LLaVA-1.5 checkpoint."""
    return save_tiny_llava(tmp_path_factory.mktemp("tiny_llava"))


@pytest.fixture(scope="session")
def tiny_vilt_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return ``make(head="question_answering", **options) -> Path``: a stock ViLT checkpoint, built once."""
    folders: dict[tuple, Path] = {}

    def make(head: str = "question_answering", **options) -> Path:
        key = (head, repr(sorted(options.items())))
        if key not in folders:
            folders[key] = save_tiny_vilt(tmp_path_factory.mktemp(f"tiny_vilt_{head}"), head, **options)
        return folders[key]

    return make


@pytest.fixture(scope="session")
def tiny_meter_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return ``make(head="question_answering", **options) -> Path``: a METER checkpoint, built once."""
    folders: dict[tuple, Path] = {}

    def make(head: str = "question_answering", **options) -> Path:
        key = (head, repr(sorted(options.items())))
        if key not in folders:
            folders[key] = save_tiny_meter(tmp_path_factory.mktemp(f"tiny_meter_{head}"), head, **options)
        return folders[key]

    return make


@pytest.fixture(scope="session")
def fusion_checkpoint(tiny_vilt_checkpoint, tiny_meter_checkpoint) -> Callable[..., Path]:
    """Return ``make(architecture, head="question_answering", **options) -> Path``, of "vilt" or "meter"."""
    makers = {"vilt": tiny_vilt_checkpoint, "meter": tiny_meter_checkpoint}
    return lambda architecture, head="question_answering", **options: makers[architecture](head, **options)


class DeprecationCollector(logging.Handler):
    """Keeps what a library logs about deprecated use."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "deprecat" in record.getMessage():
            self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def no_deprecated_use_of_transformers() -> Iterator[None]:
    """Fail a test in which transformers logs a deprecation; its warnings are errors by pytest's options."""
    collector = DeprecationCollector()
    logger = logging.getLogger("transformers")
    logger.addHandler(collector)
    yield
    logger.removeHandler(collector)
    assert collector.messages == []


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Return what is logged, by transformers too, whose loggers may keep it to themselves."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the test tasks and their data: one, two or no images per question, of several sizes."""
    return write_tasks(tmp_path_factory.mktemp("tasks") / "tiny", DOCUMENTS)


@pytest.fixture
def datasets_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the datasets library caches out of the user's home."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")

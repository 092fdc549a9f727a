"""Where training data comes from: a file, a folder or a Hub id, read by the `datasets` library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets import Dataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError, DatasetsError

FILE_FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}


def read(argument: str, source: str, split: str | None, default_split: str, config: str | None) -> Dataset:
    """Read a split of a data source.

    Parameters
    ----------
    argument
        What errors call the source.
    source
        File (parquet, json, jsonl, csv), folder, or Hub id.
    split, default_split
        Split of a folder or Hub id, and which one is taken if none is named.
    config
        Configuration of a Hub data set.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If there is no such data or split, if the file is empty or of another format, or if it is broken; then the line
        is named where the format has lines.
    """
    path = Path(source)
    if path.is_file():
        return read_file(argument, path, split, config)
    if (path / "dataset_dict.json").exists():
        with reading(argument, source):
            splits = load_from_disk(source)
        if (split or default_split) not in splits:
            raise ValueError(
                f"{argument}={source!r} has no split {split or default_split!r}; it has {', '.join(splits)}"
            )
        return splits[split or default_split]
    if not has_splits(source):
        if split is not None:
            raise ValueError(f"split={split!r}: {source!r} is a single saved data set, without splits")
        with reading(argument, source):
            return load_from_disk(source)
    with reading(argument, source):
        return load_dataset(source, config, split=split or default_split)


def read_file(argument: str, path: Path, split: str | None, config: str | None) -> Dataset:
    """Read a file, which has neither splits nor configurations; `read` says more."""
    source = str(path)
    if split is not None or config is not None:
        raise ValueError(f"{argument}={source!r} is a file, which has neither splits nor configurations")
    if path.suffix not in FILE_FORMATS:
        raise ValueError(f"{argument}={source!r}; allowed files: {', '.join(FILE_FORMATS)}")
    with reading(argument, source):
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        try:
            return load_dataset(FILE_FORMATS[path.suffix], data_files=source, split="train")
        except DatasetGenerationError:
            if FILE_FORMATS[path.suffix] == "json":
                check_json(path)
            raise


def has_splits(source: str) -> bool:
    """Whether a source has splits: a file and a single saved data set have none."""
    path = Path(source)
    return not (path.is_file() or (path / "state.json").exists())


@contextmanager
def reading(argument: str, source: str) -> Iterator[None]:
    """Turn what the `datasets` library raises about a source into a ValueError that names it."""
    try:
        yield
    except (DatasetsError, OSError, ValueError) as error:
        reason = error.__cause__ if isinstance(error, DatasetGenerationError) else error
        if "corresponds to no data" in str(reason):
            raise ValueError(f"{argument}={source!r} has no rows") from error
        raise ValueError(f"{argument}={source!r} cannot be read: {reason}") from error


def check_json(path: Path) -> None:
    """Find where a file stops being JSON, a list or an object in every line: a ValueError says it."""
    with path.open("rb") as file:
        if file.read(1) == b"[":
            file.seek(0)
            json.load(file)
            return
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                found = json.loads(line) if line.strip() else {}
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON: {error}") from error
            if not isinstance(found, dict):
                raise ValueError(f"line {number} holds a JSON {type(found).__name__}; allowed: an object")

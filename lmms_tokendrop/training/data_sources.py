"""Where training data comes from: a file, a folder or a Hub id, read by the `datasets` library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError, DatasetsError

FILE_FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}


@dataclass(frozen=True)
class DataSource:
    """A split of stored data.

    Parameters
    ----------
    argument
        Option that names the data, for errors.
    name
        File (parquet, json, jsonl, csv), folder, or Hub id.
    split, default_split
        Split of a folder or Hub id, and which one is taken if none is named.
    config
        Configuration of a Hub data set.
    """

    argument: str
    name: str
    split: str | None
    default_split: str
    config: str | None

    def __str__(self) -> str:
        return f"{self.argument}={self.name!r}"

    def read(self) -> Dataset:
        """Read the split.

        Raises
        ------
        ValueError
            If there is no such data or split, if the file is empty or of another format, or if it is broken; then the
            line is named where the format has lines.
        """
        path = Path(self.name)
        if path.is_file():
            return self._read_file(path)
        split = self.split or self.default_split
        if (path / "dataset_dict.json").exists():
            with self._reading():
                splits = load_from_disk(self.name)
            if split not in splits:
                raise ValueError(f"{self} has no split {split!r}; it has {', '.join(splits)}")
            return splits[split]
        if not has_splits(self.name):
            if self.split is not None:
                raise ValueError(f"split={self.split!r}: {self.name!r} is a single saved data set, without splits")
            with self._reading():
                return load_from_disk(self.name)
        with self._reading():
            return load_dataset(self.name, self.config, split=split)

    def _read_file(self, path: Path) -> Dataset:
        """Read a file, which has neither splits nor configurations."""
        if self.split is not None or self.config is not None:
            raise ValueError(f"{self} is a file, which has neither splits nor configurations")
        if path.suffix not in FILE_FORMATS:
            raise ValueError(f"{self}; allowed files: {', '.join(FILE_FORMATS)}")
        with self._reading():
            if not path.stat().st_size:
                raise ValueError("the file is empty")
            try:
                return load_dataset(FILE_FORMATS[path.suffix], data_files=str(path), split="train")
            except DatasetGenerationError:
                if FILE_FORMATS[path.suffix] == "json":
                    check_json(path)
                raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what the `datasets` library raises about the source into a ValueError that names it."""
        try:
            yield
        except (DatasetsError, OSError, ValueError) as error:
            reason = error.__cause__ if isinstance(error, DatasetGenerationError) else error
            if "corresponds to no data" in str(reason):
                raise ValueError(f"{self} has no rows") from error
            raise ValueError(f"{self} cannot be read: {reason}") from error


def has_splits(source: str) -> bool:
    """Whether a source has splits: a file and a single saved data set have none."""
    path = Path(source)
    return not (path.is_file() or (path / "state.json").exists())


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

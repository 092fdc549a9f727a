"""Training data from the `datasets` library: a folder, a file or a Hub id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Image, load_dataset, load_from_disk
from datasets.exceptions import DatasetNotFoundError

from lmms_tokendrop.images import to_rgb, whole_files

FILE_FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}


class DatasetRows:
    """Rows of a data set by the names of a task.

    Parameters
    ----------
    data
        The data set.
    columns
        For each column of the task, its name in the data.
    image_columns
        Those of them that hold images.
    """

    def __init__(self, data: Dataset, columns: Mapping[str, str], image_columns: tuple[str, ...]) -> None:
        self.data = data.select_columns(list(dict.fromkeys(columns.values())))
        self.columns = dict(columns)
        self.image_columns = image_columns
        others = {column: name for column, name in columns.items() if column not in image_columns}
        self.without_images = data.select_columns(list(dict.fromkeys(others.values())))
        self.class_labels = {
            column: data.features[name]
            for column, name in columns.items()
            if isinstance(data.features[name], ClassLabel)
        }

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row; images as RGB, class labels by name."""
        with whole_files():
            row = self.data[index]
        values = {column: self._named(column, row[name]) for column, name in self.columns.items()}
        return {column: to_rgb(value) if column in self.image_columns else value for column, value in values.items()}

    def value(self, column: str, index: int) -> Any:
        """One value that is no image."""
        return self._named(column, self.without_images[index][self.columns[column]])

    def distinct(self, column: str) -> list[Any]:
        """The different values of a column that is no image."""
        return [self._named(column, value) for value in self.without_images.unique(self.columns[column])]

    def _named(self, column: str, value: Any) -> Any:
        label = self.class_labels.get(column)
        return value if label is None or value is None or value < 0 else label.int2str(value)


def load_rows(
    source: str,
    split: str | None,
    default_split: str,
    *,
    config: str | None,
    limit: int | None,
    columns: Mapping[str, tuple[str, ...]],
    image_columns: tuple[str, ...],
    renamed: Mapping[str, str],
    image_root: str | None,
) -> DatasetRows:
    """Load data and find the columns of a task.

    Parameters
    ----------
    source
        File (parquet, json, jsonl, csv), folder, or Hub id.
    split, default_split
        Split of a folder or Hub id, and which one is taken if none is named.
    config
        Configuration of a Hub data set.
    limit
        Take the first so many rows; None: all.
    columns, image_columns
        Of the task.
    renamed
        Names that the user gave for columns of the task.
    image_root
        Folder of images that are named by file; None: as the data names them.

    Returns
    -------
    DatasetRows

    Raises
    ------
    ValueError
        If there is no such data, or if it lacks a column.
    """
    data = read(source, split, default_split, config)
    data = data if limit is None else data.select(range(min(limit, len(data))))
    if not len(data):
        raise ValueError(f"data={source!r} has no rows")
    unknown = sorted(set(renamed) - set(columns))
    if unknown:
        raise ValueError(f"columns: unknown {', '.join(map(repr, unknown))}; allowed: {', '.join(columns)}")
    found = {}
    for column, names in columns.items():
        names = (renamed[column],) if column in renamed else names
        there = [name for name in names if name in data.column_names]
        if not there:
            raise ValueError(
                f"data={source!r} has no column {' or '.join(map(repr, names))}; it has "
                f"{', '.join(data.column_names)}. Name it with columns, as {column}=NAME"
            )
        found[column] = there[0]
    for column in image_columns:
        data = as_images(data, found[column], image_root)
    return DatasetRows(data, found, image_columns)


def read(source: str, split: str | None, default_split: str, config: str | None) -> Dataset:
    """Read a split of a data source; a ValueError says what is wrong with its name, its split or its format."""
    path = Path(source)
    try:
        if path.is_file():
            if split is not None or config is not None:
                raise ValueError(f"data={source!r} is a file, which has neither splits nor configurations")
            if path.suffix not in FILE_FORMATS:
                raise ValueError(f"data={source!r}; allowed files: {', '.join(FILE_FORMATS)}")
            return load_dataset(FILE_FORMATS[path.suffix], data_files=str(path), split="train")
        if (path / "dataset_dict.json").exists():
            splits = load_from_disk(source)
            if (split or default_split) not in splits:
                raise ValueError(f"data={source!r} has no split {split or default_split!r}; it has {', '.join(splits)}")
            return splits[split or default_split]
        if not has_splits(source):
            if split is not None:
                raise ValueError(f"split={split!r}: {source!r} is a single saved data set, without splits")
            return load_from_disk(source)
        return load_dataset(source, config, split=split or default_split)
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError) as error:
        raise ValueError(f"data={source!r} cannot be read: {error}") from error


def has_splits(source: str) -> bool:
    """Whether a source has splits: a file and a single saved data set have none."""
    path = Path(source)
    return not (path.is_file() or (path / "state.json").exists())


def as_images(data: Dataset, name: str, root: str | None) -> Dataset:
    """Let a column that names files hold the images in them."""
    feature = data.features[name]
    if isinstance(feature, Image):
        if root is not None:
            raise ValueError(f"image_root={root!r}: column {name!r} holds images, not names of files")
        return data
    if getattr(feature, "dtype", None) != "string":
        raise ValueError(f"column {name!r} holds {feature}; allowed: images, or names of files")
    if root is not None:
        data = data.map(lambda row: {name: str(Path(root) / row[name])}, desc="image files")
    first = data[0][name]
    if not Path(first).is_file():
        raise ValueError(f"column {name!r}: there is no file {first!r}; name the folder with image_root")
    return data.cast_column(name, Image())

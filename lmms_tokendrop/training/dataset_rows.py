"""Rows of training data that is stored, by the names of a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Image
from PIL import UnidentifiedImageError
from pyarrow import compute

from lmms_tokendrop.images import UNREADABLE, to_rgb, whole_files
from lmms_tokendrop.training.data_sources import DataSource
from lmms_tokendrop.training.rows import RowError, named_row

CHECKED_ROWS = 1000
"""Rows that are looked at together."""


class DatasetRows:
    """Rows of a data set by the names of a task.

    Parameters
    ----------
    source
        What errors call the data.
    data
        The data set.
    columns
        For each column of the task, its name in the data.
    image_columns
        Those of them that hold images.
    """

    def __init__(self, source: str, data: Dataset, columns: Mapping[str, str], image_columns: tuple[str, ...]) -> None:
        self.source = source
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
        """One row; images as RGB, class labels by name. A ValueError says why an image cannot be read."""
        try:
            with whole_files():
                row = self.data[index]
        except UnidentifiedImageError as error:
            raise ValueError("its image is of no format that Pillow reads") from error
        except UNREADABLE as error:
            raise ValueError(f"its image cannot be read: {error}") from error
        values = {column: self._named(column, row[name]) for column, name in self.columns.items()}
        return {column: to_rgb(value) if column in self.image_columns else value for column, value in values.items()}

    def value(self, column: str, index: int) -> Any:
        """One value that is no image."""
        return self._named(column, self.without_images[index][self.columns[column]])

    def stored(self) -> Iterator[dict[str, Any]]:
        """All rows without their images."""
        columns = {column: name for column, name in self.columns.items() if column not in self.image_columns}
        for index, row in enumerate(self.without_images):
            with named_row(self, index):
                values = {column: self._named(column, row[name]) for column, name in columns.items()}
            yield values

    def _named(self, column: str, value: Any) -> Any:
        label = self.class_labels.get(column)
        return value if label is None or value is None or value < 0 else label.int2str(value)


def load_rows(
    source: DataSource,
    *,
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
        Where it is.
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
        If there is no such data, or if it lacks a column or in a row an image.
    """
    if image_root is not None and not Path(image_root).is_dir():
        raise ValueError(f"image_root={image_root!r}: there is no such folder")
    data = source.read()
    data = data if limit is None else data.select(range(min(limit, len(data))))
    if not len(data):
        raise ValueError(f"{source} has no rows")
    unknown = sorted(set(renamed) - set(columns))
    if unknown:
        raise ValueError(f"columns: unknown {', '.join(map(repr, unknown))}; allowed: {', '.join(columns)}")
    found = {}
    for column, names in columns.items():
        names = (renamed[column],) if column in renamed else names
        there = [name for name in names if name in data.column_names]
        if not there:
            raise ValueError(
                f"{source} has no column {' or '.join(map(repr, names))}; it has {', '.join(data.column_names)}. Name "
                f"it with columns, as {column}=NAME"
            )
        found[column] = there[0]
    for column in image_columns:
        data = as_images(data, str(source), found[column], image_root)
    return DatasetRows(str(source), data, found, image_columns)


def as_images(data: Dataset, source: str, name: str, root: str | None) -> Dataset:
    """Let a column hold images: it does, or names their files; a ValueError names a row without an image."""
    feature = data.features[name]
    if isinstance(feature, Image):
        if root is not None:
            raise ValueError(f"image_root={root!r}: column {name!r} holds images, not names of files")
        for index, missing in enumerate(without_image(data, name)):
            if missing:
                raise RowError(f"{source}, row {index}: column {name!r} has no image")
        return data
    if getattr(feature, "dtype", None) not in ("string", "large_string"):
        raise ValueError(f"{source}: column {name!r} holds {feature}; allowed: images, or names of files")
    for index, file in enumerate(data[name]):
        if file is None:
            raise RowError(f"{source}, row {index}: column {name!r} has no image")
        path = Path(root or "", file)
        if not path.is_file():
            raise RowError(
                f"{source}, row {index}: column {name!r}: there is no file {str(path)!r}; name the folder with "
                "image_root"
            )
    if root is not None:
        data = data.map(lambda row: {name: str(Path(root, row[name]))}, desc="image files")
    return data.cast_column(name, Image())


def without_image(data: Dataset, name: str) -> Iterator[bool]:
    """Whether a row has neither the bytes nor the file of an image, row by row; no image is decoded."""
    for batch in data.select_columns([name]).with_format("arrow").iter(CHECKED_ROWS):
        images = batch[name]
        absent = [compute.is_null(compute.struct_field(images, part)) for part in ("bytes", "path")]
        yield from compute.and_(*absent).to_pylist()

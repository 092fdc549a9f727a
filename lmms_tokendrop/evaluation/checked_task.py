"""lmms-eval tasks that check their data set, and say what is wrong with it, before the first question."""

from __future__ import annotations

from typing import Any, ClassVar

from datasets import ClassLabel, Dataset
from lmms_eval.api.task import ConfigurableTask

from lmms_tokendrop.evaluation.tasks_path import tasks_path


class CheckedTask(ConfigurableTask):
    """Task of a YAML file whose data set has certain columns.

    lmms-eval tries again whatever fails while a data set loads and reports the tries; what is checked here fails once.

    Parameters
    ----------
    config
        What the YAML file says.

    Attributes
    ----------
    source : str
        The bundled YAML file, below the tasks' folder.
    columns : tuple of str
        Columns that a document must have.
    """

    source: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        """Load the data set and check it.

        Parameters
        ----------
        dataset_kwargs
            Further arguments of `datasets.load_dataset`.

        Raises
        ------
        ValueError
            If no data set is named, or if it lacks the split or a column; the message says what to do.
        """
        task, split = self.config.task, self.config.test_split
        if self.config.dataset_path is None:
            raise ValueError(
                f"{task} needs a data set, and names none: write a YAML file with "
                f"'include: {tasks_path() / self.source}', 'task: <your name for it>' and "
                f"'dataset_path: <Hub id or folder>', and pass its folder as --include_path; columns: "
                f"{', '.join(self.columns)}"
            )
        super().download(dataset_kwargs)
        if split not in self.dataset:
            raise ValueError(
                f"{task}: test_split is {split!r}, and {self.config.dataset_path} has {', '.join(self.dataset)}"
            )
        missing = [name for name in self.columns if name not in self.dataset[split].column_names]
        if missing:
            raise ValueError(
                f"{task}: {self.config.dataset_path} has no column {', '.join(missing)}; it has "
                f"{', '.join(self.dataset[split].column_names)}"
            )
        for documents in (self.dataset, self.dataset_no_image):
            documents[split] = self.prepared(documents[split])

    def prepared(self, documents: Dataset) -> Dataset:
        """Return the documents as the task reads them."""
        return documents


class LabelledTask(CheckedTask):
    """Task whose column ``label`` has one of the choices: as text in any case, as truth value, or as `ClassLabel`."""

    def prepared(self, documents: Dataset) -> Dataset:
        """Write labels as the choices are written.

        Raises
        ------
        ValueError
            If a label is none of the choices.
        """
        labels = [label.strip().lower() for label in label_texts(documents)]
        unknown = sorted(set(labels) - set(self.config.doc_to_choice))
        if unknown:
            raise ValueError(
                f"{self.config.task}: labels {', '.join(map(repr, unknown))}; allowed, as text or as names of a "
                f"ClassLabel: {', '.join(self.config.doc_to_choice)}"
            )
        return documents.remove_columns("label").add_column("label", labels)


def label_texts(documents: Dataset) -> list[str]:
    """Return the column ``label`` as text; where a `ClassLabel` has no name, its number."""
    feature, labels = documents.features["label"], documents["label"]
    if isinstance(feature, ClassLabel):
        return [feature.names[number] if 0 <= number < len(feature.names) else str(number) for number in labels]
    return [str(label) for label in labels]

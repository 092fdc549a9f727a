"""lmms-eval tasks whose questions come from code instead of a dataset file."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, DatasetDict
from lmms_eval.api.task import ConfigurableTask


class GeneratedTask(ConfigurableTask):
    """Task that asks what :meth:`questions` returns.

    Parameters
    ----------
    config
        What the YAML file says.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def questions(self) -> Dataset:
        """Return the test questions; a column is `image`."""
        raise NotImplementedError

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        """Build the dataset.

        Parameters
        ----------
        dataset_kwargs
            Unused.
        """
        questions = self.questions()
        self.dataset = DatasetDict({"test": questions})
        self.dataset_no_image = DatasetDict({"test": questions.remove_columns("image")})

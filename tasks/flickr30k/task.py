"""Flickr30k retrieval: find an image's captions among all captions, and a caption's image among all images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from lmms_tokendrop.evaluation.checked_task import CheckedTask
from lmms_tokendrop.images import to_rgb

RANKS = (1, 5, 10)
Row = tuple[int, int, np.ndarray]
"""First caption of an image among all, number of its captions, and its scores with all of them."""


class Flickr30k(CheckedTask):
    """Flickr30k's test images with their captions.

    The public data set has all images in one split; `test_images` names the 1,000 of the split by Karpathy and Fei-Fei
    (https://arxiv.org/abs/1412.2306), on which retrieval is reported.

    Parameters
    ----------
    config
        What the YAML file says. `test_images` is a file of names as in the column `filename`, or None for all rows.
    """

    source = "flickr30k/tokendrop_flickr30k.yaml"
    columns = ("image", "caption", "filename")

    def __init__(self, config: dict[str, Any]) -> None:
        self.test_images = config.get("test_images")
        super().__init__({key: value for key, value in config.items() if key != "test_images"})

    def prepared(self, documents: Dataset) -> Dataset:
        """Select the test images, and number their captions in a column `first_caption`.

        Raises
        ------
        ValueError
            If a test image is missing, or if an image has no list of captions.
        """
        if self.test_images is not None:
            names = (Path(__file__).parent / self.test_images).read_text().split()
            rows = {name: row for row, name in enumerate(documents["filename"])}
            missing = [name for name in names if name not in rows]
            if missing:
                raise ValueError(
                    f"{self.config.task}: {len(missing)} of the {len(names)} images in {self.test_images} are not in "
                    f"{self.config.dataset_path}, such as {missing[0]}; 'test_images: null' takes every row"
                )
            documents = documents.select([rows[name] for name in names])
        captions = list(documents["caption"])
        if not all(isinstance(texts, list) and texts for texts in captions):
            raise ValueError(f"{self.config.task}: every row's caption must be a list of one text or more")
        return documents.add_column("first_caption", list(accumulate(map(len, captions), initial=0))[:-1])


def doc_to_visual(doc: dict[str, Any]) -> list[Any]:
    """Picture of a document."""
    return [to_rgb(doc["image"])]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """Rank the captions of an image.

    Parameters
    ----------
    doc
        The image's document.
    results
        One JSON list: the image's score with every caption.

    Returns
    -------
    dict
        `text_recall@k`: whether one of the image's captions is among the k best. `image_recall@k`: what the ranks of
        the images are found from when all scores are there.

    Raises
    ------
    ValueError
        If a score is not finite.
    """
    scores = np.asarray(json.loads(results[0]), dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite; nothing can be ranked by it")
    first, number = doc["first_caption"], len(doc["caption"])
    rank = text_rank(scores, first, number)
    row: Row = (first, number, scores)
    return {
        **{f"text_recall@{k}": float(rank <= k) for k in RANKS},
        **{f"image_recall@{k}": row for k in RANKS},
    }


def text_rank(scores: np.ndarray, first: int, number: int) -> int:
    """Return the rank of an image's best caption among those of other images; a tie counts against it."""
    others = np.delete(scores, slice(first, first + number))
    return 1 + int((others >= scores[first : first + number].max()).sum())


def image_ranks(rows: Sequence[Row]) -> list[int]:
    """Return, for each caption of these images, the rank of its image among them; a tie counts against it."""
    scores = np.stack([row for _, _, row in rows])
    ranks = []
    for place, (first, number, _) in enumerate(rows):
        columns = scores[:, first : first + number]
        ranks += (columns >= columns[place]).sum(0).tolist()
    return ranks


def image_recall(rows: Sequence[Row], k: int) -> float:
    """Return the share of captions whose image is among the k best."""
    return float(np.mean(np.asarray(image_ranks(rows)) <= k))


def image_recall_1(rows: Sequence[Row]) -> float:
    """Return image recall at 1."""
    return image_recall(rows, 1)


def image_recall_5(rows: Sequence[Row]) -> float:
    """Return image recall at 5."""
    return image_recall(rows, 5)


def image_recall_10(rows: Sequence[Row]) -> float:
    """Return image recall at 10."""
    return image_recall(rows, 10)

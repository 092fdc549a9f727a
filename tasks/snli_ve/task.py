"""SNLI-VE: whether a picture entails a sentence, contradicts it, or does neither."""

from __future__ import annotations

from typing import Any

from lmms_tokendrop.evaluation.checked_task import LabelledTask
from lmms_tokendrop.images import to_rgb


class SnliVe(LabelledTask):
    """SNLI-VE on the data set that the user names."""

    source = "snli_ve/tokendrop_snli_ve.yaml"
    columns = ("image", "hypothesis", "label")


def doc_to_visual(doc: dict[str, Any]) -> list[Any]:
    """Picture of a hypothesis."""
    return [to_rgb(doc["image"])]

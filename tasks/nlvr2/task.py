"""NLVR2: whether a sentence is true of two pictures."""

from __future__ import annotations

from typing import Any

from lmms_tokendrop.evaluation.checked_task import LabelledTask
from lmms_tokendrop.images import to_rgb


class Nlvr2(LabelledTask):
    """NLVR2 on the data set that the user names."""

    source = "nlvr2/tokendrop_nlvr2.yaml"
    columns = ("left_image", "right_image", "sentence", "label")


def doc_to_visual(doc: dict[str, Any]) -> list[Any]:
    """Both pictures of a sentence, the left one first."""
    return [to_rgb(doc["left_image"]), to_rgb(doc["right_image"])]

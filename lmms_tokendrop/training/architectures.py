"""The encoders that can be trained, and the head of each task. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from lmms_tokendrop.evaluation.heads import HEADS, RETRIEVAL, TWO_IMAGES

TASK_HEADS = {
    "vqa": "question_answering",
    "snli-ve": "visual_entailment",
    "nlvr2": TWO_IMAGES,
    "retrieval": RETRIEVAL,
}
"""The head that each task trains."""


@dataclass(frozen=True)
class Architecture:
    """Where the classes of one architecture are.

    Parameters
    ----------
    module
        Module of all classes.
    class_name
        What their names begin with.
    model_types
        What `config.json` of its checkpoints says.
    token_types
        Parameter of the encoder with a row for text and one for each image.
    """

    module: str
    class_name: str
    model_types: tuple[str, ...]
    token_types: str

    def encoder_class(self) -> Any:
        """Import the class without head."""
        return getattr(import_module(self.module), f"{self.class_name}Model")

    def head_class(self, task: str) -> Any:
        """Import the class with the head of a task."""
        return getattr(import_module(self.module), f"{self.class_name}For{HEADS[TASK_HEADS[task]]}")


ARCHITECTURES: dict[str, Architecture] = {
    "vilt": Architecture(
        module="lmms_tokendrop.modeling.modeling_vilt_tokendrop",
        class_name="ViltTokenDrop",
        model_types=("vilt", "vilt_tokendrop"),
        token_types="embeddings.token_type_embeddings.weight",
    ),
    "meter": Architecture(
        module="lmms_tokendrop.modeling.modeling_meter_tokendrop",
        class_name="MeterTokenDrop",
        model_types=("meter", "meter_tokendrop"),
        token_types="token_type_embeddings.weight",
    ),
}

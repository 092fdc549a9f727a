"""The encoders of text and image that the same tests run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fusion_reference import METHODS, REDUCING, masked_logits
from meter_reference import METER_METHODS, METER_REDUCING, meter_masked_logits
from tiny_meter import row_of_meter, tiny_meter_inputs
from tiny_vilt import row_of, tiny_vilt_inputs
from transformers import ViltForQuestionAnswering

from lmms_tokendrop import FusionReductionConfig, MeterReductionConfig
from lmms_tokendrop.modeling.architectures.modeling_meter import MeterForQuestionAnswering
from lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop import (
    MeterTokenDropForImagesAndTextClassification,
    MeterTokenDropForQuestionAnswering,
)
from lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop import (
    ViltTokenDropForImagesAndTextClassification,
    ViltTokenDropForQuestionAnswering,
)


@dataclass(frozen=True)
class Architecture:
    """An encoder, its cases and its inputs; the functions are those of `tiny_vilt` and `fusion_reference`."""

    prefix: str
    options: type[FusionReductionConfig]
    methods: dict[str, dict]
    reducing: tuple[str, ...]
    stock: Any
    question_answering: Any
    two_images: Any
    inputs: Callable[..., dict]
    row_of: Callable[[dict, int], dict]
    masked_logits: Callable[..., Any]
    trained_parts: tuple[str, ...]

    def encoder(self, model):
        """The part of a model that drops tokens."""
        return getattr(model, self.prefix)

    def parameters(self, model):
        """Parameters of the blocks in which tokens leave."""
        return [
            parameter
            for part in self.trained_parts
            for parameter in self.encoder(model).get_submodule(part).parameters()
        ]


ARCHITECTURES = {
    "vilt": Architecture(
        prefix="vilt",
        options=FusionReductionConfig,
        methods=METHODS,
        reducing=REDUCING,
        stock=ViltForQuestionAnswering,
        question_answering=ViltTokenDropForQuestionAnswering,
        two_images=ViltTokenDropForImagesAndTextClassification,
        inputs=tiny_vilt_inputs,
        row_of=row_of,
        masked_logits=masked_logits,
        trained_parts=("encoder",),
    ),
    "meter": Architecture(
        prefix="meter",
        options=MeterReductionConfig,
        methods=METER_METHODS,
        reducing=METER_REDUCING,
        stock=MeterForQuestionAnswering,
        question_answering=MeterTokenDropForQuestionAnswering,
        two_images=MeterTokenDropForImagesAndTextClassification,
        inputs=tiny_meter_inputs,
        row_of=row_of_meter,
        masked_logits=meter_masked_logits,
        trained_parts=("cross_modal_text_layers", "cross_modal_image_layers", "vision_model.layers"),
    ),
}
CASES = [(name, method) for name, architecture in ARCHITECTURES.items() for method in architecture.methods]
REDUCING_CASES = [(name, method) for name, architecture in ARCHITECTURES.items() for method in architecture.reducing]

"""METER with fewer tokens, with its heads."""

from ..core.tested_transformers import TESTED  # noqa: F401, warns before an import of another version fails

# isort: split
from .modeling_meter import (
    MeterForImageAndTextRetrieval,
    MeterForImagesAndTextClassification,
    MeterForQuestionAnswering,
    MeterForVisualEntailment,
)
from .staged_meter_model import MeterTokenDropConfig, MeterTokenDropModel, MeterTokenDropPreTrainedModel

__all__ = [
    "MeterTokenDropConfig",
    "MeterTokenDropForImageAndTextRetrieval",
    "MeterTokenDropForImagesAndTextClassification",
    "MeterTokenDropForQuestionAnswering",
    "MeterTokenDropForVisualEntailment",
    "MeterTokenDropModel",
    "MeterTokenDropPreTrainedModel",
]


class _MeterTokenDropHead(MeterTokenDropPreTrainedModel):
    encoder_class = MeterTokenDropModel


class MeterTokenDropForQuestionAnswering(_MeterTokenDropHead, MeterForQuestionAnswering):
    """METER with a classifier over answers (VQAv2) that drops or merges tokens, as `config.token_reduction` says.

    These heads take what the stock ones take, and `sample_seeds`; their outputs have a `report`.
    """


class MeterTokenDropForVisualEntailment(_MeterTokenDropHead, MeterForVisualEntailment):
    """METER with a classifier over contradiction, neutral and entailment (SNLI-VE) that drops or merges tokens."""


class MeterTokenDropForImageAndTextRetrieval(_MeterTokenDropHead, MeterForImageAndTextRetrieval):
    """METER with a score of how well a text fits an image that drops or merges tokens."""


class MeterTokenDropForImagesAndTextClassification(_MeterTokenDropHead, MeterForImagesAndTextClassification):
    """METER with a classifier over a text and several images (NLVR2) that drops or merges tokens.

    The text is reduced anew beside each image.
    """

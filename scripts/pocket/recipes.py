"""How each bundled model is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from transformers import ProcessorMixin

from pocket import llava_next, meter, vilt
from pocket.curriculum import LlavaNextCurriculum
from pocket.encoder_curriculum import METER_STAGES, VILT_STAGES, EncoderCurriculum
from pocket.losses import PocketTrainingModel
from pocket.meter_training import MeterTrainingModel
from pocket.training import Curriculum
from pocket.vilt_training import ViltTrainingModel


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes
    ----------
    build
        From a seed to the untrained model with its losses.
    processor
        Processor that is saved with the model.
    curriculum
        What it is trained on.
    steps
        Length of the run.
    """

    build: Callable[[int], nn.Module]
    processor: ProcessorMixin
    curriculum: Curriculum
    steps: int


def llava_next_recipe() -> Recipe:
    """How the pocket LLaVA-NeXT is trained."""
    return Recipe(
        lambda seed: PocketTrainingModel(llava_next.build_model(seed)),
        llava_next.build_processor(),
        LlavaNextCurriculum(),
        2700,
    )


def vilt_recipe() -> Recipe:
    """How the pocket ViLT is trained."""
    processor = vilt.build_processor()
    curriculum = EncoderCurriculum(VILT_STAGES, processor.tokenizer)
    return Recipe(lambda seed: ViltTrainingModel(vilt.build_model(seed)), processor, curriculum, 3400)


def meter_recipe() -> Recipe:
    """How the pocket METER is trained."""
    processor = meter.build_processor()
    curriculum = EncoderCurriculum(METER_STAGES, processor.tokenizer)
    return Recipe(lambda seed: MeterTrainingModel(meter.build_model(seed)), processor, curriculum, 2300)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "llava_next": llava_next_recipe,
    "vilt": vilt_recipe,
    "meter": meter_recipe,
}

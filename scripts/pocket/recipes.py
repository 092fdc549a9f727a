"""How each bundled model is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn
from transformers import ProcessorMixin, set_seed
from transformers.trainer_utils import get_last_checkpoint

from lmms_tokendrop.modeling.methods.available import reductions
from pocket import llava_next, meter, vilt
from pocket.curriculum import LlavaNextCurriculum
from pocket.encoder_curriculum import METER_STAGES, VILT_STAGES, EncoderCurriculum
from pocket.losses import PocketTrainingModel
from pocket.meter_training import MeterTrainingModel
from pocket.student_training import StudentCurriculum, StudentTrainingModel, Teacher, load_bundled
from pocket.training import Curriculum, export, make_trainer
from pocket.vilt_training import ViltTrainingModel

STUDENT_STEPS = 2000
STUDENT_RATE = 3e-4
HEAD_RATE = 5.0
"""How many times the encoder's learning rate a student's heads have, and what its reduction adds."""


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
    learning_rate
        Highest learning rate.
    lr_multipliers
        Factors on it by a part of the parameter's name.
    """

    build: Callable[[int], nn.Module]
    processor: ProcessorMixin
    curriculum: Curriculum
    steps: int
    learning_rate: float = 1e-3
    lr_multipliers: Mapping[str, float] = field(default_factory=dict)

    def train(
        self,
        output: Path,
        seed: int = 0,
        *,
        max_steps: int | None = None,
        learning_rate: float | None = None,
        bf16: bool = True,
    ) -> None:
        """Train, or continue from the last checkpoint.

        Parameters
        ----------
        output
            Folder of checkpoints and log.
        seed
            Seed of the run.
        max_steps, learning_rate
            In place of the recipe's.
        bf16
            Compute in bfloat16 where autocast allows.
        """
        checkpoint = get_last_checkpoint(str(output)) if output.is_dir() else None
        trainer = make_trainer(
            self.build(seed),
            output,
            self.curriculum,
            seed=seed,
            start=int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0,
            max_steps=self.steps if max_steps is None else max_steps,
            learning_rate=self.learning_rate if learning_rate is None else learning_rate,
            lr_multipliers=self.lr_multipliers,
            bf16=bf16,
        )
        trainer.train(resume_from_checkpoint=checkpoint)

    def export(self, output: Path, target: Path) -> None:
        """Write the last checkpoint as a model that `from_pretrained` reads.

        Parameters
        ----------
        output
            Folder of a training.
        target
            Where to write.

        Raises
        ------
        ValueError
            If the training has no checkpoint.
        """
        checkpoint = get_last_checkpoint(str(output)) if output.is_dir() else None
        if checkpoint is None:
            raise ValueError(f"output={str(output)!r} has no checkpoint to export")
        model = self.build(0)
        model.load_state_dict(load_file(Path(checkpoint) / "model.safetensors"))
        export(model.model, self.processor, target, output / "training_log.jsonl")


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


bundled_teacher = cache(Teacher)
"""One teacher per architecture, so that students that see the same batches ask it once."""


def student_recipe(architecture: str, reduction: Mapping[str, Any], *, distilled: bool = True) -> Recipe:
    """How a reduced model is made of a bundled unreduced encoder, or that encoder trained on.

    Parameters
    ----------
    architecture
        Key of `student_training.STAGES`.
    reduction
        Method and its options.
    distilled
        Whether the bundled model teaches; else answers and patches are all there is to learn.

    Returns
    -------
    Recipe
    """
    build_processor = {"vilt": vilt, "meter": meter}[architecture].build_processor
    tokenizer = build_processor().tokenizer  # its padding, which batches set, is not saved
    soft = reductions(architecture).reducers[reduction["method"]].soft_training
    teacher = partial(bundled_teacher, architecture) if distilled else None
    heads = ("classifier", "patch_head", *(["token_reducer"] if soft else []))

    def build(seed: int) -> StudentTrainingModel:
        set_seed(seed)
        return StudentTrainingModel(architecture, load_bundled(architecture, reduction))

    return Recipe(
        build,
        build_processor(),
        StudentCurriculum(architecture, tokenizer, teacher, with_states=soft),
        STUDENT_STEPS,
        learning_rate=STUDENT_RATE,
        lr_multipliers=dict.fromkeys(heads, HEAD_RATE),
    )


SETTINGS: dict[str, dict[str, Any]] = {
    "vilt_pumer": {"method": "pumer", "preset": "vilt-vqav2"},
    "vilt_dynamicvit": {"method": "dynamicvit", "keep_ratio": 0.5},
    "meter_pumer": {"method": "pumer", "preset": "meter-vqav2"},
}
"""Reductions of the bundled students. DynamicViT has as many multiply-accumulates as PuMer."""
RECIPES: dict[str, Callable[[], Recipe]] = {
    "llava_next": llava_next_recipe,
    "vilt": vilt_recipe,
    "meter": meter_recipe,
    **{name: partial(student_recipe, name.split("_")[0], setting) for name, setting in SETTINGS.items()},
}

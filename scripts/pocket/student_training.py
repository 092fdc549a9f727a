"""Students of the pocket encoders: reduced models that keep their teacher's own losses and learn what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.data import IterableDataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmms_tokendrop.pocket.registry import pocket_path
from lmms_tokendrop.training.losses import distillation_loss, kept_token_loss
from lmms_tokendrop.training.model_classes import head_class
from lmms_tokendrop.training.options import DISTILLED_WEIGHTS, SOFT_WEIGHTS
from lmms_tokendrop.training.trainer import final_states, kept_patches, outputs_of
from pocket import meter, vilt
from pocket.encoder_batches import ABSENT
from pocket.encoder_curriculum import METER_STAGES, VILT_STAGES, EncoderCurriculum, EncoderStream
from pocket.encoder_losses import EncoderLosses
from pocket.vilt_training import PATCH_LAYER

STAGES = {"vilt": VILT_STAGES[-1:], "meter": METER_STAGES[-1:]}
"""A student is trained on the task alone, one question per picture."""
PIXEL_VALUES = {"vilt": vilt.pixel_values, "meter": meter.pixel_values}


def load_bundled(architecture: str, reduction: Mapping[str, Any]) -> PreTrainedModel:
    """Load the bundled unreduced model into a class that reduces; parameters of the reduction are drawn.

    Parameters
    ----------
    architecture
        Key of `STAGES`.
    reduction
        Method and its options.

    Returns
    -------
    PreTrainedModel
        With eager attention, whose backward pass is faster than SDPA's on a CPU.
    """
    head = head_class(architecture, "vqa")
    return head.from_pretrained(
        pocket_path(architecture, "none"),
        token_reduction=dict(reduction),
        new_parameters=(f"{head.base_model_prefix}.token_reducer.",),
        dtype=torch.float32,
        attn_implementation="eager",
    )


def model_inputs(architecture: str, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give a batch with one question per picture the form that the processor gives it."""
    return {
        "input_ids": batch["input_ids"][:, 0],
        "attention_mask": batch["attention_mask"][:, 0].long(),
        "pixel_values": PIXEL_VALUES[architecture](batch["images"]),
    }


class Teacher:
    """The bundled unreduced model; what it says of a batch is kept, because several students see the same.

    Parameters
    ----------
    architecture
        Key of `STAGES`.
    """

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        self.model = load_bundled(architecture, {"method": "none"}).eval()
        self.said: dict[tuple[int, int, int], torch.Tensor] = {}

    def say(self, batch: dict[str, Any], seed: int, step: int, with_states: bool) -> dict[str, torch.Tensor]:
        """Answer the batch of a seed and step.

        Returns
        -------
        dict
            `expected`, logarithms of the probabilities of the answers [batch, labels]; where wanted
            `expected_states`, final states of text and image [batch, tokens, channels].
        """
        key = (seed, step, len(batch["images"]))
        if not with_states and key in self.said:
            return {"expected": self.said[key]}
        self.said[key], states = self._run(batch)
        return {"expected": self.said[key], **({"expected_states": states} if with_states else {})}

    @torch.no_grad()
    def _run(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16), final_states(self.model) as states:
            logits = self.model(**model_inputs(self.architecture, batch)).logits
        return logits.float().log_softmax(-1), states[0].float()


class TaughtStream(IterableDataset):
    """A stream's batches with what the teacher says of them.

    Parameters
    ----------
    stream
        The batches.
    teacher
        Says it.
    with_states
        Whether its states are wanted too.
    """

    def __init__(self, stream: EncoderStream, teacher: Teacher, with_states: bool) -> None:
        self.stream = stream
        self.teacher = teacher
        self.with_states = with_states

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step, batch in enumerate(self.stream, self.stream.start):
            said = self.teacher.say(batch, self.stream.seed, step, self.with_states)
            yield {**batch, **said}


class StudentCurriculum(EncoderCurriculum):
    """The task, with what a teacher says of every batch.

    Parameters
    ----------
    architecture
        Key of `STAGES`.
    tokenizer
        Encodes the questions.
    teacher
        Gives the teacher when a stream starts. None: there are the answers alone.
    with_states
        See `TaughtStream`.
    """

    def __init__(
        self,
        architecture: str,
        tokenizer: PreTrainedTokenizerBase,
        teacher: Callable[[], Teacher] | None,
        with_states: bool,
    ) -> None:
        super().__init__(STAGES[architecture], tokenizer)
        self.teacher = teacher
        self.with_states = with_states

    def stream(self, seed: int, start: int) -> IterableDataset[dict[str, Any]]:
        """Endless batches from a step on."""
        batches = super().stream(seed, start)
        return batches if self.teacher is None else TaughtStream(batches, self.teacher(), self.with_states)


class StudentTrainingModel(EncoderLosses):
    """A reduced model with the losses of its teacher's training, the divergence, and what its reduction asks for.

    Parameters
    ----------
    architecture
        Key of `STAGES`.
    model
        From `load_bundled`.
    """

    def __init__(self, architecture: str, model: PreTrainedModel) -> None:
        super().__init__(model, model.config.hidden_size)
        self.architecture = architecture
        self.soft = model.base_model.token_reducer.soft_training

    def forward(self, **batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Sum up the losses of a batch; see `EncoderTrainingModel.forward`."""
        with self.patch_states() as patches, final_states(self.model) as states:
            output = self.model(**model_inputs(self.architecture, batch))
        answers, labels = batch["labels"][:, 0], batch["patch_labels"]
        asked = answers != ABSENT
        logits = output.logits[asked]
        loss, parts = self.answer_losses(logits, answers[asked])
        more = {}
        if patches:
            more["patch"] = self.patch_loss(patches[0][:, -labels.shape[1] :], labels)
        if "expected" in batch:
            more["kl"] = distillation_loss(logits.float(), batch["expected"][asked])
        if self.soft:
            [report] = self.model.reports(output)
            more["ratio"] = self.model.base_model.token_reducer.ratio_loss(report)
            if "expected_states" in batch:
                more["tokens"] = kept_token_loss(states[0].float(), batch["expected_states"], kept_patches(report))
        weights = {"patch": batch["auxiliary_weight"], **(SOFT_WEIGHTS if self.soft else DISTILLED_WEIGHTS)}
        loss = loss + sum(weights[name] * value for name, value in more.items())
        return loss, {name: value.detach() for name, value in {**parts, **more}.items()}

    def hits(self, batch: dict[str, Any]) -> torch.Tensor:
        """Tell which questions of a batch are answered right, [questions]."""
        answers = batch["labels"][:, 0]
        hits = self.model(**model_inputs(self.architecture, batch)).logits.argmax(-1) == answers
        return hits[answers != ABSENT]

    def patch_states(self) -> AbstractContextManager[list[torch.Tensor]]:
        """Collect the states that end with the patches that the loss reads; none where it reads none."""
        source = patch_source(self.model)
        return nullcontext([]) if source is None else outputs_of(source, states_of)


def states_of(output: Any) -> torch.Tensor:
    """The states among what a layer or a norm gives."""
    return output[0] if isinstance(output, tuple) else output


def patch_source(model: PreTrainedModel) -> nn.Module | None:
    """Find the module whose output ends with the patches that the loss on them reads.

    Parameters
    ----------
    model
        A reduced encoder.

    Returns
    -------
    nn.Module or None
        METER: the end of the vision tower. ViLT: the layer that the teacher's training reads, or the last one before
        tokens leave. None where the model sees other patches, or where tokens leave in its first layer.
    """
    reducer = model.base_model.token_reducer
    if reducer.image_scale != 1:
        return None
    if model.base_model_prefix == "meter":
        return model.meter.vision_model.post_layernorm
    last = min([PATCH_LAYER, *(stage.layer - 1 for stage in reducer.stages())])
    return None if last < 0 else model.vilt.encoder.layer[last]

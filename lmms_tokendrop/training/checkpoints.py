"""The models of a training run: the student, its teacher, and new heads on a trained encoder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from lmms_tokendrop import catalogue
from lmms_tokendrop.evaluation.loading import checkpoint_path
from lmms_tokendrop.evaluation.processors import load_processor
from lmms_tokendrop.modeling.core.fusion_plan import build_fusion_reducer
from lmms_tokendrop.training.model_classes import encoder_class, head_class
from lmms_tokendrop.training.options import TrainingOptions
from lmms_tokendrop.training.tasks import TASKS

logger = logging.get_logger(__name__)


def load_student(options: TrainingOptions) -> PreTrainedModel:
    """Load the model that is trained.

    Parameters
    ----------
    options
        Of the run.

    Returns
    -------
    PreTrainedModel
        In float32, with the reduction that the options state. What the checkpoint lacks and is trained from its start
        (DynamicViT's predictors, a new head) is drawn from torch's generator.

    Raises
    ------
    ValueError
        If the checkpoint cannot be read, is of another architecture or image size, lacks the head of the task, or
        cannot be reduced as the options say.
    """
    path = checkpoint_path(options.architecture, options.method, options.pretrained)
    read_config(options.pretrained, path, options.architecture)
    check_reduction(options, path)
    student = with_new_head(options, path) if options.new_head else with_its_head(options, path)
    if options.image_size not in (None, student.config.image_size):
        raise ValueError(
            f"image_size={options.image_size}: pretrained={options.pretrained!r} was made for images of "
            f"{student.config.image_size} pixels a side; start from one made for {options.image_size} "
            "(scripts/convert_meter.py --image-size interpolates METER's positions), or give its own image_size"
        )
    return student


def with_its_head(options: TrainingOptions, path: str) -> PreTrainedModel:
    """Load a checkpoint with its head for the task; a ValueError names what does not fit."""
    prefix = encoder_class(options.architecture).base_model_prefix
    reduced = {"token_reduction": options.token_reduction(), "new_parameters": (f"{prefix}.token_reducer.",)}
    with loading("pretrained", options.pretrained):
        try:
            return load_head(options, path, **reduced)
        except ValueError as error:
            raise ValueError(f"{error}; new_head starts a head anew") from error


@contextmanager
def loading(argument: str, name: str) -> Iterator[None]:
    """Turn what cannot be read of a checkpoint into a ValueError that names the argument."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{argument}={name!r} cannot be loaded: {error}") from error


def check_reduction(options: TrainingOptions, path: str) -> None:
    """Raise a ValueError if the options of the reduction are wrong for the encoder of a checkpoint."""
    config_class = encoder_class(options.architecture).config_class
    reduction = config_class.reduction_class.from_dict(options.token_reduction())
    build_fusion_reducer(config_class.reduction_class, reduction, config_class.from_pretrained(path))


def load_teacher(options: TrainingOptions, student: PreTrainedModel) -> PreTrainedModel | None:
    """Load the unreduced model that the student learns from.

    Parameters
    ----------
    options
        Of the run.
    student
        The model that is trained.

    Returns
    -------
    PreTrainedModel or None
        In evaluation mode and without gradients; None if the run has no teacher.

    Raises
    ------
    ValueError
        If the teacher cannot be read, does not fit, was trained with a reduction, or has other labels, words or sizes
        than the student.
    """
    if options.teacher is None:
        return None
    path = checkpoint_path(options.architecture, "none", options.teacher)
    saved = read_config(options.teacher, path, options.architecture, "teacher")
    method = (saved.get("token_reduction") or {}).get("method", "none")
    if method != "none":
        raise ValueError(f"teacher={options.teacher!r} was trained with method {method!r}; a teacher is unreduced")
    with loading("teacher", options.teacher):
        teacher = load_head(options, path, token_reduction={"method": "none"})
    check_same(options, student.config, teacher.config)
    return teacher.eval().requires_grad_(False)


def load_head(options: TrainingOptions, path: str, **kwargs: Any) -> PreTrainedModel:
    """Load the head of the task with its encoder in float32; a ValueError names what does not fit."""
    head = head_class(options.architecture, options.task)
    # sizes that differ are reported by the model class, with the other keys that do not fit
    return head.from_pretrained(path, dtype=torch.float32, ignore_mismatched_sizes=True, **kwargs)


def check_same(options: TrainingOptions, student: PreTrainedConfig, teacher: PreTrainedConfig) -> None:
    """Raise a ValueError unless the scores of teacher and student mean the same."""
    ours, theirs = student.id2label, teacher.id2label
    if options.task != "retrieval" and ours != theirs:
        number = next(number for number in range(max(len(ours), len(theirs))) if ours.get(number) != theirs.get(number))
        raise ValueError(
            f"teacher={options.teacher!r} has {len(theirs)} labels and the student {len(ours)}; the first that differs "
            f"is number {number}: {theirs.get(number)!r} and {ours.get(number)!r}"
        )
    read: dict[str, Callable[[PreTrainedConfig], int]] = {
        "a vocabulary of {} tokens": lambda config: config.get_text_config().vocab_size,
        "texts of {} tokens": lambda config: config.max_position_embeddings,
        "images of {} pixels a side": lambda config: config.image_size,
    }
    for what, size in read.items():
        if size(teacher) != size(student):
            has, needs = what.format(size(teacher)), size(student)
            raise ValueError(
                f"teacher={options.teacher!r} reads {has} and the student {needs}; both get the same inputs"
            )


def load_student_processor(options: TrainingOptions, config: PreTrainedConfig) -> ProcessorMixin:
    """Load the processor of the checkpoint that the student starts from; it fits its configuration, and pads right."""
    path = checkpoint_path(options.architecture, options.method, options.pretrained)
    with loading("pretrained", options.pretrained):
        processor: Any = load_processor(path, config)
    processor.tokenizer.padding_side = "right"
    return processor


def read_config(name: str, path: str, architecture: str, argument: str = "pretrained") -> dict[str, Any]:
    """Read the configuration of a checkpoint; a ValueError names the argument if there is none or another model's."""
    with loading(argument, name):
        config = PreTrainedConfig.get_config_dict(path)[0]
    known = catalogue.architecture(architecture).model_types
    if config.get("model_type") not in known:
        found = config.get("model_type")
        raise ValueError(f"{argument}={name!r} is of type {found!r}; architecture {architecture!r} loads {known}")
    return config


def with_new_head(options: TrainingOptions, path: str) -> PreTrainedModel:
    """Put a new head for the task on the encoder of a checkpoint.

    Where the task has more images than the checkpoint has token types, a further image starts with the last one's. The
    score of retrieval starts from METER's `itm_score` where the checkpoint has one.

    Parameters
    ----------
    options
        Of the run.
    path
        Folder or Hub id.

    Returns
    -------
    PreTrainedModel
        In float32.
    """
    task, token_types = TASKS[options.task], catalogue.architecture(options.architecture).token_types
    with loading("pretrained", options.pretrained):
        encoder, info = PreTrainedModel.from_pretrained.__func__(
            encoder_class(options.architecture),
            path,
            token_reduction=options.token_reduction(),
            dtype=torch.float32,
            output_loading_info=True,
        )
    missing = [key for key in info["missing_keys"] if not key.startswith("token_reducer.")]
    if missing:
        raise ValueError(f"pretrained={options.pretrained!r} lacks parts of the encoder: {', '.join(missing[:5])}")
    if info["unexpected_keys"]:
        logger.warning(f"left out of {options.pretrained}: {', '.join(sorted(info['unexpected_keys']))}")
    config = copy.deepcopy(encoder.config)
    labels = task.labels or (read_labels(options.labels) if options.labels else None)
    if labels is not None:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}
    config.update(task.config_changes)
    model = head_class(options.architecture, options.task)(config)
    state = encoder.state_dict()
    types, wanted = state[token_types], config.modality_type_vocab_size
    if len(types) < wanted:
        state[token_types] = torch.cat([types, types[-1:].expand(wanted - len(types), -1)])
    model.base_model.load_state_dict(state)
    if options.task == "retrieval" and "itm_score.weight" in info["unexpected_keys"]:
        start_from_matching(model, path)
    return model


def start_from_matching(model: PreTrainedModel, path: str) -> None:
    """Copy the row for texts that fit from `itm_score`, METER's pre-trained head, to the score of retrieval."""
    from lmms_tokendrop.modeling.architectures.modeling_meter import MeterForPreTraining

    matching = MeterForPreTraining.from_pretrained(path, dtype=torch.float32).itm_score
    row = {name: value[1:] for name, value in matching.state_dict().items()}
    model.rank_output.load_state_dict(row)


def read_labels(source: str) -> list[str]:
    """Read answers from a file with one a line, or from the configuration of a checkpoint."""
    path = Path(source)
    if path.is_file():
        with loading("labels", source):
            labels = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        try:
            config = PreTrainedConfig.get_config_dict(source)[0]
        except OSError as error:
            raise ValueError(f"labels={source!r}: neither a file nor a checkpoint") from error
        named = config.get("id2label") or {}
        labels = [named[key] for key in sorted(named, key=int)]
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ValueError(
            f"labels={source!r} has {len(labels)} labels, {len(set(labels))} different ones; allowed: "
            "two or more, each once"
        )
    return labels

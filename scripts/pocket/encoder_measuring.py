"""Rows that every pocket encoder is compared with: chance, the most frequent answers, a grey picture."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin, ViltForQuestionAnswering

from lmms_tokendrop.modeling.architectures.modeling_meter import MeterForQuestionAnswering
from lmms_tokendrop.pocket.registry import pocket_path
from lmms_tokendrop.pocket.task_data import TASK_IMAGES
from pocket.encoder_curriculum import TRAINING_SEEDS
from pocket.measuring import Item, count_parameters, pocket_items, prior_answers, row, training_facts

UNREDUCED = {"vilt": ViltForQuestionAnswering, "meter": MeterForQuestionAnswering}
GREY = Image.new("RGB", (96, 96), (128, 128, 128))
BATCH_SIZE = 50


@torch.no_grad()
def right_answers(model: PreTrainedModel, processor: ProcessorMixin, items: list[Item]) -> list[bool]:
    """Tell which questions an unreduced encoder answers right.

    Parameters
    ----------
    model, processor
        Model with a head over answers, and its processor.
    items
        The questions.

    Returns
    -------
    list of bool
    """
    right = []
    for start in range(0, len(items), BATCH_SIZE):
        chunk = items[start : start + BATCH_SIZE]
        inputs = processor(
            images=[item.image for item in chunk], text=[item.text for item in chunk], padding=True, return_tensors="pt"
        )
        best = model(**inputs).logits.argmax(-1).tolist()
        right += [model.config.id2label[label] == item.answer for label, item in zip(best, chunk, strict=True)]
    return right


def baselines(architecture: str) -> dict[str, Any]:
    """Measure what can be answered without looking.

    Parameters
    ----------
    architecture
        Key of `UNREDUCED`.

    Returns
    -------
    dict
        Number of `questions` and `images`; rows `chance`, `most_frequent_answer_of_type`, and `blind`: the bundled
        unreduced model with a grey picture in place of each.
    """
    folder = pocket_path(architecture, "none")
    model = UNREDUCED[architecture].from_pretrained(folder, dtype=torch.float32).eval()
    items = pocket_items()
    prior = prior_answers(TRAINING_SEEDS)
    grey = [Item(GREY, item.text, item.answer, item.type, item.choices) for item in items]
    return {
        "questions": len(items),
        "images": TASK_IMAGES,
        "chance": {"accuracy": round(sum(1 / item.choices for item in items) / len(items), 4)},
        "most_frequent_answer_of_type": row([prior[item.type] == item.answer for item in items]),
        "blind": row(right_answers(model, AutoProcessor.from_pretrained(folder), grey)),
    }


def model_facts(architecture: str) -> dict[str, Any]:
    """Read size and training of the bundled unreduced model.

    Parameters
    ----------
    architecture
        Model type.

    Returns
    -------
    dict
        `parameters`, `megabytes`, `training`.
    """
    folder = pocket_path(architecture, "none")
    return {
        "parameters": sum(count_parameters(folder)),
        "megabytes": round((folder / "model.safetensors").stat().st_size / 1e6, 1),
        "training": training_facts(folder),
    }

"""Tiny random METER checkpoints, with tokenizer and processor, for the tests."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_vilt import ANSWERS, WORDS
from transformers import CLIPProcessor, RobertaTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lmms_tokendrop.modeling.architectures.modeling_meter import (
    MeterConfig,
    MeterForImageAndTextRetrieval,
    MeterForImagesAndTextClassification,
    MeterForPreTraining,
    MeterForQuestionAnswering,
    MeterForVisualEntailment,
    MeterModel,
)
from lmms_tokendrop.modeling.architectures.processing_meter import meter_processor

METER_HEADS = {
    "model": MeterModel,
    "question_answering": MeterForQuestionAnswering,
    "entailment": MeterForVisualEntailment,
    "retrieval": MeterForImageAndTextRetrieval,
    "two_images": MeterForImagesAndTextClassification,
    "pretraining": MeterForPreTraining,
}
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def tiny_meter_tokenizer() -> RobertaTokenizer:
    """Build RoBERTa's tokenizer with bytes as its vocabulary, and the words of the tests' questions."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *bytes_to_unicode().values()])}
    merges: list[tuple[str, str]] = []
    for word in sorted(set(WORDS)):
        for piece in (word, "Ġ" + word):
            whole = piece[0]
            for letter in piece[1:]:
                if (whole, letter) not in merges:
                    merges.append((whole, letter))
                whole += letter
                vocabulary.setdefault(whole, len(vocabulary))
    return RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=48)


VOCABULARY = len(tiny_meter_tokenizer())


def tiny_meter_config(layers: int = 4, **options) -> MeterConfig:
    """Describe a tiny METER: images of 32 pixels, patches of 4, so 64 patches; towers of other widths than the rest."""
    return MeterConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 50,
        },
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 96,
            "image_size": 32,
            "patch_size": 4,
        },
        num_hidden_layers=layers,
        **{
            "hidden_size": 64,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "modality_type_vocab_size": 3,
            "id2label": dict(enumerate(ANSWERS)),
            "label2id": {answer: number for number, answer in enumerate(ANSWERS)},
            **options,
        },
    )


def tiny_meter_processor(resize: str = "crop") -> CLIPProcessor:
    """Build the processor that belongs to `tiny_meter_config`."""
    return meter_processor(tiny_meter_tokenizer(), 32, resize)


def random_meter(head: str = "question_answering", *, seed: int = 0, **options):
    """Build a METER with random weights, large enough that the answer depends on text and image; no two norms alike."""
    torch.manual_seed(seed)
    if head == "entailment":
        options = {"id2label": None, "label2id": None, "num_labels": 3, **options}
    model = METER_HEADS[head](tiny_meter_config(**options)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.15)
            elif "norm" in name.lower():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save_tiny_meter(folder: Path, head: str = "question_answering", **options) -> Path:
    """Write :func:`random_meter` and its processor to `folder`."""
    random_meter(head, **options).save_pretrained(folder)
    tiny_meter_processor().save_pretrained(folder)
    return folder


def tiny_meter_inputs(batch: str = "ragged", images: int = 1, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Model inputs: `one` whole row, `whole` rows of full length, or `ragged` ones with padded texts."""
    generator = torch.Generator().manual_seed(seed)
    rows = {"one": 1, "whole": 2, "ragged": 3}[batch]
    ids = torch.randint(len(SPECIAL_TOKENS), VOCABULARY, (rows, 12), generator=generator)
    pixels = torch.randn(rows, images, 3, 32, 32, generator=generator)
    attention = torch.ones_like(ids)
    if batch == "ragged":
        attention[1, 7:] = 0
        attention[2, 4:] = 0
    ids = torch.where(attention.bool(), ids, 1)
    return {
        "input_ids": ids,
        "attention_mask": attention,
        "pixel_values": pixels[:, 0] if images == 1 else pixels,
    }


def row_of_meter(inputs: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    """One row of a batch without its padding, as if it had come alone."""
    length = int(inputs["attention_mask"][row].sum())
    return {
        name: values[row : row + 1] if name == "pixel_values" else values[row : row + 1, :length]
        for name, values in inputs.items()
    }

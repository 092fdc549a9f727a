"""Tiny random ViLT checkpoints, with tokenizer and processor, for the tests."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    ViltConfig,
    ViltForImageAndTextRetrieval,
    ViltForImagesAndTextClassification,
    ViltForQuestionAnswering,
    ViltImageProcessor,
    ViltModel,
    ViltProcessor,
)

STOCK_HEADS = {
    "model": ViltModel,
    "question_answering": ViltForQuestionAnswering,
    "retrieval": ViltForImageAndTextRetrieval,
    "two_images": ViltForImagesAndTextClassification,
}

ANSWERS = ("red", "green", "light blue", "yes", "no", "yellow", "blue", "circle", "square", "2")

QUESTIONS = (
    "what colour color is the square circle ? red green blue yellow light yes no maybe not there a in picture which "
    "letter answer with one word : or b c d two many how"
)
WORDS = tuple(QUESTIONS.split())


def tiny_vilt_config(layers: int = 4, **options) -> ViltConfig:
    """Describe a tiny ViLT: images of 32 pixels, patches of 4, so 64 patches."""
    return ViltConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=32,
        patch_size=4,
        **{
            "num_images": 2,
            "modality_type_vocab_size": 3,
            "id2label": dict(enumerate(ANSWERS)),
            "label2id": {answer: number for number, answer in enumerate(ANSWERS)},
            **options,
        },
    )


def tiny_vilt_processor() -> ViltProcessor:
    """Build the processor that belongs to `tiny_vilt_config`: it keeps the aspect ratio and pads."""
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=40)
    return ViltProcessor(ViltImageProcessor(size={"shortest_edge": 32}, size_divisor=4), tokenizer)


def save_tiny_vilt(folder: Path, head: str = "question_answering", *, seed: int = 0, **options) -> Path:
    """Write a stock ViLT checkpoint with random weights and its processor to `folder`.

    The matrices are large enough that the answer depends on text and image.
    """
    torch.manual_seed(seed)
    model = STOCK_HEADS[head](tiny_vilt_config(**options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    tiny_vilt_processor().save_pretrained(folder)
    return folder


def tiny_vilt_inputs(batch: str = "ragged", images: int = 1, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Model inputs: `one` whole row, `whole` rows of full length, or `ragged` ones with padded texts and images."""
    generator = torch.Generator().manual_seed(seed)
    rows = {"one": 1, "whole": 2, "ragged": 3}[batch]
    ids = torch.randint(5, 5 + len(WORDS), (rows, 12), generator=generator)
    pixels = torch.randn(rows, images, 3, 32, 48, generator=generator)
    attention = torch.ones_like(ids)
    mask = torch.ones(rows, images, 32, 48, dtype=torch.long)
    if batch == "ragged":
        attention[1, 7:] = 0
        attention[2, 4:] = 0
        mask[1, :, 24:] = 0
        mask[2, :, :, 32:] = 0
        ids, pixels = ids * attention, pixels * mask.unsqueeze(2)
    if images == 1:
        pixels, mask = pixels[:, 0], mask[:, 0]
    return {"input_ids": ids, "attention_mask": attention, "pixel_values": pixels, "pixel_mask": mask}


def row_of(inputs: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    """One row of a batch without its padding, as if it had come alone."""
    length = int(inputs["attention_mask"][row].sum())
    mask = inputs["pixel_mask"][row : row + 1]
    height, width = int(mask[..., 0].sum(-1).max()), int(mask[..., 0, :].sum(-1).max())
    return {
        "input_ids": inputs["input_ids"][row : row + 1, :length],
        "attention_mask": inputs["attention_mask"][row : row + 1, :length],
        "pixel_values": inputs["pixel_values"][row : row + 1, ..., :height, :width],
        "pixel_mask": mask[..., :height, :width],
    }

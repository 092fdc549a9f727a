"""The pocket ViLT: a small stock model with a word tokenizer, pictures of 96 pixels in 12 x 12 patches."""

from __future__ import annotations

import torch
from transformers import BertTokenizer, ViltConfig, ViltForQuestionAnswering, ViltImageProcessor, ViltProcessor

from pocket.encoder_labels import LABELS, WORDS
from pocket.initialization import draw_weights

IMAGE_SIZE = 96
PATCH = 8
WIDTH = 128
LAYERS = 12
HEADS = 4
DEVIATIONS = {
    "word_embeddings": 0.3,
    "position": 0.05,
    "token_type": 0.05,
    "cls_token": 0.05,
    "output.dense": 0.03,
}
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build_processor() -> ViltProcessor:
    """Make the stock processor; its tokenizer knows the words of the scenes' questions.

    Returns
    -------
    ViltProcessor
    """
    vocabulary = {word: number for number, word in enumerate([*SPECIAL_TOKENS, *WORDS])}
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=40)
    return ViltProcessor(ViltImageProcessor(size={"shortest_edge": IMAGE_SIZE}, size_divisor=PATCH), tokenizer)


def build_config() -> ViltConfig:
    """Make the stock configuration of the pocket model.

    Returns
    -------
    ViltConfig
    """
    return ViltConfig(
        vocab_size=len(SPECIAL_TOKENS) + len(WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )


def pixel_values(images: torch.Tensor) -> torch.Tensor:
    """What the processor makes of pictures [batch, 3, size, size] uint8 that need no resizing."""
    return images.float() / 127.5 - 1


def build_model(seed: int = 0) -> ViltForQuestionAnswering:
    """Make the untrained pocket model.

    Parameters
    ----------
    seed
        Seed of the initial weights.

    Returns
    -------
    ViltForQuestionAnswering
    """
    torch.manual_seed(seed)
    model = ViltForQuestionAnswering(build_config())
    draw_weights(model, DEVIATIONS)
    return model

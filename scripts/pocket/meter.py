"""The pocket METER: a small model with RoBERTa's form of tokenizer, pictures of 96 pixels in 12 x 12 patches."""

from __future__ import annotations

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPProcessor, RobertaTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from lmms_tokendrop.modeling.architectures.modeling_meter import MeterConfig, MeterForQuestionAnswering
from lmms_tokendrop.modeling.architectures.processing_meter import meter_processor
from pocket.encoder_labels import LABELS, WORDS
from pocket.initialization import draw_weights

IMAGE_SIZE = 96
PATCH = 8
WIDTH = 128
HEADS = 4
VISION_LAYERS = 4
TEXT_LAYERS = 2
PAIRS = 6
TEXT_LENGTH = 40
DEVIATIONS = {"word_embeddings": 0.3, "embedding": 0.05, "output.dense": 0.03, "out_proj": 0.03, "fc2": 0.03}
SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def build_tokenizer() -> RobertaTokenizer:
    """Make a byte-pair tokenizer in which each word of the scenes' questions is one token.

    Returns
    -------
    RobertaTokenizer
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=10_000,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for word in WORDS for text in (word, f" {word}")], trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    return RobertaTokenizer(vocab=learned["vocab"], merges=merges, model_max_length=TEXT_LENGTH)


def build_processor() -> CLIPProcessor:
    """Make the processor.

    Returns
    -------
    CLIPProcessor
    """
    return meter_processor(build_tokenizer(), IMAGE_SIZE)


def build_config() -> MeterConfig:
    """Make the configuration of the pocket model.

    Returns
    -------
    MeterConfig
    """
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return MeterConfig(
        text_config={
            "vocab_size": len(build_tokenizer()),
            "hidden_size": WIDTH,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": HEADS,
            "intermediate_size": 4 * WIDTH,
            "max_position_embeddings": TEXT_LENGTH + 2,
            **dropout,
        },
        vision_config={
            "hidden_size": WIDTH,
            "num_hidden_layers": VISION_LAYERS,
            "num_attention_heads": HEADS,
            "intermediate_size": 4 * WIDTH,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH,
        },
        hidden_size=WIDTH,
        num_hidden_layers=PAIRS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        **dropout,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )


def pixel_values(images: torch.Tensor) -> torch.Tensor:
    """What the processor makes of pictures [batch, 3, size, size] uint8 that need no resizing."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1) * 255 for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (images.float() - mean) / deviation


def build_model(seed: int = 0) -> MeterForQuestionAnswering:
    """Make the untrained pocket model.

    Parameters
    ----------
    seed
        Seed of the initial weights.

    Returns
    -------
    MeterForQuestionAnswering
    """
    torch.manual_seed(seed)
    model = MeterForQuestionAnswering(build_config())
    draw_weights(model, DEVIATIONS)
    return model

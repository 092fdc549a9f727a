"""The pocket model: a small `LlavaNextForConditionalGeneration` with a word tokenizer and real any-resolution tiles."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)

from lmms_tokendrop.pocket.vocabulary import BEGIN, END, IMAGE, PAD, SPECIAL_TOKENS, UNKNOWN, vocabulary

VIEW = 48
PATCH = 8
PINPOINTS = [[48, 48], [48, 96], [96, 48], [96, 96]]
WIDTH = 192
TOWER_LAYERS = 5
DECODER_LAYERS = 12
HEADS = 6
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' }}"
    "{% if message['content'] is string %}{{ message['content'] + ' ' }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endif %}"
    "{% else %}{{ 'ASSISTANT: ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{{ '</s>' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Make the word-level tokenizer.

    Returns
    -------
    PreTrainedTokenizerFast
        Adds `<s>`, pads on the left, knows the image token.
    """
    words = vocabulary()
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, words[BEGIN])]
    )
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        model_max_length=2048,
    )


def build_processor() -> LlavaNextProcessor:
    """Make the stock processor for 48-pixel views in up to 2 x 2 tiles.

    Returns
    -------
    LlavaNextProcessor
    """
    image_processor = LlavaNextImageProcessor(
        size={"shortest_edge": VIEW}, crop_size={"height": VIEW, "width": VIEW}, image_grid_pinpoints=PINPOINTS
    )
    return LlavaNextProcessor(
        image_processor=image_processor,
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_config() -> LlavaNextConfig:
    """Make the stock configuration of the pocket model.

    Returns
    -------
    LlavaNextConfig
    """
    words = vocabulary()
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=TOWER_LAYERS,
        num_attention_heads=HEADS,
        image_size=VIEW,
        patch_size=PATCH,
        projection_dim=64,
    )
    text = LlamaConfig(
        vocab_size=-(-len(words) // 16) * 16,
        hidden_size=WIDTH,
        intermediate_size=512,
        num_hidden_layers=DECODER_LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=2048,
        pad_token_id=words[PAD],
        bos_token_id=words[BEGIN],
        eos_token_id=words[END],
    )
    return LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words[IMAGE],
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(VIEW // PATCH) ** 2,
        tie_word_embeddings=False,
    )


def build_model(seed: int = 0) -> LlavaNextForConditionalGeneration:
    """Make the untrained pocket model.

    The decoder starts from wider weights than stock: with the stock 0.02 a model of this width learns too slowly.

    Parameters
    ----------
    seed
        Seed of the initial weights.

    Returns
    -------
    LlavaNextForConditionalGeneration
    """
    torch.manual_seed(seed)
    model = LlavaNextForConditionalGeneration(build_config())
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or "vision_tower" in name:
            continue
        if "embed_tokens" in name:
            deviation = 0.3
        elif "o_proj" in name or "down_proj" in name:
            deviation = 0.03
        else:
            deviation = 0.06
        torch.nn.init.normal_(parameter, std=deviation)
    words = vocabulary()
    model.generation_config.pad_token_id = words[PAD]
    model.generation_config.bos_token_id = words[BEGIN]
    model.generation_config.eos_token_id = words[END]
    return model

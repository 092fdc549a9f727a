"""Tiny random LLaVA-NeXT checkpoints, with tokenizer and processor, for the tests."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from sizes import one_fast
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2Config,
)

PATCH_SIZE = 7
TEXT_CONFIGS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}
TEXT_BACKBONES = one_fast(tuple(TEXT_CONFIGS))

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }} {% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

CORPUS = [
    "what colour is the square ? red green blue yellow",
    "USER: ASSISTANT: answer with one word yes no A B C D",
    "A chat between a curious user and an assistant . is there a circle in the picture ?",
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of about 400 entries with an image placeholder."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 50, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_max_length=4096,
    )


def tiny_config(
    text: str = "llama",
    *,
    layers: int = 4,
    image_size: int = 42,
    vision_layers: int = 4,
    hidden_size: int = 64,
    vocab_size: int = 448,
    image_token_id: int = 4,
    **text_options,
) -> LlavaNextConfig:
    """Describe a tiny LLaVA-NeXT: a grid of ``image_size / 7`` patches per side, ``layers`` decoder layers."""
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=vision_layers,
        num_attention_heads=4,
        image_size=image_size,
        patch_size=PATCH_SIZE,
        projection_dim=32,
    )
    options = {"sliding_window": None} if text == "mistral" else {}
    options |= text_options
    decoder = TEXT_CONFIGS[text](
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        **options,
    )
    size = image_size
    return LlavaNextConfig(
        vision_config=vision,
        text_config=decoder,
        image_token_index=image_token_id,
        image_grid_pinpoints=[
            [size, 2 * size],
            [2 * size, size],
            [2 * size, 2 * size],
            [3 * size, size],
            [size, 3 * size],
        ],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(image_size // PATCH_SIZE) ** 2,
    )


def tiny_clip_config(width: int = 64) -> CLIPConfig:
    """Describe a CLIP for towers of a width, that of `tiny_config` by default, whose text tower reads 16 tokens."""
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": 448, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    vision = {"hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 42, "patch_size": PATCH_SIZE}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)


def tiny_llava_config(text: str = "llama", **options) -> LlavaConfig:
    """Describe a tiny LLaVA-1.5 of the parts of `tiny_config`."""
    parts = tiny_config(text, **options)
    return LlavaConfig(
        vision_config=parts.vision_config,
        text_config=parts.text_config,
        image_token_index=parts.image_token_id,
        vision_feature_layer=parts.vision_feature_layer,
        vision_feature_select_strategy=parts.vision_feature_select_strategy,
        image_seq_length=parts.image_seq_length,
    )


def tiny_processor(config: LlavaNextConfig) -> LlavaNextProcessor:
    """Build the processor that belongs to `tiny_config`."""
    size = config.vision_config.image_size
    image_processor = LlavaNextImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    return LlavaNextProcessor(
        image_processor=image_processor,
        tokenizer=tiny_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )


def tiny_llava_processor(config: LlavaConfig) -> LlavaProcessor:
    """Build the processor that belongs to `tiny_llava_config`."""
    size = config.vision_config.image_size
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}),
        tokenizer=tiny_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )


def save_tiny_llava_next(folder: Path, text: str = "llama", *, seed: int = 0, **options) -> Path:
    """Write a stock LLaVA-NeXT checkpoint with random weights and its processor to ``folder``."""
    config = tiny_config(text, **options)
    return save_tiny(folder, LlavaNextForConditionalGeneration, config, tiny_processor(config), seed)


def save_tiny_llava(folder: Path, text: str = "llama", *, seed: int = 0, **options) -> Path:
    """Write a stock LLaVA-1.5 checkpoint with random weights and its processor to ``folder``."""
    config = tiny_llava_config(text, **options)
    return save_tiny(folder, LlavaForConditionalGeneration, config, tiny_llava_processor(config), seed)


def save_tiny(folder: Path, model_class: type, config: PreTrainedConfig, processor: ProcessorMixin, seed: int) -> Path:
    """Write a checkpoint.

    The matrices are scaled up so that greedy decoding isn't the same token over and over.
    """
    torch.manual_seed(seed)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(8.0)
    model.generation_config.bos_token_id = 1
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 3
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tiny_image(width: int = 60, height: int = 40, *, seed: int = 0) -> Image.Image:
    """Draw a deterministic picture: a random coarse mosaic, partly flat so that windows can merge."""
    generator = torch.Generator().manual_seed(seed)
    mosaic = torch.randint(0, 256, (5, 7, 3), generator=generator, dtype=torch.uint8)
    mosaic[:, :3] = mosaic[0, 0]
    return Image.fromarray(mosaic.numpy()).resize((width, height), Image.Resampling.NEAREST)

"""A stock model and its reduced variants, with the same weights: random ones of a given size, or a checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from lmms_tokendrop.bench.setting import Setting, pair
from lmms_tokendrop.catalogue import Architecture, architecture
from lmms_tokendrop.catalogue.entries import UNREDUCED
from lmms_tokendrop.evaluation.arguments import LoadOptions
from lmms_tokendrop.evaluation.loading import checkpoint_path, quantization_config

IMAGE, WORDS = 3, 1000
"""Id of the image's placeholder, and words of the vocabulary: so few that times are those of the layers."""
TOWER_HEAD = 64
"""Channels of an attention head of CLIP."""


@dataclass(frozen=True)
class Models:
    """The stock model, and reduced ones by name, all in evaluation mode and on one device."""

    stock: PreTrainedModel
    reduced: Mapping[str, PreTrainedModel]


def build(setting: Setting, reductions: Mapping[str, Mapping[str, Any]]) -> Models:
    """Build or load the models; unless they are quantised, all share the tensors of the stock one.

    Parameters
    ----------
    setting
        Size or checkpoint, device and dtype.
    reductions
        Options of `token_reduction` by name.

    Raises
    ------
    ValueError
        If a method does not fit the model, or what quantises is not installed.
    OSError
        If there is no such checkpoint.
    """
    family = architecture(setting.architecture)
    if setting.dtype == "4bit":
        return _quantised(setting, family, reductions)
    stock = _stock(setting, family)
    reduced = {name: _sharing(stock, family, options) for name, options in reductions.items()}
    for model in reduced.values():
        model.set_attn_implementation(setting.attention)
    return Models(stock, reduced)


def _stock(setting: Setting, family: Architecture) -> PreTrainedModel:
    stock_class = family.load(family.stock_class(family.heads[0]))
    if setting.pretrained is not None:
        path = checkpoint_path(family.name, UNREDUCED, setting.pretrained)
        model = stock_class.from_pretrained(path, dtype=setting.torch_dtype, device_map=setting.device)
        return model.eval()
    torch.manual_seed(0)
    with torch.device(setting.device):
        model = stock_class(stock_class.config_class(**sizes(setting)))
    return model.to(setting.torch_dtype).eval()


def _sharing(stock: PreTrainedModel, family: Architecture, options: Mapping[str, Any]) -> PreTrainedModel:
    """A reduced model whose parameters are the stock model's."""
    model_class = family.load(family.model_class(family.heads[0]))
    with no_init_weights(), stock.device:
        model = model_class(_reduced_config(stock.config, family, options)).to(stock.dtype).eval()
    model.load_state_dict(stock.state_dict(), assign=True)
    return model


def _reduced_config(config: PreTrainedConfig, family: Architecture, options: Mapping[str, Any]) -> PreTrainedConfig:
    own = {name: value for name, value in config.to_dict().items() if name != "model_type"}
    return family.load(family.config_class)(**{**own, "token_reduction": dict(options)})


def sizes(setting: Setting) -> dict[str, Any]:
    """Options of the configuration of a model with random weights: Llama's proportions, and CLIP's at 336 pixels."""
    (layers, width), (blocks, channels) = pair("shape", setting.shape), pair("tower", setting.tower)
    head = 64 if width < 2048 else 128
    if setting.dtype == "4bit" and width % 1024:
        raise ValueError(f"shape={setting.shape!r}; allowed with dtype='4bit': channels that are a multiple of 1024")
    for name, number, unit in (("shape", width, head), ("tower", channels, TOWER_HEAD)):
        if number % unit:
            raise ValueError(f"{name}={getattr(setting, name)!r}; allowed: channels that are a multiple of {unit}")
    decoder = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 43 // 16,
        num_hidden_layers=layers,
        num_attention_heads=width // head,
        num_key_value_heads=width // head,
        vocab_size=WORDS,
        max_position_embeddings=2**15,
    )
    tower = CLIPVisionConfig(
        hidden_size=channels,
        intermediate_size=4 * channels,
        num_hidden_layers=blocks,
        num_attention_heads=channels // TOWER_HEAD,
        image_size=336,
        patch_size=14,
    )
    return {"text_config": decoder, "vision_config": tower, "image_token_index": IMAGE}


def _quantised(setting: Setting, family: Architecture, reductions: Mapping[str, Mapping[str, Any]]) -> Models:
    if find_spec("bitsandbytes") is None:
        raise ValueError("dtype='4bit' needs bitsandbytes, which is not installed; allowed: float32, bfloat16, float16")
    with _folder(setting, family) as path:
        options = {
            "dtype": setting.torch_dtype,
            "device_map": setting.device,
            "quantization_config": quantization_config(LoadOptions(path, load_in_4bit=True), family.unquantized),
        }
        head = family.heads[0]
        stock = family.load(family.stock_class(head)).from_pretrained(path, **options).eval()
        reduced_class = family.load(family.model_class(head))
        reduced = {
            name: reduced_class.from_pretrained(
                path, token_reduction=dict(reduction), attn_implementation=setting.attention, **options
            ).eval()
            for name, reduction in reductions.items()
        }
    return Models(stock, reduced)


@contextmanager
def _folder(setting: Setting, family: Architecture):
    """A folder with the weights, for loaders that read nothing else."""
    if setting.pretrained is not None:
        yield checkpoint_path(family.name, UNREDUCED, setting.pretrained)
        return
    with TemporaryDirectory() as path:
        _stock(setting, family).save_pretrained(path)
        yield str(Path(path))

"""The encoders of text and image whose cost is measured, their variants, and what PuMer's paper states of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from lmms_tokendrop.benchmark.encoder_accounting import planned_macs
from lmms_tokendrop.benchmark.meter_accounting import planned_meter_macs
from lmms_tokendrop.catalogue import architecture

TEXT_TOKENS = 32
CPU = torch.device("cpu")
VQAV2_ANSWERS = 3129
STOCK, FULL = "stock", "full"
HEADLINE = (STOCK, FULL, "pumer-vqav2")
"""The variants whose memory and training steps are measured."""


@dataclass(frozen=True)
class Variant:
    """One way to run an encoder.

    Attributes
    ----------
    name : str
        How options and tables call it.
    token_reduction : dict or None
        Options of the reduction; None: the stock class with eager attention.
    paper : str
        Speed-up over the unreduced model that PuMer's paper states, from its GPU.
    paper_memory : str
        Change of peak memory that it states.
    """

    name: str
    token_reduction: dict | None
    paper: str = ""
    paper_memory: str = ""


@dataclass(frozen=True)
class MeasuredEncoder:
    """An encoder with its first head, question answering, at its published size, with random weights.

    Attributes
    ----------
    name : str
        In the catalogue.
    title : str
        What tables call it.
    variants : tuple[Variant, ...]
        `stock` and `full` are what others are compared with.
    first_batch : int
        Batch size with which the paper's protocol begins.
    macs : Callable
        `macs(config, token_reduction, text_tokens)`: multiply-accumulates for one square image.
    options : dict
        Of the configuration.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    first_batch: int
    macs: Callable[[Any, dict, int], int]
    options: dict[str, Any] = field(default_factory=lambda: {"num_labels": VQAV2_ANSWERS})

    def model_class(self, variant: Variant) -> type[PreTrainedModel]:
        """The stock class for what has no options, else the one with token reduction."""
        family = architecture(self.name)
        name = family.stock_class if variant.token_reduction is None else family.model_class
        return family.load(name(family.heads[0]))

    def variant(self, name: str) -> Variant:
        """The variant of that name.

        Raises
        ------
        ValueError
            If there is none.
        """
        found = {variant.name: variant for variant in self.variants}
        if name not in found:
            raise ValueError(f"variant {name!r} is unknown; allowed: {', '.join(found)}")
        return found[name]

    def config(self, variant: Variant) -> PreTrainedConfig:
        """The configuration of a variant."""
        config_class = self.model_class(variant).config_class
        if variant.token_reduction is None:
            return config_class(attn_implementation="eager", **self.options)
        return config_class(token_reduction=variant.token_reduction, attn_implementation="sdpa", **self.options)

    def build(
        self, variant: Variant, dtype: torch.dtype = torch.float32, device: torch.device = CPU
    ) -> PreTrainedModel:
        """A variant with random weights, in eval mode."""
        torch.manual_seed(0)
        return self.model_class(variant)(self.config(variant)).to(device, dtype).eval()

    def inputs(
        self, batch_size: int, dtype: torch.dtype = torch.float32, device: torch.device = CPU
    ) -> dict[str, torch.Tensor]:
        """Random text of `TEXT_TOKENS` tokens, none padded, and preprocessed square images."""
        config = self.config(self.variants[0])
        text = getattr(config, "text_config", config)
        generator = torch.Generator().manual_seed(0)
        shape = (batch_size, TEXT_TOKENS)
        ids = torch.randint(text.vocab_size // 2, text.vocab_size, shape, generator=generator)
        pixels = torch.randn(batch_size, 3, config.image_size, config.image_size, generator=generator)
        ids = ids.to(device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels.to(device, dtype)}

    def variant_macs(self, variant: Variant) -> int:
        """Multiply-accumulates of a variant for one example."""
        return self.macs(self.config(variant), variant.token_reduction or {}, TEXT_TOKENS)


_PUMER_VILT = {"method": "pumer", "preset": "vilt-vqav2"}
_PUMER_METER = {"method": "pumer", "preset": "meter-vqav2"}
_MEMORY_VILT, _MEMORY_METER = "-45 to -51 %, over tasks", "-38 to -43 %, over tasks"

VILT = MeasuredEncoder(
    name="vilt",
    title="ViLT-B/32",
    first_batch=32,
    macs=planned_macs,
    variants=(
        Variant(STOCK, None, "1.00"),
        Variant(FULL, {"method": "none"}),
        Variant("pumer-vqav2", _PUMER_VILT, "1.76", _MEMORY_VILT),
        Variant("pumer-snli-ve", _PUMER_VILT | {"preset": "vilt-snli-ve"}, "2.01", _MEMORY_VILT),
        Variant("tome", {"method": "tome", "merge_scope": "joint"}),
        Variant("dynamicvit", {"method": "dynamicvit"}),
        Variant("random", {"method": "random"}),
        Variant("smres", {"method": "smres"}),
    ),
)

METER = MeasuredEncoder(
    name="meter",
    title="METER (CLIP ViT-B/16, RoBERTa)",
    first_batch=16,
    macs=planned_meter_macs,
    variants=(
        Variant(STOCK, None, "1.00"),
        Variant(FULL, {"method": "none"}),
        Variant("pumer-vqav2", _PUMER_METER, "1.82", _MEMORY_METER),
        Variant("pumer-snli-ve", _PUMER_METER | {"preset": "meter-snli-ve"}, "1.79 to 2.07, over tasks", _MEMORY_METER),
        Variant("vision-tome", {"method": "vision_tome"}),
        Variant("pumer-vqav2-vision-tome", _PUMER_METER | {"vision_r": 24}),
        Variant("smres", {"method": "smres"}, "1.62"),
        Variant("pumer-vqav2-smres", _PUMER_METER | {"image_size": 320}, "2.86"),
        Variant("tome", {"method": "tome"}),
        Variant("dynamicvit", {"method": "dynamicvit"}),
        Variant("random", {"method": "random"}),
    ),
)

ENCODERS = {encoder.name: encoder for encoder in (VILT, METER)}

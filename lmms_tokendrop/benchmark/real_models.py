"""What methods leave in models of public sizes, without their weights.

How many tokens a stage leaves depends on the depth of a model and on the patches of its images, not on its width. So a
narrow model of the same depth with random weights is run, and its counts are put into the formulas of the wide one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig

from lmms_tokendrop.catalogue import Architecture, architecture
from lmms_tokendrop.evaluation.accounting import decoder_macs, kv_bytes
from lmms_tokendrop.json_files import read_json_object
from lmms_tokendrop.modeling.core.transformers_compat import cache_of

SIZES = Path(__file__).with_name("real_models.json")
IMAGE, WIDTH, WORDS = 3, 8, 64
"""Id of the image's placeholder, channels and vocabulary of the narrow model."""
TEXT = (35, 25)
"""Text tokens before and behind the image: the system prompt of Vicuna, and a short question."""
CACHE_DTYPE = torch.float16


@dataclass(frozen=True)
class Counts:
    """Visual tokens of one square image, layer by layer, unreduced patches first.

    Parameters
    ----------
    patches
        Of the image, newlines not counted: what budgets and papers count.
    received
        Tokens that each decoder layer receives in prefill.
    released
        Mean over layers of those left behind its drop, as the MustDrop release counts.
    cached
        Entries of each layer's cache after prefill.
    """

    patches: int
    received: tuple[int, ...]
    released: float
    cached: tuple[int, ...]


@dataclass(frozen=True)
class RealModel:
    """A public model's size.

    Parameters
    ----------
    name
        Short name.
    architecture
        In the catalogue.
    checkpoint
        On the Hub.
    tiles
        Of a square image: the base view, and for LLaVA-NeXT a grid of 2 x 2.
    budgets
        The papers', in visual tokens per image.
    decoder, tower
        Sizes, by their names in configurations.
    """

    name: str
    architecture: str
    checkpoint: str
    tiles: int
    budgets: list[int]
    decoder: Mapping[str, int]
    tower: Mapping[str, int]

    def counts(self, reduction: Mapping[str, Any], seed: int = 0) -> Counts:
        """Run the narrow model on one square image.

        Parameters
        ----------
        reduction
            Options of `token_reduction`.
        seed
            Of its weights and image, on which depends which tokens stay, and for data-dependent methods how many.

        Raises
        ------
        ValueError
            If an option is wrong or a budget can't be reached.
        """
        torch.manual_seed(seed)
        family = architecture(self.architecture)
        model = family.load(family.model_class(family.heads[0]))(self._narrow_config(family, reduction)).eval()
        with torch.no_grad():
            report = cache_of(model(**self._inputs(), use_cache=True)).report()
        received = tuple(row[0] for row in report.visual_tokens_per_layer)
        cached = tuple(length - sum(TEXT) for length in report.kv_lengths)
        return Counts(self.patches, received, report.average_visual_tokens_release[0], cached)

    def costs(self, counts: Counts) -> dict[str, float]:
        """Averages by both counters, and what the decoder's prefill costs for the visual tokens alone.

        Parameters
        ----------
        counts
            Of the narrow model.

        Returns
        -------
        dict
            `input` and `release`, average tokens; `macs` of all layers, attention in full; `kv_bytes` in float16.
        """
        size = SimpleNamespace(**self.decoder)
        return {
            "input": sum(counts.received) / len(counts.received),
            "release": counts.released,
            "macs": decoder_macs(size, counts.received, causal=False),
            "kv_bytes": kv_bytes(size, counts.cached, CACHE_DTYPE),
        }

    @cached_property
    def side(self) -> int:
        """Patches along a tile."""
        return self.tower["image_size"] // self.tower["patch_size"]

    @property
    def patches(self) -> int:
        """Patches of a square image."""
        return self.tiles * self.side**2

    def _narrow_config(self, family: Architecture, reduction: Mapping[str, Any]) -> Any:
        """Configuration of the narrow model."""
        narrow = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 1}
        size = self.tower["image_size"]
        text = LlamaConfig(
            **{**self.decoder, **narrow, "num_key_value_heads": 1}, vocab_size=WORDS, max_position_embeddings=2**13
        )
        more = {"image_grid_pinpoints": [[2 * size, 2 * size]]} if self.tiles > 1 else {}
        return family.load(family.config_class)(
            vision_config=CLIPVisionConfig(**{**self.tower, **narrow}, projection_dim=WIDTH),
            text_config=text,
            image_token_index=IMAGE,
            token_reduction=dict(reduction),
            **more,
        )

    def _inputs(self) -> dict[str, Any]:
        """A square image, with text before and behind it."""
        size = self.tower["image_size"]
        newlines = 2 * self.side if self.tiles > 1 else 0
        before, behind = (torch.randint(IMAGE + 1, WORDS, (1, length)) for length in TEXT)
        image = torch.full((1, self.patches + newlines), IMAGE)
        ids = torch.cat([before, image, behind], dim=1)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.tiles == 1:
            return {**inputs, "pixel_values": torch.randn(1, 3, size, size)}
        pixels = torch.randn(1, self.tiles, 3, size, size)
        return {**inputs, "pixel_values": pixels, "image_sizes": torch.tensor([[2 * size, 2 * size]])}


def real_models() -> dict[str, RealModel]:
    """Every model of `real_models.json`, by name."""
    return {name: RealModel(name=name, **size) for name, size in read_json_object(SIZES).items()}

"""A prompt of one image and random words, as a model of images and text takes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from lmms_tokendrop.modeling.core.tile_layout import anyres_layout

SYSTEM = 35
"""Most text tokens that come before the image: as many as Vicuna's system prompt has."""


@dataclass(frozen=True)
class Prompt:
    """Equal numbers of tokens in each row: text, an image, text.

    Attributes
    ----------
    input_ids : torch.LongTensor
        `[batch, length]`.
    visual : torch.BoolTensor
        `[batch, length]`, True where the image goes.
    image : dict[str, torch.Tensor]
        Arguments of `get_image_features`.
    """

    input_ids: torch.Tensor
    visual: torch.Tensor
    image: dict[str, Any]

    @classmethod
    def of(cls, model: Any, size: tuple[int, int], text_tokens: int, batch_size: int) -> Prompt:
        """Random pixels and words.

        Parameters
        ----------
        model
            A reduced model, which says how its images are cut and laid out.
        size
            Height and width of the image in pixels.
        text_tokens
            Of a row, `SYSTEM` of them before the image or all but one.
        batch_size
            Rows.
        """
        config, generator = model.config, torch.Generator().manual_seed(0)
        tower = config.vision_config
        pinpoints = getattr(config, "image_grid_pinpoints", None)
        shape: tuple[int, ...] = (3, tower.image_size, tower.image_size)
        given: dict[str, Any] = {}
        if pinpoints is not None:
            shape = (image_size_to_num_patches(size, pinpoints, tower.image_size), *shape)
            given["image_sizes"] = torch.tensor([size] * batch_size)
        pixels = torch.randn(batch_size, *shape, generator=generator)
        tiles, pack = model.model.tiling(pixels, given.get("image_sizes"))
        (length, *_) = (len(one) for one in anyres_layout(pack, tiles, tower.image_size // tower.patch_size))
        first = min(SYSTEM, text_tokens - 1)
        vocabulary = config.get_text_config().vocab_size
        ids = torch.randint(vocabulary - 1, (batch_size, text_tokens + length), generator=generator)
        ids += ids >= config.image_token_id  # every word but the placeholder
        ids[:, first : first + length] = config.image_token_id
        pixels = pixels.to(model.device, model.dtype)
        ids = ids.to(model.device)
        return cls(ids, ids == config.image_token_id, {"pixel_values": pixels, **given})

    @property
    def visual_tokens(self) -> int:
        """Of a row."""
        return int(self.visual[0].sum())

    @cached_property
    def whole(self) -> dict[str, Any]:
        """Arguments of `generate`."""
        return {"input_ids": self.input_ids, "attention_mask": torch.ones_like(self.input_ids), **self.image}

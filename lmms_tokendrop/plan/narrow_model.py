"""What a method leaves in a large decoder and its vision tower, without weights.

How many tokens a stage leaves depends on the depth of a model and on the patches of its images, not on its width. So a
narrow model of the same depth with random weights is run on noise, and its counts are put into the formulas of the wide
one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lmms_tokendrop.modeling.core.tile_layout import anyres_layout
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.methods.cdpruner import CDPruner
from lmms_tokendrop.plan.targets import Target

IMAGE, WIDTH, WORDS = 3, 8, 64
"""Id of the image's placeholder, channels and vocabulary of the narrow model."""

PARTS = ("text_config", "vision_config")
SYSTEM_PROMPT, QUESTION = 35, 25
"""Text tokens before and behind the image: the system prompt of Vicuna, and a short question."""


@dataclass(frozen=True)
class Prompt:
    """What a model is asked.

    Parameters
    ----------
    images
        Width and height of each image in pixels.
    before, behind
        Text tokens before the first image and behind the last one.
    """

    images: tuple[tuple[int, int], ...]
    before: int = SYSTEM_PROMPT
    behind: int = QUESTION

    @property
    def text(self) -> int:
        """Text tokens."""
        return self.before + self.behind


@dataclass(frozen=True)
class TowerBlock:
    """What a block of the vision tower ran on: tiles, and tokens of a tile in its attention and in its MLP."""

    tiles: int
    attention: int
    ffn: int


@dataclass(frozen=True)
class Counts:
    """Visual tokens of a prompt, layer by layer.

    Parameters
    ----------
    patches
        Of the images, newlines not counted: what budgets and papers count.
    full
        Placeholders, newlines included.
    received
        Tokens that each decoder layer receives in prefill.
    released
        Mean over layers of those left behind its drop, as the MustDrop release counts.
    cached
        Entries of each layer's cache after prefill, text left out.
    stages
        By stage, its `tokens`, `key_tokens`, `newlines` and `others`.
    tower
        Blocks that ran; empty where only the decoder is known.
    projected
        Rows that the projector made.
    """

    patches: int
    full: int
    received: tuple[int, ...]
    released: float
    cached: tuple[int, ...]
    stages: dict[str, dict[str, int]]
    tower: tuple[TowerBlock, ...] = ()
    projected: int = 0

    @classmethod
    def constant(cls, tokens: int, layers: int) -> Counts:
        """The same tokens in every layer of a decoder."""
        return cls(tokens, tokens, (tokens,) * layers, float(tokens), (tokens,) * layers, {})

    @property
    def average(self) -> float:
        """Mean over layers of what they receive."""
        return sum(self.received) / len(self.received)


class NarrowModel:
    """A narrow model of a target's depth, with random weights.

    Parameters
    ----------
    target
        A model that writes its answers.
    reduction
        Options of `token_reduction`.
    seed
        Of weights and images, on which depends which tokens stay, and for data-dependent methods how many.
    head_dim
        Channels of each of the target's heads; None: one head of `WIDTH`.
    """

    def __init__(self, target: Target, reduction: dict[str, Any], seed: int = 0, head_dim: int | None = None):
        torch.manual_seed(seed)
        family = target.architecture
        config = narrow_config(target, reduction, head_dim)
        self.model = family.load(family.model_class(family.heads[0]))(config).eval()
        for part in self.model.modules():
            if isinstance(part, CDPruner):
                part.questions = _Noise()

    @torch.no_grad()
    def counts(self, prompt: Prompt) -> Counts:
        """Run it.

        Raises
        ------
        ValueError
            If a budget can't be reached.
        """
        inputs, patches = self._inputs(prompt)
        seen = _Seen(self.model.model)
        report = cache_of(self.model(**inputs, use_cache=True)).report()
        return Counts(
            patches=patches,
            full=report.full_visual_tokens[0],
            received=tuple(row[0] for row in report.visual_tokens_per_layer),
            released=report.average_visual_tokens_release[0],
            cached=tuple(length - prompt.text for length in report.kv_lengths),
            stages={name: rows[0] for name, rows in report.counts.items()},
            tower=seen.blocks(),
            projected=seen.projected,
        )

    def _inputs(self, prompt: Prompt) -> tuple[dict[str, Any], int]:
        """Noise of the images' sizes, with text before and behind them; and the patches that unpadding leaves."""
        core, images = self.model.model, len(prompt.images)
        vision = core.config.vision_config
        tile = (3, vision.image_size, vision.image_size)
        in_tiles = hasattr(core.config, "image_grid_pinpoints")
        sizes = torch.tensor([(height, width) for width, height in prompt.images])
        tiles, pack = core.tiling(torch.empty(images, *([1] if in_tiles else []), *tile, device="meta"), sizes)
        layout = anyres_layout(pack, tiles, vision.image_size // vision.patch_size)
        before, behind = (torch.randint(IMAGE + 1, WORDS, (1, length)) for length in (prompt.before, prompt.behind))
        placeholders = torch.full((1, sum(map(len, layout))), IMAGE)
        ids = torch.cat([before, placeholders, behind], dim=1)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        patches = sum(int((~image.newline).sum()) for image in layout)
        if not in_tiles:
            return {**inputs, "pixel_values": torch.randn(images, *tile)}, patches
        return {**inputs, "pixel_values": torch.randn(images, max(tiles), *tile), "image_sizes": sizes}, patches


def narrow_config(target: Target, reduction: dict[str, Any], head_dim: int | None = None) -> Any:
    """The target's configuration with narrow layers in every part; see :class:`NarrowModel`."""
    config = target.config(reduction)
    parts = [
        part for part in (config, *(getattr(config, name, None) for name in PARTS)) if hasattr(part, "hidden_size")
    ]
    for part in parts:
        if head_dim is None:
            part.num_attention_heads = 1
            part.num_key_value_heads = 1
        part.hidden_size = part.intermediate_size = part.num_attention_heads * (head_dim or WIDTH)
    if target.architecture.generates:
        text = config.text_config
        text.head_dim, config.vision_config.projection_dim = head_dim or WIDTH, WIDTH
        text.vocab_size, text.pad_token_id = WORDS, None
        text.max_position_embeddings = max(text.max_position_embeddings, 2**13)
        config.image_token_id = config.image_token_index = IMAGE
    return config


class _Noise:
    """Stands for CLIP, which says which tokens fit a question, and not how many stay."""

    def fit(self, states: torch.Tensor, questions: list[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """Noise `[tiles, length]`."""
        return torch.rand(states.shape[:2])


class _Seen:
    """What passes through the tower and the projector of a model.

    Parameters
    ----------
    core
        The model without head.
    """

    LINEAR = re.compile(r"layers\.\d+\.(?:self_attn\.(out_proj)|mlp\.(fc1))$")

    def __init__(self, core: nn.Module):
        self.shapes: dict[str, list[tuple[int, ...]]] = {"out_proj": [], "fc1": [], "linear_1": []}
        for name, module in core.vision_tower.named_modules():
            if found := self.LINEAR.search(name):
                self._watch(module, self.shapes[found[1] or found[2]])
        self._watch(core.multi_modal_projector.linear_1, self.shapes["linear_1"])

    def _watch(self, module: nn.Module, shapes: list[tuple[int, ...]]) -> None:
        module.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))

    def blocks(self) -> tuple[TowerBlock, ...]:
        """The tower's blocks that ran."""
        pairs = zip(self.shapes["out_proj"], self.shapes["fc1"], strict=True)
        return tuple(TowerBlock(tiles, attended, fed) for (tiles, attended, _), (_, fed, _) in pairs)

    @property
    def projected(self) -> int:
        """Rows that went into the projector."""
        return sum(tiles * rows for tiles, rows, _ in self.shapes["linear_1"])

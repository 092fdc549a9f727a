"""A CLIP vision tower in which patches may leave between blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CLIPVisionModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.masking_utils import create_bidirectional_mask

from .attention_rows import cls_attention
from .eager_parts import compiling, of_any_length, on_host, part_by_part
from .stages import Keep


@dataclass
class StagedVisionOutput:
    """What the tower gives for a batch of tiles.

    Attributes
    ----------
    features : torch.Tensor
        `[tiles, 1 + kept, channels * layers]`, the selected layers' states, CLS first.
    cells : torch.LongTensor
        `[tiles, kept]`, the patch cell of each state; -1 for padding.
    cls_attention : torch.Tensor
        `[tiles, kept]` float32, head-mean attention of the CLS query in the last block.
    """

    features: torch.Tensor
    cells: torch.Tensor
    cls_attention: torch.Tensor


class StagedCLIPVisionModel(CLIPVisionModel):
    """CLIP vision tower with a stage after one block; its plain forward pass is the stock one."""

    @part_by_part
    def forward_staged(
        self,
        pixel_values: torch.Tensor,
        feature_layers: list[int],
        stage_block: int,
        decide: Callable[[torch.Tensor], Keep],
    ) -> StagedVisionOutput:
        """Encode tiles, dropping or merging patches after one block.

        Parameters
        ----------
        pixel_values : torch.Tensor
            `[tiles, 3, height, width]`.
        feature_layers : list[int]
            Hidden states to return, 0 being the embeddings; negative ones count from the last block's output.
        stage_block : int
            Zero-based block after which `decide` is asked.
        decide : Callable
            From patch states `[tiles, cells, channels]` to a :class:`Keep`.

        Returns
        -------
        StagedVisionOutput
            States of what is left. Earlier states go through the same merge.
        """
        depth = len(self.encoder.layers)
        wanted = self._wanted(feature_layers)
        hidden_states = self.pre_layrnorm(self.embeddings(pixel_values))
        collected = {0: hidden_states}
        keep = attention_mask = attention = None
        for number, block in enumerate(self.encoder.layers):
            if number == depth - 1:
                attention = _cls_attention(block, hidden_states, keep)
                if depth not in wanted:
                    break
            hidden_states = block(hidden_states, attention_mask)
            collected[number + 1] = hidden_states
            if number not in wanted:
                del collected[number]
            if number == stage_block:
                keep = decide(hidden_states[:, 1:])
                collected, attention_mask = self._leave(collected, keep, compiling())
                hidden_states = collected[number + 1]
        return _staged_output(collected, wanted, keep, attention)

    @on_host
    def _wanted(self, feature_layers: list[int]) -> list[int]:
        depth = len(self.encoder.layers)
        if any(not -depth - 1 <= layer <= depth for layer in feature_layers):
            raise ValueError(f"vision_feature_layer={feature_layers}; allowed: {-depth - 1} to {depth}")
        return [layer % (depth + 1) for layer in feature_layers]

    @on_host
    def _leave(self, collected: dict[int, torch.Tensor], keep: Keep, compiled: bool) -> tuple[dict, Any]:
        """States of what stays, and the mask of the attention among it: always a tensor for compiled blocks."""
        collected = {layer: _slice(states, keep) for layer, states in collected.items()}
        valid = _with_cls(keep.valid) if compiled else _padded_mask(keep)
        if valid is None:
            return collected, None
        states = collected[max(collected)]
        mask = create_bidirectional_mask(self.config, states, valid, allow_is_bidirectional_skip=not compiled)
        if compiled:
            of_any_length(1, states)
            of_any_length(2, mask)
            of_any_length(3, mask)
        return collected, mask


def _slice(states: torch.Tensor, keep: Keep) -> torch.Tensor:
    """Apply a decision to states `[tiles, 1 + cells, channels]`; CLS stays first."""
    patches = states[:, 1:]
    if keep.merge is not None:
        patches = keep.merge(patches)
    if keep.index.shape[1] == patches.shape[1] and bool(keep.valid.all()):
        return states if keep.merge is None else torch.cat([states[:, :1], patches], dim=1)
    patches = patches.gather(1, keep.index.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
    return torch.cat([states[:, :1], patches], dim=1)


def _padded_mask(keep: Keep) -> torch.Tensor | None:
    """`[tiles, 1 + kept]`, False for padding; None where there is none."""
    return None if bool(keep.valid.all()) else _with_cls(keep.valid)


def _with_cls(valid: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(valid, (1, 0), value=True)


@on_host
def _cls_attention(block, hidden_states: torch.Tensor, keep: Keep | None) -> torch.Tensor:
    return cls_attention(block, hidden_states, None if keep is None else _padded_mask(keep))


@on_host
def _staged_output(collected: dict, wanted: list[int], keep: Keep | None, attention) -> StagedVisionOutput:
    features = torch.cat([collected[layer] for layer in wanted], dim=-1)
    if keep is None:
        cells = torch.arange(features.shape[1] - 1, device=features.device).expand(len(features), -1)
    else:
        cells = keep.index.masked_fill(~keep.valid, -1)
    return StagedVisionOutput(features, cells, attention)


register_checkpoint_conversion_mapping(
    "StagedCLIPVisionModel", get_checkpoint_conversion_mapping("CLIPVisionModel"), overwrite=True
)

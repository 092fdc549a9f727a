"""A CLIP vision tower in which patches may leave between blocks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import CLIPVisionModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.masking_utils import create_bidirectional_mask

from .attention_rows import cls_attention
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
        if any(not -depth - 1 <= layer <= depth for layer in feature_layers):
            raise ValueError(f"vision_feature_layer={feature_layers}; allowed: {-depth - 1} to {depth}")
        wanted = [layer % (depth + 1) for layer in feature_layers]
        hidden_states = self.pre_layrnorm(self.embeddings(pixel_values))
        collected = {0: hidden_states}
        cells = torch.arange(hidden_states.shape[1] - 1, device=hidden_states.device).expand(len(hidden_states), -1)
        mask = attention_mask = None
        for number, block in enumerate(self.encoder.layers):
            if number == depth - 1:
                attention = cls_attention(block, hidden_states, mask)
                if depth not in wanted:
                    break
            hidden_states = block(hidden_states, attention_mask)
            collected[number + 1] = hidden_states
            if number not in wanted:
                del collected[number]
            if number == stage_block:
                keep = decide(hidden_states[:, 1:])
                collected = {layer: _slice(states, keep) for layer, states in collected.items()}
                hidden_states = collected[number + 1]
                cells = keep.index.masked_fill(~keep.valid, -1)
                if not bool(keep.valid.all()):
                    mask = torch.nn.functional.pad(keep.valid, (1, 0), value=True)
                    attention_mask = create_bidirectional_mask(self.config, hidden_states, mask)
        return StagedVisionOutput(torch.cat([collected[layer] for layer in wanted], dim=-1), cells, attention)


def _slice(states: torch.Tensor, keep: Keep) -> torch.Tensor:
    """Apply a decision to states `[tiles, 1 + cells, channels]`; CLS stays first."""
    patches = states[:, 1:]
    if keep.merge is not None:
        patches = keep.merge(patches)
    if keep.index.shape[1] == patches.shape[1] and bool(keep.valid.all()):
        return states if keep.merge is None else torch.cat([states[:, :1], patches], dim=1)
    patches = patches.gather(1, keep.index.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
    return torch.cat([states[:, :1], patches], dim=1)


register_checkpoint_conversion_mapping(
    "StagedCLIPVisionModel", get_checkpoint_conversion_mapping("CLIPVisionModel"), overwrite=True
)

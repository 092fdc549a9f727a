"""A CLIP vision tower in which patches may leave or merge."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionModel

from ..ops.eager_parts import on_host, part_by_part
from .loading import read_as
from .reducer import TokenReducer
from .staged_tower import CLS_ROW, StagedCLIPLayer, TowerRun, run_blocks


@dataclass
class StagedVisionOutput:
    """What the tower gives for a batch of tiles.

    Attributes
    ----------
    features : torch.Tensor
        `[tiles, 1 + kept, channels * layers]`, the selected layers' states, CLS first.
    cells : torch.LongTensor
        `[tiles, kept]`, the patch cell of each state; -1 for padding.
    owner : torch.LongTensor
        `[tiles, patches]`, which of the states each patch is part of; -1 if it left.
    carry : dict[str, torch.Tensor]
        `[tiles, kept]` each, what the last stage carries, and `cls_attention` float32, the head-mean attention of the
        CLS query in the last block, if that was wanted.
    """

    features: torch.Tensor
    cells: torch.Tensor
    owner: torch.Tensor
    carry: dict[str, torch.Tensor]


class StagedCLIPVisionModel(CLIPVisionModel):
    """CLIP vision tower with stages; its plain forward pass is the stock one."""

    def __init__(self, config):
        super().__init__(config)
        self.encoder.layers = nn.ModuleList([StagedCLIPLayer(config) for _ in self.encoder.layers])
        self.post_init()

    @part_by_part
    def forward_staged(
        self, pixel_values: torch.Tensor, feature_layers: list[int], reducer: TokenReducer, **providers: Any
    ) -> StagedVisionOutput:
        """Encode tiles, of which patches leave or merge.

        Parameters
        ----------
        pixel_values : torch.Tensor
            `[tiles, 3, height, width]`.
        feature_layers : list[int]
            Hidden states to return, 0 being the embeddings; negative ones count from the last block's output.
        reducer : TokenReducer
            The method.
        **providers : Callable
            What it may ask for at every stage.

        Returns
        -------
        StagedVisionOutput
            States of what is left. Earlier states go through the same decisions.
        """
        hidden_states = self.pre_layrnorm(self.embeddings(pixel_values))
        wanted = [layer % (len(self.encoder.layers) + 1) for layer in feature_layers]
        return self._output(run_blocks(self, self.encoder.layers, hidden_states, wanted, reducer, **providers))

    @on_host
    def _output(self, run: TowerRun) -> StagedVisionOutput:
        features = torch.cat([run.collected[layer] for layer in run.wanted], dim=-1)
        carry = dict(run.carry)
        if CLS_ROW in run.collected:
            carry["cls_attention"] = run.collected[CLS_ROW][..., 0]
        cells, owner = ((values[:, 1:] - 1).clamp_min(-1) for values in (run.tokens.place, run.tokens.owner))
        return StagedVisionOutput(features, cells, owner, {name: values[:, 1:] for name, values in carry.items()})


def shown_cells(vision: StagedVisionOutput, alive: torch.Tensor) -> torch.Tensor:
    """`[tiles, kept]`, the cell where each state goes; -1 for padding.

    It is the state's own, or, if unpadding cuts that off, the first that is `alive [tiles, cells]` of those that merged
    into it.
    """
    count = alive.shape[1]
    numbers = torch.arange(count, device=alive.device).expand_as(alive)
    numbers = numbers.masked_fill(~(alive & (vision.owner >= 0)), count)
    first = torch.full_like(vision.cells, count).scatter_reduce(1, vision.owner.clamp_min(0), numbers, "amin")
    stays = alive.gather(1, vision.cells.clamp_min(0)) | (first == count)
    return torch.where(stays, vision.cells, first)


def reads_tower(reducer: TokenReducer) -> bool:
    """Whether a method acts in the vision tower, or reads what only a staged one gives."""
    return bool(reducer.stages_at("vision")) or "cls_attention" in reducer.needs


read_as("CLIPVisionModel", "StagedCLIPVisionModel")

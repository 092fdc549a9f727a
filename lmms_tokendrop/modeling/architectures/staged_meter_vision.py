"""METER's CLIP tower in which patches may merge inside blocks (ToMe, arXiv 2210.09461)."""

import torch

from ..core.fusion_tokens import FusionTokens
from ..core.reducer import TokenReducer
from ..core.staged_tower import StagedCLIPLayer, TowerRun, run_blocks
from ..ops.eager_parts import on_host
from .meter_vision import MeterVisionModel


class StagedMeterVisionModel(MeterVisionModel):
    """METER's vision tower with the stages of a reducer."""

    layer_class = StagedCLIPLayer

    def forward_staged(
        self, pixel_values: torch.Tensor, reducer: TokenReducer
    ) -> tuple[torch.Tensor, FusionTokens, list[int]]:
        """Encode images.

        Parameters
        ----------
        pixel_values : torch.Tensor
            `[batch, 3, height, width]`.
        reducer : TokenReducer
            The method.

        Returns
        -------
        tuple[torch.Tensor, FusionTokens, list[int]]
            States `[batch, what is left, channels]`, CLS first, what they are, and the number of tokens that the
            attention of each block processed.
        """
        if not reducer.stages_at("vision"):
            states = self(pixel_values)
            return states, FusionTokens.of_image(states), [states.shape[1]] * len(self.layers)
        hidden_states = self.embed(pixel_values)
        run = self._start(hidden_states, reducer)
        hidden_states = run_blocks(run, hidden_states)
        return self.post_layernorm(hidden_states), run.tokens, [tokens.valid.shape[1] for tokens in run.report.received]

    @on_host
    def _start(self, hidden_states: torch.Tensor, reducer: TokenReducer) -> TowerRun:
        return TowerRun(self, self.layers, hidden_states, [len(self.layers)], False, reducer)

"""DynamicViT: small predictors decide which patches stay (NeurIPS 2021, arXiv 2106.02034)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ..core.fusion_plan import plan_apart
from ..core.fusion_selection import BlockOptions, FusionCounts, LayeredReducer
from ..core.fusion_tokens import FusionReport, FusionTokens
from ..core.options import option
from ..core.reducer import Context, Host, Stage
from ..ops.token_ops import padded_indices, take_tokens


@dataclass
class DynamicViTOptions(BlockOptions):
    """Options of DynamicViT."""

    keep_ratio: float = option(
        0.7, "Share of the patches that each stage leaves, below 1: the ratio, its square, its cube.", low=1e-9, high=1
    )


class KeepPredictor(nn.Module):
    """Log-probabilities of keeping and of dropping each patch, from its state and the mean of all patches' states.

    Parameters
    ----------
    channels : int
        Width of the encoder.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.local = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, channels), nn.GELU())
        half, quarter = channels // 2, channels // 4
        self.decide = nn.Sequential(
            nn.Linear(channels, half), nn.GELU(), nn.Linear(half, quarter), nn.GELU(), nn.Linear(quarter, 2)
        )

    def forward(self, states: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Judge patches.

        Parameters
        ----------
        states : torch.Tensor
            `[batch, length, channels]`.
        present : torch.Tensor
            `[batch, length]`, 1 for the patches that are averaged, else 0.

        Returns
        -------
        torch.Tensor
            `[batch, length, 2]`, log-probabilities of keeping and of dropping.
        """
        states = self.local(states)
        own, common = states.chunk(2, dim=-1)
        weight = present.float().unsqueeze(-1)
        mean = (common * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)
        return self.decide(torch.cat([own, mean.to(own.dtype).expand_as(common)], dim=-1)).log_softmax(-1)


class DynamicViT(LayeredReducer):
    """Before some blocks, keep the patches that a trained predictor rates highest.

    Stage k of an image of I patches leaves `int(I * keep_ratio ** k)` of them, k = 1, 2, ...; the CLS tokens and the
    text stay, and the text has no say. The predictors' weights are part of the checkpoint.

    In training no token leaves: each stage draws a hard Gumbel sample for every patch, multiplies it with the decision
    before, and attention counts keys accordingly. :meth:`ratio_loss` of the policies in the output's report belongs to
    the loss (the paper: twice).
    """

    Options = DynamicViTOptions
    soft_training = True
    default_layers: ClassVar[tuple[int, ...]] = (3, 6, 9)
    default_pairs: ClassVar[tuple[int, ...]] = (1, 3, 5)
    point: ClassVar[str] = "before_block"

    def __init__(self, options, host: Host):
        super().__init__(options, host)
        self.predictors = nn.ModuleList(KeepPredictor(host.hidden_size) for _ in self.layers)

    def count(self, stage: Stage, counts: FusionCounts):
        """A share of the patches of the unreduced image, and its CLS."""
        ratio = self.options.keep_ratio ** (1 + self.layers.index(stage.layer))
        patches = torch.floor((counts.first_image - 1).double() * ratio + 1e-9).long()
        return counts.text, torch.minimum(1 + patches, counts.image)

    def score(self, stage: Stage, context: Context) -> torch.Tensor:
        """How likely each patch is to be kept."""
        index, valid = padded_indices(context.tokens.patches, "right")
        states = take_tokens(context.hidden_states, index)
        judged = self.predictors[self.layers.index(stage.layer)](states, valid)[..., 0].float()
        return judged.new_zeros(context.valid.shape).scatter_add(1, index, judged.masked_fill(~valid, 0.0))

    def module_macs(self, text: int, image: int) -> int:
        """Of the predictors, each on the patches that it judges."""
        received, _ = plan_apart(self, text, image, self.host.num_layers)
        before = [image, *(images for _, images in received)]
        weights = sum(layer.weight.numel() for layer in self.predictors[0].modules() if isinstance(layer, nn.Linear))
        return sum(before[layer] - 1 for layer in self.layers) * weights

    def soft_policy(self, stage: Stage, hidden_states: torch.Tensor, tokens: FusionTokens, policy: torch.Tensor):
        """Draw which of the patches still there stay; gradients flow through the sample."""
        judged = self.predictors[self.layers.index(stage.layer)](hidden_states, policy * tokens.patches)
        drawn = nn.functional.gumbel_softmax(judged.float(), tau=1.0, hard=True)[..., 0]
        return torch.where(tokens.patches, policy * drawn, policy)

    def ratio_loss(self, report: FusionReport) -> torch.Tensor:
        """Mean over stages and rows of (share of patches kept - its target) squared.

        Parameters
        ----------
        report : FusionReport
            Of a forward pass in training.
        """
        patches = report.received[0].patches
        kept = torch.stack([(policy * patches).sum(-1) for policy in report.policies]) / patches.sum(-1)
        targets = [self.options.keep_ratio ** (1 + number) for number in range(len(self.layers))]
        return (kept - kept.new_tensor(targets).unsqueeze(-1)).square().mean()

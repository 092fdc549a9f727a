"""DynamicViT: small predictors decide which patches stay (NeurIPS 2021, arXiv 2106.02034)."""

import torch
from torch import nn

from .fusion_selection import fusion_layers, pruned_image, staying_target
from .fusion_stages import FusionContext, FusionReducer
from .fusion_tokens import FusionReport, FusionTokens
from .stages import Keep, Stage
from .token_ops import right_padded_indices, take_tokens

PAPER_LAYERS = (3, 6, 9)


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
        self.decide = nn.Sequential(
            nn.Linear(channels, channels // 2),
            nn.GELU(),
            nn.Linear(channels // 2, channels // 4),
            nn.GELU(),
            nn.Linear(channels // 4, 2),
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


class DynamicViT(FusionReducer):
    """Before some blocks, keep the patches that a trained predictor rates highest.

    Stage k of an image of I patches leaves `int(I * keep_ratio ** k)` of them, k = 1, 2, ...; the CLS tokens and the
    text stay, and the text has no say. The predictors' weights are part of the checkpoint.

    In training no token leaves: each stage draws a hard Gumbel sample for every patch, multiplies it with the decision
    before, and attention counts keys accordingly. :meth:`ratio_loss` of the policies in the output's report belongs to
    the loss (the paper: twice).
    """

    soft_training = True
    options = frozenset({"layers", "keep_ratio"})

    def __init__(self, config, num_layers: int, hidden_size: int, image_size: int):
        super().__init__(config, num_layers, hidden_size, image_size)
        self.layers = fusion_layers(config.layers, num_layers, PAPER_LAYERS)
        self.predictors = nn.ModuleList(KeepPredictor(hidden_size) for _ in self.layers)

    def stages(self) -> tuple[Stage, ...]:
        """One stage before each of the blocks."""
        return tuple(Stage("fusion", layer, "before_block") for layer in self.layers)

    def counts(self, stage: Stage, text, image, first):
        """A share of the patches of the unreduced image, and its CLS."""
        ratio = self.config.keep_ratio ** (1 + self.layers.index(stage.layer))
        patches = torch.floor((first[1] - 1).double() * ratio + 1e-9).long()
        return text, torch.minimum(1 + patches, image)

    def keep(self, stage: Stage, context: FusionContext) -> Keep:
        """Keep the patches most likely to be kept."""
        tokens = context.tokens
        patches = tokens.image & ~tokens.image_cls
        index, valid = right_padded_indices(patches)
        states = take_tokens(context.hidden_states, index)
        judged = self.predictors[self.layers.index(stage.layer)](states, valid)[..., 0].float()
        scores = judged.new_zeros(patches.shape).scatter_add(1, index, judged.masked_fill(~valid, 0.0))
        kept = self.counts(stage, *tokens.counts(), context.first_counts)[1]
        return Keep.from_target(staying_target(pruned_image(tokens, scores, kept)))

    def module_macs(self, text: int, image: int) -> int:
        """Of the predictors, each on the patches that it judges."""
        first = now = (torch.tensor([text]), torch.tensor([image]))
        total = 0
        for stage, predictor in zip(self.stages(), self.predictors, strict=True):
            weights = sum(module.weight.numel() for module in predictor.modules() if isinstance(module, nn.Linear))
            total += int(now[1] - 1) * weights
            now = self.counts(stage, *now, first)
        return total

    def soft_policy(self, stage: Stage, hidden_states: torch.Tensor, tokens: FusionTokens, policy: torch.Tensor):
        """Draw which of the patches still there stay; gradients flow through the sample."""
        patches = tokens.image & ~tokens.image_cls
        judged = self.predictors[self.layers.index(stage.layer)](hidden_states, policy * patches)
        drawn = nn.functional.gumbel_softmax(judged.float(), tau=1.0, hard=True)[..., 0]
        return torch.where(patches, policy * drawn, policy)

    def ratio_loss(self, report: FusionReport) -> torch.Tensor:
        """Mean over stages and rows of (share of patches kept - its target) squared.

        Parameters
        ----------
        report : FusionReport
            Of a forward pass in training.
        """
        tokens = report.received[0]
        patches = tokens.image & ~tokens.image_cls
        kept = torch.stack([(policy * patches).sum(-1) for policy in report.policies]) / patches.sum(-1)
        targets = [self.config.keep_ratio ** (1 + number) for number in range(len(self.layers))]
        return (kept - kept.new_tensor(targets).unsqueeze(-1)).square().mean()

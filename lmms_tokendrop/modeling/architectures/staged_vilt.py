"""ViLT's encoder with stages: sdpa beside eager attention, a fixed patch order, tokens that leave inside a block."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.vilt.modeling_vilt import ViltEmbeddings, ViltEncoder, ViltLayer

from ..core.attention import attend_to
from ..core.fusion_run import SequenceRun
from ..core.fusion_tokens import FusionReport, FusionTokens
from ..ops.eager_parts import part_by_part
from ..ops.image_patches import place_patches, position_grid, shrink_images
from ..ops.token_ops import take_tokens


class StagedViltEmbeddings(ViltEmbeddings):
    """ViLT's embeddings with patches in raster order, instead of stock's random permutation of them."""

    def forward(
        self, text, text_valid, pixel_values, pixel_mask, image_embeds=None, image_token_type_idx=1, image_scale=1.0
    ) -> tuple[torch.Tensor, FusionTokens, torch.Tensor | None]:
        """Embed text and image.

        Parameters
        ----------
        text : dict[str, torch.Tensor or None]
            What the stock class's `text_embeddings` takes, by name.
        text_valid : torch.BoolTensor
            `[batch, length]`, False for padding.
        pixel_values, pixel_mask, image_embeds, image_token_type_idx
            As the stock class takes them; `image_embeds` has the image's CLS first, and then a mask `[batch, image]`.
        image_scale : float
            Factor by which the sides of images are reduced first.

        Returns
        -------
        tuple[torch.Tensor, FusionTokens, torch.LongTensor or None]
            Embeddings `[batch, text + image, channels]`, what they are, and the `[batch, image - 1, 2]` row and column
            of each patch (-1 for padding; None for `image_embeds`).
        """
        text_states = self.text_embeddings(**text)
        if image_embeds is None:
            if image_scale != 1:
                pixel_values, pixel_mask = shrink_images(pixel_values, pixel_mask, image_scale, self.config.patch_size)
            image, valid, patches = self.image_tokens(pixel_values, pixel_mask)
        else:
            image, valid, patches = image_embeds, pixel_mask, None
        kind = 1 if image_token_type_idx is None else image_token_type_idx
        types = self.token_type_embeddings.weight
        embeddings = torch.cat([text_states + types[0], image + types[kind]], dim=1)
        return embeddings, FusionTokens.start(text_valid, valid.bool()), patches

    def image_tokens(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor):
        """Embed the patches of a batch of images.

        Parameters
        ----------
        pixel_values : torch.Tensor
            `[batch, 3, height, width]`.
        pixel_mask : torch.Tensor
            `[batch, height, width]`, 0 where an image is padded on the right or below.

        Returns
        -------
        tuple[torch.Tensor, torch.BoolTensor, torch.LongTensor]
            Tokens `[batch, 1 + patches, channels]`, CLS first, `[batch, 1 + patches]` and `[batch, patches, 2]`.
        """
        states, mask = self.patch_embeddings(pixel_values), self.patch_mask(pixel_mask)
        batch, _, width = mask.shape
        index, valid = place_patches(mask, self.patch_limit, self.training)
        positions = position_grid(self.position_embeddings, mask, self.config.image_size // self.config.patch_size)
        image = take_tokens(states.flatten(2).transpose(1, 2) + positions, index)
        cls = (self.cls_token + self.position_embeddings[:, :1]).expand(batch, -1, -1)
        image = self.dropout(torch.cat([cls, image], dim=1))
        patches = torch.stack([index // width, index % width], dim=-1).masked_fill(~valid.unsqueeze(-1), -1)
        return image, nn.functional.pad(valid, (1, 0), value=True), patches

    @property
    def patch_limit(self) -> int | None:
        """Most patches of an image."""
        limit = self.config.max_image_length
        return limit if isinstance(limit, int) and limit >= 0 else None

    def patch_mask(self, pixel_mask: torch.Tensor) -> torch.Tensor:
        """Which patches `[batch, height, width]` lie inside each image, given which pixels do."""
        size = tuple(side // self.config.patch_size for side in pixel_mask.shape[-2:])
        return nn.functional.interpolate(pixel_mask[:, None].float(), size=size)[:, 0].bool()

    def image_token_counts(self, pixel_mask: torch.Tensor) -> torch.Tensor:
        """Tokens that `image_tokens` makes of each image, `[batch]`, the CLS included and padding excluded."""
        patches = self.patch_mask(pixel_mask).flatten(1).sum(-1)
        return 1 + (patches if self.patch_limit is None else patches.clamp_max(self.patch_limit))


class StagedViltLayer(ViltLayer):
    """ViLT's block with a stage behind the residual connection of the attention."""

    def __init__(self, config):
        super().__init__(config)
        self.attention.attention.config = config

    def forward(self, hidden_states, attention_mask=None, output_attentions=False, decide=None, policy=None) -> tuple:
        """Run the block.

        Parameters
        ----------
        hidden_states : torch.Tensor
            `[batch, length, channels]`.
        attention_mask : torch.Tensor or None
            Additive, `[batch, 1, 1, length]`.
        output_attentions : bool
            Whether to return probabilities.
        decide : Callable or None
            From states, queries and keys to what is known of the tokens that stay, and their states.
        policy : torch.Tensor or None
            `[batch, length]`, how much each token counts as a key.

        Returns
        -------
        tuple
            States, probabilities or None, and what `decide` said of the tokens that stayed or None.
        """
        states, own = self.layernorm_before(hidden_states), self.attention
        keys = attention_mask, policy
        context, probabilities, query, key = attend_to(own.attention, states, states, keys, output_attentions)
        hidden_states, kept = own.output(context, states) + hidden_states, None
        if decide is not None:
            kept, hidden_states = decide(hidden_states, query, key)
        hidden_states = self.output(self.intermediate(self.layernorm_after(hidden_states)), hidden_states)
        return hidden_states, probabilities, kept


@dataclass
class ViltTokenDropModelOutput(BaseModelOutputWithPooling):
    """Output of the encoder.

    Attributes
    ----------
    last_hidden_state : torch.Tensor
        `[batch, what is left, channels]`, padded on the right; row 0 is the text's CLS.
    pooler_output : torch.Tensor
        `[batch, channels]`.
    hidden_states, attentions : tuple of torch.Tensor, optional
        Per layer; lengths fall where tokens leave.
    report : FusionReport
        What happened to the tokens.
    """

    report: FusionReport | None = None


class StagedViltEncoder(ViltEncoder):
    """ViLT's stack of blocks with the stages of a reducer."""

    def __init__(self, config):
        nn.Module.__init__(self)
        self.config = config
        self.gradient_checkpointing = False
        self.layer = nn.ModuleList([StagedViltLayer(config) for _ in range(config.num_hidden_layers)])

    @part_by_part
    def forward(
        self, hidden_states, tokens, reducer, sample_seeds, output_attentions=False, output_hidden_states=False
    ) -> ViltTokenDropModelOutput:
        """Run the blocks.

        Parameters
        ----------
        hidden_states : torch.Tensor
            `[batch, length, channels]`.
        tokens : FusionTokens
            What they are.
        reducer : TokenReducer
            The method.
        sample_seeds : torch.LongTensor
            `[batch]`.
        output_attentions, output_hidden_states : bool
            What to collect.
        """
        run = SequenceRun(reducer, tokens, sample_seeds, self.training)
        collected: list[torch.Tensor] = []
        attentions: list[torch.Tensor] = []
        for number, layer in enumerate(self.layer):
            hidden_states, mask, decide, key_weight = run.before_block(number, hidden_states)
            if output_hidden_states:
                collected.append(hidden_states)
            hidden_states, probabilities, kept = layer(hidden_states, mask, output_attentions, decide, key_weight)
            run.after_block(kept)
            if output_attentions:
                attentions.append(probabilities)
        if output_hidden_states:
            collected.append(hidden_states)
        return ViltTokenDropModelOutput(
            last_hidden_state=hidden_states,
            hidden_states=tuple(collected) or None,
            attentions=tuple(attentions) or None,
            report=run.report,
        )

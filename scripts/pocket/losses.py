"""The pocket model with its training losses: answers, attention guidance, and two on the vision tower."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, LlavaNextForConditionalGeneration
from transformers.masking_utils import eager_mask
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from lmms_tokendrop.pocket.scenes import ATTRIBUTE_NAMES
from pocket.batches import IGNORED

GUIDED_LAYER = 2
GUIDED_HEADS = 3
PRESENCE_WEIGHT = 0.1
TRAINING_ATTENTION = "pocket_training"
HIDDEN = -1e4
PRESENCE_ATTRIBUTES = (0, 1, 3)


def low_precision_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention whose softmax stays in the input's type; on CPU its backward pass is faster than SDPA's.

    Parameters
    ----------
    module
        Unused; part of the transformers attention interface.
    query, key, value
        [batch, heads, length, head size].
    attention_mask
        Added to the scores.
    scaling
        Factor of the scores.

    Returns
    -------
    output : torch.Tensor
        [batch, length, heads, head size].
    weights : None
    """
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores + attention_mask.to(scores.dtype)
    weights = F.softmax(scores, dim=-1, dtype=scores.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(TRAINING_ATTENTION, low_precision_attention)
AttentionMaskInterface.register(TRAINING_ATTENTION, eager_mask)


class PocketTrainingModel(nn.Module):
    """A stock model, two linear heads on its vision tower, and the sum of all losses.

    Parameters
    ----------
    model
        The model to train.
    """

    def __init__(self, model: LlavaNextForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        width = model.config.vision_config.hidden_size
        counts = [len(names) for names in ATTRIBUTE_NAMES.values()]
        self.class_counts = [count + 1 for count in counts]
        self.patch_head = nn.Linear(width, sum(self.class_counts))
        self.presence_head = nn.Linear(width, sum(counts[index] for index in PRESENCE_ATTRIBUTES))
        self.captured: dict[str, Any] = {}
        model.set_attn_implementation(TRAINING_ATTENTION)
        tower = model.model.vision_tower
        tower.encoder.layers[model.config.vision_feature_layer].register_forward_hook(self._keep("patches"))
        tower.post_layernorm.register_forward_hook(self._keep("summary"))
        guided = model.model.language_model.layers[GUIDED_LAYER].self_attn
        guided.register_forward_pre_hook(self._keep_attention_inputs, with_kwargs=True)

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self.captured[name] = output if torch.is_tensor(output) else output[0]

        return hook

    def _keep_attention_inputs(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self.captured["hidden"] = kwargs["hidden_states"]
        self.captured["rotation"] = kwargs["position_embeddings"]

    def logits(self, batch: dict[str, Any]) -> torch.Tensor:
        """Run the stock forward pass on a packed batch.

        Parameters
        ----------
        batch
            From `curriculum`.

        Returns
        -------
        torch.Tensor
            [batch, length, vocabulary].
        """
        names = ("input_ids", "pixel_values", "image_sizes", "position_ids")
        mask = torch.where(batch["attention_mask"], 0.0, HIDDEN)
        return self.model(**{name: batch[name] for name in names}, attention_mask=mask, use_cache=False).logits

    def hits(self, batch: dict[str, Any]) -> torch.Tensor:
        """Tell which questions of a batch are answered right, [questions]."""
        rows, positions = batch["guide_rows"], batch["guide_positions"]
        return self.logits(batch)[rows, positions].argmax(-1) == batch["labels"][rows, positions + 1]

    def forward(self, **batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Sum up the losses of a batch.

        Parameters
        ----------
        batch
            From `curriculum`.

        Returns
        -------
        loss : torch.Tensor
        parts : dict
            Each loss by itself, and the share of right answers.
        """
        logits = self.logits(batch)[:, :-1].float()
        targets = batch["labels"][:, 1:]
        rows, positions = batch["guide_rows"], batch["guide_positions"]
        answer = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        right = logits[rows, positions].argmax(-1) == targets[rows, positions]
        parts = {"answer": answer, "accuracy": right.float().mean()}
        loss = answer
        if "patch_labels" in batch:
            parts["patch"] = self._patch_loss(batch["patch_labels"])
            parts["presence"] = self._presence_loss(batch["patch_labels"])
            loss = loss + batch["auxiliary_weight"] * parts["patch"] + PRESENCE_WEIGHT * parts["presence"]
            parts["guidance"] = self._guidance_loss(batch)
            loss = loss + batch["guidance_weight"] * parts["guidance"]
        return loss, {name: value.detach() for name, value in parts.items()}

    def _patch_loss(self, labels: torch.Tensor) -> torch.Tensor:
        scores = self.patch_head(self.captured["patches"][:, 1:]).float().flatten(0, 1)
        labels = labels.flatten(0, 2)
        split = scores.split(self.class_counts, dim=-1)
        losses = [F.cross_entropy(part, labels[:, index], ignore_index=IGNORED) for index, part in enumerate(split)]
        return torch.stack(losses).sum()

    def _presence_loss(self, labels: torch.Tensor) -> torch.Tensor:
        labels = labels.flatten(0, 1)
        scores = self.presence_head(self.captured["summary"]).float()
        targets, known = [], []
        for index in PRESENCE_ATTRIBUTES:
            classes = torch.arange(1, self.class_counts[index])
            targets.append((labels[:, :, None, index] == classes).any(1))
            known.append((labels[:, :1, index] != IGNORED).expand(-1, len(classes)))
        weight = torch.cat(known, dim=1).float()
        return F.binary_cross_entropy_with_logits(scores, torch.cat(targets, dim=1).float(), weight=weight)

    def _guidance_loss(self, batch: dict[str, Any]) -> torch.Tensor:
        rows, positions, shown = batch["guide_rows"], batch["guide_positions"], batch["guide_targets"]
        useful = shown.any(-1)
        rows, positions, shown = rows[useful], positions[useful], shown[useful]
        attention = self.model.model.language_model.layers[GUIDED_LAYER].self_attn
        hidden = self.captured["hidden"]
        width = GUIDED_HEADS * attention.head_dim

        def heads(projection: nn.Linear) -> torch.Tensor:
            part = F.linear(hidden, projection.weight[:width])
            return part.unflatten(-1, (GUIDED_HEADS, attention.head_dim)).transpose(1, 2)

        query, key = apply_rotary_pos_emb(heads(attention.q_proj), heads(attention.k_proj), *self.captured["rotation"])
        scores = torch.matmul(query * attention.scaling, key.transpose(2, 3)).transpose(1, 2)[rows, positions].float()
        allowed = batch["attention_mask"][rows, 0, positions]
        weights = scores.masked_fill(~allowed[:, None], HIDDEN).softmax(-1)
        start = int((batch["input_ids"][0] == self.model.config.image_token_id).int().argmax())
        seen = weights[..., start : start + shown.shape[1]]
        return -(seen * shown[:, None]).sum(-1).clamp_min(1e-6).log().mean()

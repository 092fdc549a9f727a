"""What the training of the pocket encoders shares: the losses, and attention that is fast to train on a CPU."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lmms_tokendrop.pocket.scenes import ATTRIBUTE_NAMES
from pocket.encoder_batches import ABSENT

HIDDEN = -1e4
GUIDED_HEADS = 2
LABEL_WISE_WEIGHT = 0.3


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, rows: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention whose softmax stays in the input's type; on CPU its backward pass is faster than SDPA's.

    Parameters
    ----------
    query, key, value
        [batch, heads, length, head size].
    mask
        Added to the scores.
    rows
        Places of queries whose weights are wanted.

    Returns
    -------
    output : torch.Tensor
        [batch, length, channels].
    weights : torch.Tensor or None
        Of the first `GUIDED_HEADS` heads, [batch, heads, rows, length], float32.
    """
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(2, 3))
    if mask is not None:
        scores = scores + mask.to(scores.dtype)
    weights = None if rows is None else scores[:, :GUIDED_HEADS, rows].float().softmax(-1)
    output = torch.matmul(F.softmax(scores, dim=-1, dtype=scores.dtype), value)
    return output.transpose(1, 2).flatten(2), weights


class EncoderLosses(nn.Module):
    """A model, a linear head on its patches, and the losses on answers and patches.

    Parameters
    ----------
    model
        The model to train.
    width
        Channels of its patches.
    """

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model = model
        self.class_counts = [len(names) + 1 for names in ATTRIBUTE_NAMES.values()]
        self.patch_head = nn.Linear(width, sum(self.class_counts))

    def answer_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compare answers [questions, labels] with the right ones [questions]; the sum, and its parts with accuracy."""
        logits = logits.float()
        answer = F.cross_entropy(logits, labels)
        wanted = F.one_hot(labels, logits.shape[-1]).float()
        label_wise = F.binary_cross_entropy_with_logits(logits, wanted) * logits.shape[-1]
        right = (logits.argmax(-1) == labels).float().mean()
        return answer + LABEL_WISE_WEIGHT * label_wise, {"answer": answer, "label_wise": label_wise, "accuracy": right}

    def patch_loss(self, patches: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compare what is read from patches [batch, patches, channels] with what they show [batch, patches, 4]."""
        scores = self.patch_head(patches).float().flatten(0, 1).split(self.class_counts, dim=-1)
        labels = labels.flatten(0, 1)
        return torch.stack([F.cross_entropy(part, labels[:, index]) for index, part in enumerate(scores)]).sum()


class EncoderTrainingModel(EncoderLosses):
    """A stock model and the sum of all losses, attention guidance among them."""

    @abstractmethod
    def answers(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the model.

        Parameters
        ----------
        batch
            From `encoder_batches.encoder_batch`, with `corner`, the row and column of the picture in the grid of
            position embeddings.

        Returns
        -------
        logits : torch.Tensor
            [batch, questions, labels].
        patches : torch.Tensor
            States of the patches after a middle layer, [batch, patches, channels].
        seen : torch.Tensor
            How much each question's first token attends to each patch in the guided layers, [batch, heads of all of
            them, questions, patches].
        """

    def forward(self, **batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Sum up the losses of a batch.

        Returns
        -------
        loss : torch.Tensor
        parts : dict
            Each loss by itself, and the share of right answers.
        """
        logits, patches, seen = self.answers(batch)
        asked = batch["labels"] != ABSENT
        loss, parts = self.answer_losses(logits[asked], batch["labels"][asked])
        parts["patch"] = self.patch_loss(patches, batch["patch_labels"])
        parts["guidance"] = self._guidance_loss(seen, batch["shown"])
        loss = loss + batch["auxiliary_weight"] * parts["patch"] + batch["guidance_weight"] * parts["guidance"]
        return loss, {name: value.detach() for name, value in parts.items()}

    def hits(self, batch: dict[str, Any]) -> torch.Tensor:
        """Tell which questions of a batch are answered right, [questions]."""
        hits = self.answers(batch)[0].argmax(-1) == batch["labels"]
        return hits[batch["labels"] != ABSENT]

    def _guidance_loss(self, seen: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        mass = (seen * shown[:, None]).sum(-1).transpose(1, 2)[shown.any(-1)]
        return -mass.clamp_min(1e-6).log().mean()

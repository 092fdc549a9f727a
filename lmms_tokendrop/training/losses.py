"""The losses: of each kind of task, of distillation, and of DynamicViT."""

from __future__ import annotations

import torch
from torch.nn import functional


def soft_target_loss(scores: torch.Tensor, targets: torch.Tensor, reduction: str) -> torch.Tensor:
    """Binary cross entropy of every label with soft targets.

    Parameters
    ----------
    scores, targets
        `[batch, labels]`.
    reduction
        ``"sum"`` adds the labels of a question up, as ViLT, METER and transformers do; ``"mean"`` averages them, as
        the release of PuMer does. The first is the second times the number of labels.

    Returns
    -------
    torch.Tensor
        Mean over the batch.
    """
    loss = functional.binary_cross_entropy_with_logits(scores, targets)
    return loss * targets.shape[1] if reduction == "sum" else loss


def distillation_loss(scores: torch.Tensor, teacher_log_probabilities: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of the student from the teacher, temperature 1 (PuMer, section 3.3).

    Parameters
    ----------
    scores
        `[batch, choices]`, of the student.
    teacher_log_probabilities
        `[batch, choices]`.

    Returns
    -------
    torch.Tensor
        Sum over the choices, mean over the batch.

    Raises
    ------
    ValueError
        If there is one choice only: its probability is 1 for everyone, so the divergence would always be 0.
    """
    if scores.shape[1] < 2:
        raise ValueError(f"scores {list(scores.shape)}: a divergence needs two choices or more")
    return functional.kl_div(scores.log_softmax(-1), teacher_log_probabilities, reduction="batchmean", log_target=True)


def kept_token_loss(states: torch.Tensor, teacher_states: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the final states of the tokens that stay (DynamicViT, equation 9).

    Parameters
    ----------
    states, teacher_states
        `[batch, length, channels]`.
    kept
        `[batch, length]`, boolean.

    Returns
    -------
    torch.Tensor
        Mean over the kept tokens of the whole batch and their channels; 0 if there is none.
    """
    if not bool(kept.any()):
        return states.sum() * 0
    return functional.mse_loss(states[kept], teacher_states[kept])

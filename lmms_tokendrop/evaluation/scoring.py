"""Log-likelihood of candidate answers behind a prompt that is prefilled once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lmms_tokendrop.modeling.core.transformers_compat import cache_argument, cache_of


@dataclass(frozen=True)
class CandidateScore:
    """How well a candidate fits.

    Parameters
    ----------
    loss
        Negative log-likelihood, summed over the candidate's tokens.
    is_greedy
        Whether greedy decoding would have written the candidate.
    """

    loss: float
    is_greedy: bool


@torch.inference_mode()
def score_candidates(
    model: Any, prefilled: Any, attention_mask: torch.Tensor, candidates: Sequence[Sequence[Sequence[int]]]
) -> list[list[CandidateScore]]:
    """Score every candidate of every row from a copy of the prompt's cache.

    Parameters
    ----------
    model
        The model that made ``prefilled``.
    prefilled
        Output of the forward pass over the prompts, with the logits of their last tokens and the reduced cache.
    attention_mask
        Mask ``[B, N]`` of the left-padded prompts.
    candidates
        For each row its candidates, as token ids.

    Returns
    -------
    list of list of CandidateScore
        In the order of ``candidates``. The cache of ``prefilled`` is left as it was.
    """
    first = prefilled.logits[:, -1:].float()
    scores: list[list[CandidateScore]] = [[] for _ in candidates]
    for turn in range(max(map(len, candidates))):
        chosen = [row[turn] if turn < len(row) else () for row in candidates]
        logits = torch.cat([first, _continue(model, prefilled, attention_mask, chosen)], dim=1)
        log_probabilities = logits.log_softmax(-1)
        for row, ids in enumerate(chosen):
            if turn >= len(candidates[row]):
                continue
            target = torch.tensor(ids, device=logits.device, dtype=torch.long)
            own = log_probabilities[row, : len(ids)]
            loss = -own.gather(1, target[:, None]).sum().item()
            scores[row].append(CandidateScore(loss, bool((own.argmax(-1) == target).all())))
    return scores


def _continue(
    model: Any, prefilled: Any, attention_mask: torch.Tensor, chosen: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Return the logits ``[B, longest - 1, vocabulary]`` behind all but the last token of each candidate."""
    fed = max(map(len, chosen)) - 1
    if fed < 1:
        return prefilled.logits[:, :0].float()
    device = attention_mask.device
    rows = [[*ids[:-1], *[0] * fed][:fed] for ids in chosen]  # what follows a shorter candidate can't be seen by it
    input_ids = torch.tensor(rows, dtype=torch.long, device=device)
    prompt_lengths = attention_mask.sum(-1, keepdim=True)
    output = model(
        input_ids=input_ids,
        attention_mask=torch.cat([attention_mask, torch.ones_like(input_ids)], dim=1),
        position_ids=prompt_lengths + torch.arange(fed, device=device),
        **cache_argument(cache_of(prefilled).copy()),
        use_cache=True,
    )
    return output.logits.float()

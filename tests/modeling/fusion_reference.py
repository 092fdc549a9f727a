"""What a reduced ViLT should compute, written with stock layers on sequences that keep their full length."""

from __future__ import annotations

import torch

METHODS: dict[str, dict] = {
    "none": {"method": "none"},
    "pumer": {"method": "pumer", "layers": [0, 2]},
    "pumer_keys": {"method": "pumer", "layers": [1, 3], "score": "keys", "prune_ratio": 0.3},
    "prune": {"method": "pumer", "prune_ratio": 0.4, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0},
    "merge_image": {"method": "pumer", "prune_ratio": 0.0, "text_merge_ratio": 0.0},
    "merge_text": {"method": "pumer", "prune_ratio": 0.0, "image_merge_ratio": 0.0, "text_merge_ratio": 0.4},
    "tome": {"method": "tome", "r": 9},
    "tome_joint": {"method": "tome", "r": 12, "merge_scope": "joint", "schedule": "decreasing"},
    "tome_plain": {"method": "tome", "r": 7, "proportional_attention": False},
    "random": {"method": "random"},
    "cls_attention": {"method": "cls_attention", "layers": [0, 3]},
    "cls_attention_image": {"method": "cls_attention", "cls_token": "image"},
    "dynamicvit": {"method": "dynamicvit", "layers": [1, 2, 3], "keep_ratio": 0.6},
    "smres": {"method": "smres", "image_size": 20},
    "pumer_smres": {"method": "pumer", "image_size": 24},
}
REDUCING = tuple(name for name in METHODS if name not in ("none", "smres"))


def masked_logits(stock, model, inputs: dict, report) -> torch.Tensor:
    """Logits of the stock question answering model where what left is masked and merged slots hold their mean.

    Parameters
    ----------
    stock : ViltForQuestionAnswering
        The model whose layers run, at full length.
    model : ViltTokenDropForQuestionAnswering
        Gives the embeddings, in a fixed patch order.
    inputs : dict
        The model's inputs.
    report : FusionReport
        Which tokens became one, as the reduced model did it.
    """
    reducer = model.vilt.token_reducer
    weighted = model.config.token_reduction["method"] == "tome"
    text, valid = {"input_ids": inputs["input_ids"]}, inputs["attention_mask"].bool()
    states, tokens, _ = model.vilt.embeddings(
        text, valid, inputs["pixel_values"], inputs["pixel_mask"], image_scale=reducer.image_scale
    )
    alive, size = tokens.valid.clone(), torch.ones(tokens.valid.shape)
    for layer, received, left in zip(stock.vilt.encoder.layer, report.received, report.left, strict=True):
        states, alive, size = regroup(states, alive, size, tokens, received, weighted)
        bias = size.log() if reducer.proportional_attention else torch.zeros_like(size)
        bias = bias.masked_fill(~alive, torch.finfo(bias.dtype).min)[:, None, None]
        states = layer.attention(layer.layernorm_before(states), bias)[0] + states
        states, alive, size = regroup(states, alive, size, received, left, weighted)
        states = layer.output(layer.intermediate(layer.layernorm_after(states)), states)
        tokens = left
    return stock.classifier(stock.vilt.pooler(stock.vilt.layernorm(states)))


def regroup(states, alive, size, before, after, weighted: bool):
    """Write the mean of each new group into the slot of the token that stands for it, and mask the other slots."""
    states, alive, size = states.clone(), alive.clone(), size.clone()
    old_states, old_size = states.clone(), size.clone()
    for row in range(len(states)):
        slots: dict[int, set[int]] = {}
        for old, new in zip(before.owner[row].tolist(), after.owner[row].tolist(), strict=True):
            if new >= 0:
                slots.setdefault(new, set()).add(int(before.place[row, old]))
        alive[row] = False
        for new, members in slots.items():
            place, chosen = int(after.place[row, new]), sorted(members)
            weights = old_size[row, chosen] if weighted else torch.ones(len(chosen))
            states[row, place] = (old_states[row, chosen] * weights[:, None]).sum(0) / weights.sum()
            size[row, place] = old_size[row, chosen].sum()
            alive[row, place] = True
    return states, alive, size

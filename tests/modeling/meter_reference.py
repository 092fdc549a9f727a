"""What a reduced METER should compute, written with plain layers on sequences that keep their full length."""

from __future__ import annotations

import torch
from fusion_reference import regroup

from lmms_tokendrop.modeling.core.attention import key_bias

METER_METHODS: dict[str, dict] = {
    "none": {"method": "none"},
    "pumer": {"method": "pumer", "layers": [0, 4]},
    "pumer_queries": {"method": "pumer", "layers": [2, 6], "score": "queries", "prune_ratio": 0.3},
    "prune": {"method": "pumer", "prune_ratio": 0.4, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0},
    "merge_image": {"method": "pumer", "prune_ratio": 0.0, "text_merge_ratio": 0.0},
    "merge_text": {"method": "pumer", "prune_ratio": 0.0, "image_merge_ratio": 0.0, "text_merge_ratio": 0.4},
    "tome": {"method": "tome", "r": 9},
    "tome_plain": {"method": "tome", "r": 7, "proportional_attention": False, "schedule": "decreasing"},
    "random": {"method": "random"},
    "cls_attention": {"method": "cls_attention", "layers": [0, 6]},
    "dynamicvit": {"method": "dynamicvit", "layers": [2, 4, 6], "keep_ratio": 0.6},
    "smres": {"method": "smres", "image_size": 20},
    "vision_tome": {"method": "vision_tome", "vision_r": 9},
    "pumer_vision": {"method": "pumer", "image_size": 24, "vision_r": 5},
}
METER_REDUCING = tuple(name for name in METER_METHODS if name not in ("none", "smres", "vision_tome"))


def meter_masked_logits(stock, model, inputs: dict, report) -> torch.Tensor:
    """Logits of the plain question answering model where what left is masked and merged slots hold their mean.

    The image starts as the reduced model's tower left it, its tokens at their places of the whole image.

    Parameters
    ----------
    stock : MeterForQuestionAnswering
        The model whose layers run, at full length.
    model : MeterTokenDropForQuestionAnswering
        Gives the image's states.
    inputs : dict
        The model's inputs.
    report : FusionReport
        Which tokens became one, as the reduced model did it.
    """
    reducer = model.meter.token_reducer
    weighted = model.config.token_reduction["method"] == "tome"
    image_embeds, known = model.meter.encode_images(inputs["pixel_values"], None)
    mask, length = inputs["attention_mask"].bool(), inputs["input_ids"].shape[1]
    text_embeds = stock.meter.get_text_features(inputs["input_ids"], mask.long())
    text, image = stock.meter.embed(text_embeds, image_embeds, 1)
    tokens = known["tokens"].behind_text(mask)
    batch, unreduced = tokens.owner.shape
    states, alive = torch.zeros(batch, unreduced, 64), torch.zeros(batch, unreduced, dtype=torch.bool)
    for row in range(batch):
        places = tokens.place[row, tokens.valid[row]]
        states[row, places] = torch.cat([text, image], dim=1)[row, tokens.valid[row]]
        alive[row, places] = True
    size = torch.ones(alive.shape)
    pairs = zip(stock.meter.cross_modal_text_layers, stock.meter.cross_modal_image_layers, strict=True)
    for (text_layer, image_layer), received, left in zip(pairs, report.received, report.left, strict=True):
        states, alive, size = regroup(states, alive, size, tokens, received, weighted)
        text, image = states[:, :length], states[:, length:]
        sizes = size if "fusion" in reducer.proportional_attention else None
        text_keys, image_keys = biased_keys(alive, sizes, length)
        attended = before_feed_forward(text_layer, text, image, text_keys, image_keys)
        states, alive, size = regroup(torch.cat([attended, image], dim=1), alive, size, received, left, weighted)
        _, image_keys = biased_keys(alive, size if "fusion" in reducer.proportional_attention else None, length)
        image = image_layer(states[:, length:], text, image_keys, text_keys)[0]
        states = torch.cat([text_layer.feed_forward(states[:, :length]), image], dim=1)
        tokens = left
    return stock.classifier(stock.meter.pool(states[:, :length], states[:, length:]))


def before_feed_forward(layer, states, other, keys, other_keys) -> torch.Tensor:
    """States behind both attentions of a layer."""
    found = []

    def decide(states, other, *_):
        found.append(states)
        return None, states, other

    layer(states, other, keys, other_keys, decide=decide)
    return found[0]


def biased_keys(alive: torch.Tensor, size: torch.Tensor | None, length: int):
    """Biases of the keys of text and image, which all count in full."""
    whole = key_bias(alive, torch.float32, size)
    return ((None, None),) * 2 if whole is None else ((whole[..., :length], None), (whole[..., length:], None))

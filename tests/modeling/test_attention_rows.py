"""Scores computed beside the layer equal the eager backend's attention weights."""

from __future__ import annotations

import pytest
import torch
from cases import ATTENTIONS, largest_difference
from tiny_models import TEXT_BACKBONES
from transformers import DynamicCache

from lmms_tokendrop.modeling.core.attention import cls_attention
from lmms_tokendrop.modeling.core.decoder_attention import RowScores
from lmms_tokendrop.modeling.core.transformers_compat import cache_argument

LAYER = 2


@torch.no_grad()
def run_layer(stock, attention_mask, length=24):
    """What layer `LAYER` received, its positions, its cached keys, and the eager attention weights."""
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(2, length, 64, generator=generator)
    positions = (attention_mask.cumsum(-1) - 1).clamp_min(0)
    decoder = stock.model.language_model
    cache = DynamicCache(config=decoder.config)
    received, weights = {}, {}
    hooks = [
        decoder.layers[LAYER].register_forward_pre_hook(lambda module, args: received.update(input=args[0])),
        decoder.layers[LAYER].self_attn.register_forward_hook(lambda module, args, out: weights.update(rows=out[1])),
    ]
    decoder(
        inputs_embeds=embeds,
        attention_mask=attention_mask,
        position_ids=positions,
        **cache_argument(cache),
        use_cache=True,
    )
    for hook in hooks:
        hook.remove()
    return (
        received["input"],
        decoder.rotary_emb(embeds, position_ids=positions),
        cache.layers[LAYER].keys,
        weights["rows"],
    )


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("text", TEXT_BACKBONES)
def test_decoder_rows_equal_eager_attentions(workshop, text, attention, padding):
    mask = torch.ones(2, 24, dtype=torch.long)
    mask[0, :padding] = 0
    states, embeddings, keys, _ = run_layer(workshop.stock(text, attention), mask)
    weights = run_layer(workshop.stock(text, "eager"), mask)[3]
    rows = torch.zeros(2, 24, dtype=torch.bool)
    rows[0, [8, 15, 23]] = True
    rows[1, 19:] = True
    layer = workshop.stock(text, attention).model.language_model.layers[LAYER]
    with torch.no_grad():
        actual = RowScores(layer, states, embeddings, keys, mask.bool() if padding else None).over_cache(rows)
    for row, count in enumerate((3, 5)):
        expected = weights[row][:, rows[row]]
        assert largest_difference(actual[row][:, -count:], expected) <= 1e-5
        assert not bool(actual[row][:, :-count].any())


@torch.no_grad()
def test_rows_after_a_past_see_the_past_and_themselves(workshop):
    mask = torch.ones(2, 24, dtype=torch.long)
    states, embeddings, keys, weights = run_layer(workshop.stock(attention="eager"), mask)
    layer = workshop.stock(attention="eager").model.language_model.layers[LAYER]
    rows = torch.zeros(2, 4, dtype=torch.bool)
    rows[:, [1, 3]] = True
    tail = tuple(part[:, -4:] for part in embeddings)
    actual = RowScores(layer, states[:, -4:], tail, keys, None).over_cache(rows)
    assert largest_difference(actual, weights[:, :, [21, 23]]) <= 1e-5


def every(states: torch.Tensor) -> torch.Tensor:
    """A mask without padding."""
    return torch.ones(states.shape[:2], dtype=torch.bool)


@torch.no_grad()
def test_cls_attention_equals_eager_clip_attentions(workshop):
    pixels = torch.randn(3, 3, 42, 42)
    eager = workshop.stock(attention="eager").model.vision_tower
    expected = eager(pixels, output_attentions=True).attentions[-1].mean(1)[:, 0, 1:]
    states = workshop.stock().model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2]
    actual = cls_attention(workshop.stock().model.vision_tower.encoder.layers[-1], states, every(states))
    assert largest_difference(actual, expected) <= 1e-5


@torch.no_grad()
def test_cls_attention_with_padding_equals_the_shorter_sequence(workshop):
    block = workshop.stock().model.vision_tower.encoder.layers[-1]
    states = torch.randn(1, 21, 64)
    shorter = torch.cat([states[:, :1], states[:, 6:]], dim=1)
    mask = torch.ones(1, 21, dtype=torch.bool)
    mask[:, 1:6] = False
    padded = cls_attention(block, states, mask)
    assert largest_difference(padded[:, 5:], cls_attention(block, shorter, every(shorter))) <= 1e-6
    assert not bool(padded[:, :5].any())


@torch.no_grad()
def test_the_model_s_cls_attention_is_the_eager_towers(workshop):
    model = workshop.reduced({"method": "mustdrop", "merge_threshold": 1.1, "global_threshold": 0.0})
    inputs = workshop.inputs("one_image")
    (tokens,) = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).visual_tokens
    eager = workshop.stock(attention="eager").model.vision_tower
    attention = eager(inputs["pixel_values"][0], output_attentions=True).attentions[-1].mean(1)[:, 0, 1:]
    patches = ~tokens.newline
    expected = attention[tokens.tile[patches], tokens.row[patches] * 6 + tokens.column[patches]]
    assert largest_difference(tokens.carry["cls_attention"][patches], expected) <= 1e-6
    assert not bool(tokens.carry["cls_attention"][tokens.newline].any())

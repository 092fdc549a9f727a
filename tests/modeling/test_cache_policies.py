"""The output-aware policy: what generated tokens attend least leaves."""

from __future__ import annotations

import math

import pytest
import torch
from cases import ATTENTIONS, METHODS, greedy, largest_difference, stacked_logits
from masked_reference import (
    decoder_logits,
    decoder_visibility,
    embed,
    image_features,
    survivors_per_image,
    turns_from_records,
)
from tiny_models import TEXT_BACKBONES

from lmms_tokendrop.modeling.core.transformers_compat import cache_argument, cache_of

POLICY = {"decode_interval": 2, "decode_drop_ratio": 0.25, "decode_floor": 3}


def least_attended_reference(stock, inputs, output, reduction):
    """Logits of a generation under the policy, and per layer what is still held; nothing is ever dropped here.

    The stock layers run on the whole sequence for every generated token; attention comes from the eager backend.
    """
    records, sequences = cache_of(output).records, output.sequences
    batch, prompt = inputs["input_ids"].shape
    layers = len(stock.model.language_model.layers)
    whole = sequences[:, :-1]
    length = whole.shape[1]
    plain = image_features(stock, inputs, None, "eager")
    lengths = [len(image) for image in plain]
    survivors = None
    if records and reduction["method"] == "mustdrop":
        survivors = survivors_per_image(records[0], inputs["input_ids"], 4, lengths)
    embeds = embed(stock, whole, image_features(stock, inputs, survivors, "eager"))
    image_of = torch.full((batch, length), -1)
    image_of[whole == 4] = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    valid = torch.ones(batch, length, dtype=torch.bool)
    valid[:, :prompt] = inputs["attention_mask"].bool()
    visible = decoder_visibility(turns_from_records(records, [(0, prompt, True)], length, layers, batch), valid, layers)
    positions = (valid.long().cumsum(-1) - 1).clamp_min(0)
    held = [layer[:, prompt].clone() if prompt < length else None for layer in visible]
    attended = [torch.zeros(batch, length) for _ in range(layers)]
    logits = None
    for number, place in enumerate(range(prompt, length), start=1):
        for layer in range(layers):
            visible[layer][:, place, :prompt] = held[layer][:, :prompt]
        rows = {}
        logits = decoder_logits(stock, embeds, positions, visible, "eager", watch=rows.__setitem__)
        for layer in range(layers):
            attended[layer] += rows[layer][:, :, place].mean(1)
        if number % reduction["decode_interval"]:
            continue
        for layer in range(layers):
            for image in range(len(lengths)):
                row = int((image_of == image).any(-1).nonzero())
                entries = ((image_of[row] == image) & held[layer][row]).nonzero().flatten()
                stays = max(
                    len(entries) - math.ceil(len(entries) * reduction["decode_drop_ratio"]),
                    min(len(entries), reduction["decode_floor"]),
                )
                order = attended[layer][row, entries].argsort(descending=True, stable=True)
                held[layer][row, entries[order[stays:]]] = False
    return logits[:, prompt - 1 :], held


@pytest.mark.parametrize("prompt", ["one_image", "two_images", "ragged_batch"])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("text", TEXT_BACKBONES)
def test_the_policy_equals_a_masked_reference(workshop, text, attention, prompt):
    reduction = {**METHODS["budget"], **POLICY}
    inputs = workshop.inputs(prompt)
    output = greedy(workshop.reduced(reduction, text, attention), inputs, steps=8)
    expected, held = least_attended_reference(workshop.stock(text, "eager"), inputs, output, reduction)
    assert largest_difference(stacked_logits(output), expected) <= 1e-5
    for layer, mask in zip(cache_of(output).layers, held, strict=True):
        index = layer.entries.place
        for row in range(len(mask)):
            prompt_entries = index[row][(index[row] >= 0) & (index[row] < inputs["input_ids"].shape[1])]
            assert prompt_entries.tolist() == mask[row, : inputs["input_ids"].shape[1]].nonzero().flatten().tolist()


def test_nothing_leaves_before_the_interval_is_over(workshop):
    inputs = workshop.inputs("one_image")
    model = workshop.reduced({**METHODS["budget"], **POLICY, "decode_interval": 4})
    lengths = [cache_of(greedy(model, inputs, steps)).report().kv_lengths[0] for steps in (1, 4, 5)]
    assert lengths[1] == lengths[0] + 3
    assert lengths[2] < lengths[1]


def test_layers_choose_for_themselves(workshop):
    output = greedy(workshop.reduced({**METHODS["budget"], **POLICY}), workshop.inputs("two_images"), steps=8)
    indices = [tuple(layer.entries.place[0].tolist()) for layer in cache_of(output).layers]
    assert len(set(indices)) > 1


def test_the_floor_holds_per_image(workshop):
    reduction = {**METHODS["budget"], "decode_interval": 1, "decode_drop_ratio": 1.0, "decode_floor": 5}
    inputs = workshop.inputs("two_images")
    output = greedy(workshop.reduced(reduction), inputs, steps=6)
    boundaries = (inputs["input_ids"][0] == 4).nonzero().flatten()
    second_starts = int(boundaries[boundaries.diff().argmax() + 1])
    visual = set(boundaries.tolist())
    for layer in cache_of(output).layers:
        held = [place for place in layer.entries.place[0].tolist() if place in visual]
        assert len([place for place in held if place < second_starts]) == 5
        assert len([place for place in held if place >= second_starts]) == 5


def test_the_policy_goes_on_after_a_second_turn(workshop):
    model = workshop.reduced({**METHODS["budget"], **POLICY})
    first = greedy(model, workshop.inputs("one_image"), steps=5)
    cache = cache_of(first)
    more = torch.cat([first.sequences, torch.tensor([[40, 41, 42]])], dim=1)
    before = cache.report().kv_lengths[0]
    second = greedy(model, {"input_ids": more, "attention_mask": torch.ones_like(more)}, 6, **cache_argument(cache))
    assert cache_of(second).report().kv_lengths[0] < before + 4 + 5


def test_without_a_cache_the_policy_is_an_error(workshop):
    model = workshop.reduced({**METHODS["budget"], **POLICY})
    with pytest.raises(ValueError, match="decode_interval"):
        greedy(model, workshop.inputs("one_image"), use_cache=False)

"""Keeping everything is the stock model; dropping is masking; a batch is its rows."""

from __future__ import annotations

import pytest
import torch
from cases import (
    BACKBONES,
    KEEP_ALL,
    MASKED,
    METHODS,
    PROMPTS,
    REDUCING,
    WHOLE_CACHES,
    greedy,
    largest_difference,
    merges_windows,
    stacked_logits,
)
from masked_reference import masked_generation
from tiny_models import TEXT_BACKBONES

from lmms_tokendrop.modeling.core.transformers_compat import cache_of

WITH_IMAGES = tuple(name for name in PROMPTS if name != "text_only")


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("method", KEEP_ALL)
@pytest.mark.parametrize(("text", "attention"), BACKBONES)
class TestKeepAll:
    def test_generation_is_bitwise_stock(self, workshop, text, attention, method, prompt):
        inputs = workshop.inputs(prompt)
        expected = greedy(workshop.stock(text, attention), inputs)
        actual = greedy(workshop.reduced(KEEP_ALL[method], text, attention), inputs)
        assert torch.equal(actual.sequences, expected.sequences)
        assert torch.equal(stacked_logits(actual), stacked_logits(expected))

    def test_forward_is_bitwise_stock_on_every_token(self, workshop, text, attention, method, prompt):
        inputs = workshop.inputs(prompt)
        expected = workshop.stock(text, attention)(**inputs).logits
        actual = workshop.reduced(KEEP_ALL[method], text, attention)(**inputs).logits
        real = inputs["attention_mask"].bool()
        assert torch.equal(actual[real], expected[real])


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("method", MASKED)
@pytest.mark.parametrize(("text", "attention"), BACKBONES)
class TestDropIsMask:
    def test_prefill_and_decode_equal_the_masked_reference(self, workshop, text, attention, method, prompt):
        inputs = workshop.inputs(prompt)
        output = greedy(workshop.reduced(method, text, attention), inputs)
        follow = {"compacted_from": WHOLE_CACHES.get(method, 0), "windows": merges_windows(METHODS[method])}
        expected = masked_generation(workshop.stock(text, attention), inputs, output, attention, **follow)
        assert largest_difference(stacked_logits(output), expected) <= 1e-5


@pytest.mark.parametrize("prompt", WITH_IMAGES)
@pytest.mark.parametrize("method", REDUCING)
def test_the_cases_really_reduce(workshop, method, prompt):
    report = cache_of(greedy(workshop.reduced(method), workshop.inputs(prompt), 1)).report()
    assert report.reduced == [bool(images) for _, images in PROMPTS[prompt]]


@pytest.mark.parametrize("text", TEXT_BACKBONES)
def test_first_layers_that_keep_their_cache_equal_the_masked_reference(workshop, text):
    inputs = workshop.inputs("ragged_batch")
    output = greedy(workshop.reduced({**METHODS["budget"], "compact_first_layers": False}, text), inputs)
    lengths = cache_of(output).report().kv_lengths
    assert lengths[0] > lengths[1] > lengths[2] == lengths[3]
    expected = masked_generation(workshop.stock(text), inputs, output, "sdpa", compacted_from=2)
    assert largest_difference(stacked_logits(output), expected) <= 1e-5


def compact_positions(turns, valid, layers):
    """Positions counted, layer by layer, over what the layer holds of a one-turn request."""
    (turn,) = turns
    positions = []
    for layer in range(layers):
        prompt = (turn.kept[layer] & valid).long().cumsum(-1) - 1
        held = (turn.left[layer] & valid).sum(-1, keepdim=True)
        generated = held + torch.arange(valid.shape[1] - turn.stop)
        positions.append(torch.cat([prompt[:, : turn.stop].clamp_min(0), generated], dim=1))
    return positions


@pytest.mark.parametrize("compact_first_layers", [True, False])
@pytest.mark.parametrize("prompt", WITH_IMAGES)
def test_compact_positions_are_counted_over_what_is_left(workshop, prompt, compact_first_layers):
    inputs = workshop.inputs(prompt)
    reduction = {**METHODS["budget"], "compact_first_layers": compact_first_layers}
    output = greedy(workshop.reduced({**reduction, "position_mode": "compact"}), inputs)
    expected = masked_generation(
        workshop.stock(),
        inputs,
        output,
        "sdpa",
        compacted_from=0 if compact_first_layers else 2,
        positions=compact_positions,
    )
    assert largest_difference(stacked_logits(output), expected) <= 1e-5
    original = greedy(workshop.reduced(reduction), inputs)
    assert largest_difference(stacked_logits(output)[:, 0], stacked_logits(original)[:, 0]) > 1e-3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("text", "attention"), BACKBONES)
def test_a_row_of_a_ragged_batch_equals_the_same_request_alone(workshop, text, attention, method):
    model = workshop.reduced(method, text, attention)
    together = greedy(model, workshop.inputs("ragged_batch"))
    report = cache_of(together).report()
    for row, prompt in enumerate(PROMPTS["ragged_batch"]):
        alone = greedy(model, workshop.inputs([prompt]))
        single = cache_of(alone).report()
        assert {stage: rows[row] for stage, rows in report.kept.items()} == {
            stage: rows[0] for stage, rows in single.kept.items()
        }
        assert report.average_visual_tokens[row] == single.average_visual_tokens[0]
        assert largest_difference(stacked_logits(together)[row], stacked_logits(alone)[0]) <= 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_permuting_a_batch_permutes_its_results(workshop, method):
    batch = [*PROMPTS["ragged_batch"], PROMPTS["two_images"][0], PROMPTS["text_only"][0]]
    order = [2, 0, 3, 1]
    model = workshop.reduced(method)
    first = greedy(model, workshop.inputs(batch))
    second = greedy(model, workshop.inputs([batch[number] for number in order]))
    kept, permuted = cache_of(first).report().kept, cache_of(second).report().kept
    assert {stage: [rows[number] for number in order] for stage, rows in kept.items()} == permuted
    assert largest_difference(stacked_logits(first)[order], stacked_logits(second)) <= 1e-5


@pytest.mark.parametrize("method", ["budget", "threshold"])
def test_merging_of_an_image_does_not_depend_on_its_batch(workshop, method):
    model = workshop.reduced(method)
    inputs = workshop.inputs("ragged_batch")
    together = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).visual_tokens
    for row, prompt in enumerate(PROMPTS["ragged_batch"]):
        single = workshop.inputs([prompt])
        (alone,) = model.get_image_features(single["pixel_values"], single["image_sizes"]).visual_tokens
        assert torch.equal(together[row].present, alone.present)
        assert torch.allclose(together[row].carry["cls_attention"], alone.carry["cls_attention"], atol=1e-6)


def test_a_sample_seed_draws_the_same_in_any_batch(workshop):
    model = workshop.reduced("random")
    kept = greedy(model, workshop.inputs("ragged_batch"), 1, sample_seeds=torch.tensor([3, 7]))
    kept = cache_of(kept).report().kept["before layer 0"]
    for row, seed in enumerate((3, 7)):
        inputs = workshop.inputs([PROMPTS["ragged_batch"][row]])
        alone = cache_of(greedy(model, inputs, 1, sample_seeds=torch.tensor([seed]))).report()
        assert alone.kept["before layer 0"][0] == kept[row]


def test_sample_seeds_and_the_seed_option_change_what_is_drawn(workshop):
    inputs = workshop.inputs("one_image")

    def kept(seed, sample_seed):
        model = workshop.reduced({**METHODS["random"], "seed": seed})
        output = greedy(model, inputs, 1, sample_seeds=torch.tensor([sample_seed]))
        return tuple(cache_of(output).report().kept["before layer 0"][0])

    assert len({kept(0, 0), kept(0, 1), kept(1, 0), kept(1, 1)}) == 4


@pytest.mark.parametrize("method", METHODS)
def test_a_b_a_gives_a_twice(workshop, method):
    model = workshop.reduced(method)
    first = greedy(model, workshop.inputs("one_image"))
    greedy(model, workshop.inputs("ragged_batch"))
    again = greedy(model, workshop.inputs("one_image"))
    assert torch.equal(stacked_logits(first), stacked_logits(again))

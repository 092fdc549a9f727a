"""Lengths, bytes and accounts of the cache; its operations."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from cases import METHODS, PROMPTS, WHOLE_CACHES, greedy, largest_difference, stacked_logits

from lmms_tokendrop import StagedCache
from lmms_tokendrop.modeling.core.transformers_compat import cache_argument, cache_of
from lmms_tokendrop.modeling.core.visual_tokens import Entries

WITH_IMAGES = tuple(name for name in PROMPTS if name != "text_only")


def prefill(model, inputs) -> StagedCache:
    """The cache of a prompt."""
    with torch.no_grad():
        return cache_of(model(**inputs, use_cache=True, prompt_length=inputs["input_ids"].shape[1]))


@torch.no_grad()
def step(model, cache, tokens) -> torch.Tensor:
    """Logits of one more token per row."""
    valid = cache_mask(cache, tokens)
    positions = (valid.long().cumsum(-1) - 1)[:, -tokens.shape[1] :]
    return model(
        input_ids=tokens, attention_mask=valid, position_ids=positions, **cache_argument(cache), use_cache=True
    ).logits


def cache_mask(cache, tokens) -> torch.Tensor:
    mask = torch.ones(len(tokens), cache.seen + tokens.shape[1], dtype=torch.long)
    mask[:, : cache.prompt_mask.shape[1]] = cache.prompt_mask
    return mask


def prefilled(model, inputs):
    cache = prefill(model, inputs)
    cache.prompt_mask = inputs["attention_mask"]
    return cache


def text_tokens(inputs) -> torch.Tensor:
    visual = inputs["input_ids"] == 4
    return (inputs["attention_mask"].bool() & ~visual).sum(-1)


def held(method: str, inputs: dict, report) -> list[list[int]]:
    """Tokens of each row in each layer's cache: what the first layers received, and the last survivors behind these."""
    kept = [len(row) for row in list(report.kept.values())[-1]] if report.kept else report.full_visual_tokens
    whole, texts = WHOLE_CACHES.get(method, 0), text_tokens(inputs).tolist()
    layers = report.visual_tokens_per_layer[:whole] + [kept] * (4 - whole)
    return [[text + visual for text, visual in zip(texts, layer, strict=True)] for layer in layers]


@pytest.fixture(scope="module")
def prompt_cache(workshop) -> Callable[[str, str], StagedCache]:
    """Return `make(method, prompt)`: the cache of a prompt, to be read."""
    return cache(lambda method, prompt: prefill(workshop.reduced(method), workshop.inputs(prompt)))


@pytest.mark.parametrize("prompt", WITH_IMAGES)
@pytest.mark.parametrize("method", METHODS)
class TestAccounts:
    def test_what_layers_receive_is_what_stages_left(self, workshop, prompt_cache, method, prompt):
        inputs = workshop.inputs(prompt)
        cache = prompt_cache(method, prompt)
        report = cache.report()
        current = (inputs["input_ids"] == 4).sum(-1)
        left = {record.name: (record.index >= 0).sum(-1) - text_tokens(inputs) for record in cache.records}
        current = left.get("before layer 0", current)
        for layer, received in enumerate(report.visual_tokens_per_layer):
            assert received == current.tolist()
            current = left.get(f"after layer {layer}", current)

    def test_averages_are_means_over_layers(self, prompt_cache, method, prompt):
        report = prompt_cache(method, prompt).report()
        layers = report.visual_tokens_per_layer
        last = [len(row) for row in list(report.kept.values())[-1]] if report.kept else layers[-1]
        for row in range(len(layers[0])):
            received = [layer[row] for layer in layers]
            assert report.average_visual_tokens[row] == pytest.approx(sum(received) / len(layers))
            after = [*received[1:], last[row]]
            assert report.average_visual_tokens_release[row] == pytest.approx(sum(after) / len(layers))

    def test_the_cache_holds_the_last_survivors_in_every_layer(self, workshop, prompt_cache, method, prompt):
        inputs = workshop.inputs(prompt)
        report = prompt_cache(method, prompt).report()
        assert report.kv_lengths == [max(row) for row in held(method, inputs, report)]

    def test_bytes_are_exact(self, workshop, prompt_cache, method, prompt):
        inputs = workshop.inputs(prompt)
        report = prompt_cache(method, prompt).report()
        per_entry = 2 * 4 * 8 * 4  # keys and values, 4 heads of 8 channels, float32
        rows = inputs["input_ids"].shape[0]
        assert report.kv_bytes == sum(report.kv_lengths) * per_entry * rows
        tokens = map(sum, zip(*held(method, inputs, report), strict=True))
        assert report.kv_bytes_per_row == [count * per_entry for count in tokens]

    def test_bytes_are_those_of_the_tensors(self, prompt_cache, method, prompt):
        cache = prompt_cache(method, prompt)
        tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        assert cache.report().kv_bytes == sum(tensor.nbytes for tensor in tensors)

    def test_layers_know_places_and_nothing_else_of_their_tokens(self, prompt_cache, method, prompt):
        assert {type(layer.entries) for layer in prompt_cache(method, prompt).layers} == {Entries}


def test_lengths_without_compaction_are_the_plan(workshop):
    inputs = workshop.inputs("one_image")
    report = prefill(workshop.reduced({**METHODS["budget"], "compact_first_layers": False}), inputs).report()
    text = int(text_tokens(inputs))
    received = [layer[0] for layer in report.visual_tokens_per_layer]
    assert report.kv_lengths == [text + received[0], text + received[1], text + received[3], text + received[3]]
    assert report.kv_bytes_per_row == [sum(report.kv_lengths) * 256]


def test_generated_tokens_are_counted_as_bytes(workshop):
    model, inputs = workshop.reduced("budget"), workshop.inputs("one_image")
    before = prefill(model, inputs).report()
    after = cache_of(greedy(model, inputs, steps=6)).report()
    assert after.kv_lengths == [length + 5 for length in before.kv_lengths]
    assert after.kv_bytes == before.kv_bytes + 5 * 4 * 256
    assert after.visual_tokens_per_layer == before.visual_tokens_per_layer


def test_kept_names_image_tile_row_and_column(workshop):
    model, inputs = workshop.reduced("budget"), workshop.inputs("two_images")
    report = prefill(model, inputs).report()
    assert list(report.kept) == ["before layer 0", "after layer 0", "after layer 1", "after layer 2"]
    earlier = None
    for rows in report.kept.values():
        (kept,) = rows
        assert len(kept) == len(set(kept))
        assert {image for image, *_ in kept} == {0, 1}
        assert all(0 <= row < 6 and 0 <= column <= 6 for _, _, row, column in kept)
        assert earlier is None or set(kept) <= earlier
        earlier = set(kept)


def test_a_text_only_request_can_be_reported(workshop):
    report = cache_of(greedy(workshop.reduced("budget"), workshop.inputs("text_only"))).report()
    assert report.full_visual_tokens == [0]
    assert report.reduced == [False]
    assert report.average_visual_tokens == [0.0]
    assert report.kv_lengths == [9 + 4] * 4


def test_an_empty_cache_has_no_report(workshop):
    with pytest.raises(ValueError, match="empty"):
        StagedCache(workshop.stock().config.text_config).report()


TOKENS = torch.tensor([[17], [29]])


@pytest.mark.parametrize("method", METHODS)
class TestOperations:
    def test_reordered_rows_continue_like_their_sources(self, workshop, method):
        model, inputs = workshop.reduced(method), workshop.inputs("ragged_batch")
        expected = step(model, prefilled(model, inputs), TOKENS)
        cache = prefilled(model, inputs)
        cache.reorder_cache(torch.tensor([1, 0]))
        cache.prompt_mask = inputs["attention_mask"].flip(0)
        assert largest_difference(step(model, cache, TOKENS.flip(0)), expected.flip(0)) <= 1e-5

    def test_selected_rows_continue_like_their_sources(self, workshop, method):
        model, inputs = workshop.reduced(method), workshop.inputs("ragged_batch")
        expected = step(model, prefilled(model, inputs), TOKENS)
        cache = prefilled(model, inputs)
        report = cache.report()
        cache.batch_select_indices(torch.tensor([1]))
        cache.prompt_mask = inputs["attention_mask"][1:]
        selected = cache.report()
        assert selected.visual_tokens_per_layer == [layer[1:] for layer in report.visual_tokens_per_layer]
        assert selected.kept == {stage: rows[1:] for stage, rows in report.kept.items()}
        assert selected.kv_bytes_per_row == report.kv_bytes_per_row[1:]
        assert largest_difference(step(model, cache, TOKENS[1:]), expected[1:]) <= 1e-5

    def test_repeated_rows_continue_like_their_sources(self, workshop, method):
        model, inputs = workshop.reduced(method), workshop.inputs("ragged_batch")
        expected = step(model, prefilled(model, inputs), TOKENS)
        cache = prefilled(model, inputs)
        cache.batch_repeat_interleave(2)
        cache.prompt_mask = inputs["attention_mask"].repeat_interleave(2, dim=0)
        repeated = step(model, cache, TOKENS.repeat_interleave(2, dim=0))
        assert largest_difference(repeated, expected.repeat_interleave(2, dim=0)) <= 1e-5
        assert len(cache.report().reduced) == 4

    def test_cropping_generated_tokens_undoes_them(self, workshop, method):
        model, inputs = workshop.reduced(method), workshop.inputs("ragged_batch")
        cache = prefilled(model, inputs)
        expected = step(model, cache.copy(), TOKENS)
        before = cache.report()
        for _ in range(3):
            step(model, cache, TOKENS + 1)
        cache.crop(-3)
        assert cache.report() == before
        assert largest_difference(step(model, cache, TOKENS), expected) <= 1e-5

    def test_a_copy_is_independent(self, workshop, method):
        model, inputs = workshop.reduced(method), workshop.inputs("ragged_batch")
        cache = prefilled(model, inputs)
        before = cache.report()
        copies = [cache.copy(), cache.copy()]
        first = step(model, copies[0], TOKENS)
        step(model, copies[0], TOKENS)
        copies[0].reorder_cache(torch.tensor([1, 0]))
        assert cache.report() == before
        assert torch.equal(step(model, copies[1], TOKENS), first)
        assert torch.equal(step(model, cache, TOKENS), first)

    def test_a_reset_cache_serves_another_request(self, workshop, method):
        model, inputs = workshop.reduced(method), workshop.inputs("ragged_batch")
        cache = prefilled(model, workshop.inputs("one_image"))
        cache.reset()
        assert (cache.seen, cache.records, cache.kv_bytes) == (0, [], 0)
        used = greedy(model, inputs, **cache_argument(cache))
        assert torch.equal(stacked_logits(used), stacked_logits(greedy(model, inputs)))


def test_cropping_into_a_prompt_whose_end_is_whole_works(workshop):
    model, inputs = workshop.reduced("budget"), workshop.inputs("one_image")
    cache = prefilled(model, inputs)
    cache.crop(-2)
    assert cache.seen == inputs["input_ids"].shape[1] - 2


def test_cropping_past_tokens_that_left_is_an_error(workshop):
    model, inputs = workshop.reduced("budget"), workshop.inputs("one_image")
    cache = prefilled(model, inputs)
    with pytest.raises(ValueError, match=r"crop\(-60\)"):
        cache.crop(-60)


def test_cropping_by_a_positive_number_is_an_error(workshop):
    cache = prefilled(workshop.reduced("budget"), workshop.inputs("one_image"))
    with pytest.raises(ValueError, match="negative"):
        cache.crop(2)


def test_the_logical_length_counts_everything_that_went_in(workshop):
    inputs = workshop.inputs("one_image")
    cache = prefill(workshop.reduced("budget"), inputs)
    assert {cache.get_seq_length(layer) for layer in range(4)} == {inputs["input_ids"].shape[1]}
    assert cache.get_query_offset(0) < cache.get_seq_length()


@pytest.mark.parametrize("newlines", ["row", "keep", "drop"])
def test_a_report_counts_key_tokens_newlines_and_the_places_that_the_text_decided(workshop, newlines):
    reduction = {"method": "mustdrop", "keep_ratio": 0.6, "newlines": newlines, "key_ratio": 0.2}
    cache = prefill(workshop.reduced(reduction), workshop.inputs("ragged_batch"))
    report = cache.report()
    assert list(report.counts) == list(report.kept)
    for stage, rows in report.counts.items():
        for row, counts in enumerate(rows):
            places = report.kept[stage][row]
            assert counts["tokens"] == len(places)
            assert counts["newlines"] == sum(column == 6 for *_, column in places)
            assert counts["key_tokens"] == int(cache.records[0].carry["key"][row].sum()) > 0
            assert counts["others"] == counts["tokens"] - counts["newlines"] - counts["key_tokens"]
    assert any(counts["newlines"] for counts in list(report.counts.values())[-1]) == (newlines != "drop")

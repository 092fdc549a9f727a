"""Several turns on one cache."""

from __future__ import annotations

import pytest
import torch
from cases import (
    BACKBONES,
    MASKED,
    METHODS,
    PROMPTS,
    WHOLE_CACHES,
    greedy,
    largest_difference,
    merges_windows,
    stacked_logits,
)
from masked_reference import Chunk, masked_logits
from tiny_models import tiny_image

from lmms_tokendrop.modeling.core.transformers_compat import cache_argument, cache_of

FOLLOW_UP = torch.tensor([[40, 41, 42, 43, 44]])


def second_turn(model, workshop, image: bool):
    """Two turns: the first about one image, the second with a new image or text only."""
    inputs = workshop.inputs("one_image")
    first = greedy(model, inputs, steps=4)
    answered = first.sequences
    if image:
        second = dict(
            workshop.processor()(
                images=[tiny_image(37, 101, seed=9)], text=["<image>\nyes or no ? ASSISTANT:"], return_tensors="pt"
            )
        )
        new_ids = second.pop("input_ids")
        second.pop("attention_mask")
    else:
        second, new_ids = {}, FOLLOW_UP
    ids = torch.cat([answered, new_ids], dim=1)
    whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **second}
    output = greedy(model, whole, steps=4, **cache_argument(cache_of(first)))
    bounds = (inputs["input_ids"].shape[1], answered.shape[1] - 1, ids.shape[1])
    return inputs, second, output, bounds


@pytest.mark.parametrize("image", [False, True], ids=["text", "new_image"])
@pytest.mark.parametrize("method", MASKED)
@pytest.mark.parametrize(("text", "attention"), BACKBONES)
def test_a_second_turn_equals_a_masked_reference(workshop, text, attention, method, image):
    model = workshop.reduced(method, text, attention)
    inputs, second, output, (first_stop, second_start, second_stop) = second_turn(model, workshop, image)
    whole = output.sequences[:, :-1]
    chunks = [Chunk(0, first_stop, inputs), Chunk(second_start, second_stop, second or None)]
    expected = masked_logits(
        workshop.stock(text, attention),
        whole,
        torch.ones_like(whole, dtype=torch.bool),
        cache_of(output).records,
        chunks,
        attention,
        compacted_from=WHOLE_CACHES.get(method, 0),
        windows=merges_windows(METHODS[method]),
    )
    assert largest_difference(stacked_logits(output), expected[:, second_stop - 1 :]) <= 1e-5


@pytest.mark.parametrize("image", [False, True], ids=["text", "new_image"])
@pytest.mark.parametrize("method", METHODS)
def test_accounts_of_both_turns_add_up(workshop, method, image):
    model = workshop.reduced(method)
    inputs, _, output, _ = second_turn(model, workshop, image)
    report = cache_of(output).report()
    one = cache_of(greedy(model, inputs, 1)).report()
    assert report.full_visual_tokens == [int((output.sequences == 4).sum())]
    for layer, received in enumerate(report.visual_tokens_per_layer):
        assert (received[0] > one.visual_tokens_per_layer[layer][0]) == image
    images = {entry[0] for rows in report.kept.values() for entry in rows[0]}
    assert images == (set() if method == "none" else {0, 1} if image else {0})
    whole, entries = WHOLE_CACHES.get(method, 0), report.kv_lengths[-1]
    assert report.kv_lengths[whole:] == [entries] * (4 - whole)
    text = output.sequences.shape[1] - 1 - report.full_visual_tokens[0]
    assert report.kv_lengths[:whole] == [text + received[0] for received in report.visual_tokens_per_layer[:whole]]


@torch.no_grad()
def test_a_text_turn_equals_feeding_its_tokens_one_by_one(workshop):
    model, inputs = workshop.reduced("budget"), workshop.inputs("one_image")
    cache = cache_of(model(**inputs, use_cache=True))
    at_once = model(input_ids=FOLLOW_UP, **cache_argument(cache.copy()), use_cache=True).logits
    one_by_one = [
        model(input_ids=FOLLOW_UP[:, place : place + 1], **cache_argument(cache), use_cache=True).logits
        for place in range(FOLLOW_UP.shape[1])
    ]
    assert largest_difference(at_once, torch.cat(one_by_one, dim=1)) <= 1e-5


@torch.no_grad()
def test_keep_all_turns_equal_the_stock_model(workshop):
    _, second, output, (_, _, stop) = second_turn(workshop.reduced("none"), workshop, image=True)
    inputs = workshop.inputs("one_image")
    pixels = [*inputs["pixel_values"], *second["pixel_values"]]
    most = max(len(tiles) for tiles in pixels)
    padded = [torch.nn.functional.pad(tiles, (0, 0) * 3 + (0, most - len(tiles))) for tiles in pixels]
    stock = workshop.stock()(
        input_ids=output.sequences[:, :-1],
        pixel_values=torch.stack(padded),
        image_sizes=torch.cat([inputs["image_sizes"], second["image_sizes"]]),
    )
    assert largest_difference(stacked_logits(output), stock.logits[:, stop - 1 :]) <= 1e-5


def test_a_ragged_batch_continues_like_its_rows(workshop):
    model = workshop.reduced("budget")
    inputs = workshop.inputs("ragged_batch")
    follow_up = FOLLOW_UP.expand(2, -1)

    def two_turns(inputs, follow_up):
        first = greedy(model, inputs, 3)
        ids = torch.cat([first.sequences, follow_up], dim=1)
        mask = torch.ones_like(ids)
        mask[:, : inputs["attention_mask"].shape[1]] = inputs["attention_mask"]
        return greedy(model, {"input_ids": ids, "attention_mask": mask}, 3, **cache_argument(cache_of(first)))

    together = stacked_logits(two_turns(inputs, follow_up))
    for row, prompt in enumerate(PROMPTS["ragged_batch"]):
        alone = stacked_logits(two_turns(workshop.inputs([prompt]), FOLLOW_UP))
        assert largest_difference(together[row], alone[0]) <= 1e-5


def test_the_model_can_start_from_text_and_get_an_image_later(workshop):
    model = workshop.reduced("budget")
    first = greedy(model, workshop.inputs("text_only"), 3)
    second = workshop.inputs("one_image")
    ids = torch.cat([first.sequences, second["input_ids"]], dim=1)
    images = {name: second[name] for name in ("pixel_values", "image_sizes")}
    output = greedy(
        model,
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), **images},
        3,
        **cache_argument(cache_of(first)),
    )
    start = first.sequences.shape[1] - 1
    whole = output.sequences[:, :-1]
    expected = masked_logits(
        workshop.stock(),
        whole,
        torch.ones_like(whole, dtype=torch.bool),
        cache_of(output).records,
        [Chunk(start, ids.shape[1], images)],
        "sdpa",
    )
    assert largest_difference(stacked_logits(output), expected[:, ids.shape[1] - 1 :]) <= 1e-5


SECOND_TURNS = [
    ("<image>\nyes or no ? ASSISTANT:", [(37, 101)]),
    ("what colour ? <image>\nis it red ? ASSISTANT:", [(84, 84)]),
]


@pytest.mark.parametrize("scope", ["image", "request"])
@pytest.mark.parametrize("method", METHODS)
def test_second_turns_of_different_lengths_with_images_equal_their_rows(workshop, method, scope):
    """The second turn is padded on its left, in the middle of the sequence."""
    reduction = METHODS[method] | ({} if method in ("none", "threshold", "vision_tome") else {"scope": scope})
    model = workshop.reduced(reduction)

    def two_turns(first_prompts, second_prompts):
        inputs, more = workshop.inputs(first_prompts), workshop.inputs(second_prompts)
        first = greedy(model, inputs, 3)
        answer = torch.ones(len(first_prompts), 3, dtype=torch.long)
        whole = {
            "input_ids": torch.cat([first.sequences, more["input_ids"]], dim=1),
            "attention_mask": torch.cat([inputs["attention_mask"], answer, more["attention_mask"]], dim=1),
            **{name: more[name] for name in ("pixel_values", "image_sizes")},
        }
        return greedy(model, whole, 3, **cache_argument(cache_of(first)))

    together = two_turns(PROMPTS["ragged_batch"], SECOND_TURNS)
    report = cache_of(together).report()
    for row in range(2):
        alone = two_turns(PROMPTS["ragged_batch"][row : row + 1], SECOND_TURNS[row : row + 1])
        single = cache_of(alone).report()
        assert {stage: rows[row] for stage, rows in report.kept.items()} == {
            stage: rows[0] for stage, rows in single.kept.items()
        }
        assert report.kv_bytes_per_row[row] == single.kv_bytes_per_row[0]
        assert largest_difference(stacked_logits(together)[row], stacked_logits(alone)[0]) <= 1e-5

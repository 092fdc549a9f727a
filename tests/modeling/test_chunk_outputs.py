"""Hidden states and attentions of a forward pass that is split at the end of the prompt."""

from __future__ import annotations

import pytest
import torch
from cases import REDUCING, greedy, largest_difference

from lmms_tokendrop.modeling.core.chunk_outputs import join_attentions, join_states
from lmms_tokendrop.modeling.core.transformers_compat import cache_argument, cache_of

ANSWER = torch.tensor([[5, 9, 11], [20, 6, 7]])
LAYERS = 4
COLLECTED = {"output_hidden_states": True, "output_attentions": True}


def answered(workshop, prompt: str = "ragged_batch") -> tuple[dict, int]:
    """Inputs with an answer behind the prompt, and the length of the prompt."""
    inputs = workshop.inputs(prompt)
    length, rows = inputs["input_ids"].shape[1], len(inputs["input_ids"])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ANSWER[:rows]], dim=1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(ANSWER[:rows])], dim=1)
    return inputs, length


@torch.no_grad()
def test_without_reduction_both_are_those_of_the_stock_model(workshop):
    inputs, prompt_length = answered(workshop)
    expected = workshop.stock(attention="eager")(**inputs, **COLLECTED)
    actual = workshop.reduced("none", attention="eager")(**inputs, **COLLECTED, prompt_length=prompt_length)
    assert len(actual.hidden_states) == len(expected.hidden_states) == LAYERS + 1
    assert len(actual.attentions) == len(expected.attentions) == LAYERS
    real = inputs["attention_mask"].bool()
    for ours, stock in zip(actual.hidden_states, expected.hidden_states, strict=True):
        assert largest_difference(ours[real], stock[real]) <= 1e-5
    for ours, stock in zip(actual.attentions, expected.attentions, strict=True):
        assert ours.shape == stock.shape
        assert largest_difference(ours.transpose(1, 2)[real], stock.transpose(1, 2)[real]) <= 1e-5


@torch.no_grad()
def test_without_a_cache_generation_gives_the_stock_entries_at_every_step(workshop):
    inputs = workshop.inputs("one_image")
    expected = greedy(workshop.stock(attention="eager"), inputs, 3, use_cache=False, **COLLECTED)
    actual = greedy(workshop.reduced("none", attention="eager"), inputs, 3, use_cache=False, **COLLECTED)
    for name in ("hidden_states", "attentions"):
        for ours, stock in zip(getattr(actual, name), getattr(expected, name), strict=True):
            assert [entry.shape for entry in ours] == [entry.shape for entry in stock]
            assert all(largest_difference(*pair) <= 1e-5 for pair in zip(ours, stock, strict=True))


@pytest.mark.parametrize("method", REDUCING)
@torch.no_grad()
def test_where_tokens_left_both_are_those_of_prompt_and_answer_apart(workshop, method):
    model = workshop.reduced(method, attention="eager")
    inputs, length = answered(workshop)
    whole = model(**inputs, **COLLECTED, prompt_length=length)
    before = workshop.inputs("ragged_batch")
    prompt = model(**before, **COLLECTED, use_cache=True)
    held = [layer.entries.place.clone() for layer in cache_of(prompt).layers]
    answer = model(
        input_ids=ANSWER,
        attention_mask=inputs["attention_mask"],
        **cache_argument(cache_of(prompt)),
        **COLLECTED,
    )
    assert len(whole.hidden_states) == LAYERS + 1
    for joined, *parts in zip(whole.hidden_states, prompt.hidden_states, answer.hidden_states, strict=True):
        assert largest_difference(joined, torch.cat(parts, dim=1)) <= 1e-5
    assert len(whole.attentions) == LAYERS
    for joined, first, second, keys in zip(whole.attentions, prompt.attentions, answer.attentions, held, strict=True):
        queries, columns = first.shape[2:]
        assert joined.shape[2:] == (queries + 3, columns + 3)
        assert largest_difference(joined[:, :, :queries, :columns], first) <= 1e-6
        assert not joined[:, :, :queries, columns:].any()
        assert largest_difference(joined[:, :, queries:, columns:], second[..., -3:]) <= 1e-5
        assert largest_difference(joined[:, :, queries:].sum(-1), torch.ones(joined[:, :, queries:].shape[:3])) <= 1e-5
        assert ((joined[:, :, queries:, :columns] > 0).any(1).any(1).sum(-1) <= (keys >= 0).sum(-1)).all()


def test_joining_by_hand():
    first, second = torch.full((1, 3, 1), 1.0), torch.full((1, 1, 1), 2.0)
    (joined, absent) = join_states((first, None), (second, None))
    assert joined.flatten().tolist() == [1, 1, 1, 2]
    assert absent is None
    prompt = torch.tensor([[[[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0], [0.0, 0.2, 0.3, 0.5]]]])
    answer = torch.tensor([[[[0.1, 0.6, 0.4]]]])  # of padding, token 2 and itself: token 0 and 1 left the cache
    (attention,) = join_attentions((prompt,), (answer,), [torch.tensor([[-1, 0, 1, 2]])], [torch.tensor([[-1, 2, 3]])])
    assert torch.equal(attention[0, 0, :4, :4], prompt[0, 0])
    assert attention[0, 0, :, 4].tolist() == pytest.approx([0, 0, 0, 0, 0.4])
    assert attention[0, 0, 4].tolist() == pytest.approx([0, 0, 0, 0.6, 0.4])
    assert join_states(None, None) is None
    assert join_attentions((), (), [prompt], [prompt]) == ()

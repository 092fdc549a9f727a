"""flash_attention_2 gives the answers of sdpa: emulated kernels under transformers' own glue."""

from __future__ import annotations

import sys

import pytest
import torch
import transformers.modeling_flash_attention_utils as glue
from cases import METHODS, greedy, largest_difference, stacked_logits
from flash_emulation import FlashEmulation
from keyed_weights import with_clip
from tiny_models import TEXT_BACKBONES
from transformers import LlavaNextForConditionalGeneration

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration
from lmms_tokendrop.modeling.core.transformers_compat import cache_argument, cache_of

FLASH = "flash_attention_2"
POLICY = {**METHODS["budget"], "decode_interval": 2, "decode_drop_ratio": 0.25}


@pytest.fixture
def flash(monkeypatch) -> FlashEmulation:
    return FlashEmulation(monkeypatch)


def flash_model(workshop, reduction, text="llama"):
    """A model with flash attention, which no other test shares."""
    folder = workshop.checkpoint(text)
    return LlavaNextTokenDropForConditionalGeneration.from_pretrained(
        folder, token_reduction=with_clip(reduction, folder), attn_implementation=FLASH
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("text", TEXT_BACKBONES)
def test_generation_equals_sdpa(workshop, flash, text, method):
    model = flash_model(workshop, METHODS[method], text)
    for prompt in ("two_images", "ragged_batch"):
        inputs = workshop.inputs(prompt)
        expected, actual = greedy(workshop.reduced(method, text), inputs), greedy(model, inputs)
        assert torch.equal(actual.sequences, expected.sequences), prompt
        assert largest_difference(stacked_logits(actual), stacked_logits(expected)) <= 1e-5, prompt
        assert cache_of(actual).report() == cache_of(expected).report(), prompt
    assert {name for name, _ in flash.calls} == {"dense", "variable"}


@pytest.mark.parametrize("reduction", [POLICY, {**METHODS["budget"], "position_mode": "compact"}])
def test_policies_and_positions_equal_sdpa(workshop, flash, reduction):
    model, inputs = flash_model(workshop, reduction), workshop.inputs("ragged_batch")
    expected = greedy(workshop.reduced(reduction), inputs, steps=6)
    assert largest_difference(stacked_logits(greedy(model, inputs, steps=6)), stacked_logits(expected)) <= 1e-5


@pytest.mark.parametrize("prompt", ["one_image", "ragged_batch"])
def test_a_second_turn_equals_sdpa(workshop, flash, prompt):
    inputs = workshop.inputs(prompt)

    def two_turns(model):
        first = greedy(model, inputs, 3)
        follow_up = torch.tensor([[40, 41, 42, 43]]).expand(len(first.sequences), -1)
        ids = torch.cat([first.sequences, follow_up], dim=1)
        mask = torch.ones_like(ids)
        mask[:, : inputs["attention_mask"].shape[1]] = inputs["attention_mask"]
        return greedy(model, {"input_ids": ids, "attention_mask": mask}, 4, **cache_argument(cache_of(first)))

    expected = two_turns(workshop.reduced("budget"))
    actual = two_turns(flash_model(workshop, METHODS["budget"]))
    assert largest_difference(stacked_logits(actual), stacked_logits(expected)) <= 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_without_a_cache_equals_sdpa(workshop, flash, method):
    inputs = workshop.inputs("ragged_batch")
    expected = greedy(workshop.reduced(method), inputs)
    actual = greedy(flash_model(workshop, METHODS[method]), inputs, use_cache=False)
    assert largest_difference(stacked_logits(actual), stacked_logits(expected)) <= 1e-5


def test_a_request_without_padding_is_never_taken_for_packed_sequences(workshop, flash, monkeypatch):
    """Kept positions have holes, which transformers reads as several sequences if it is given them."""
    given = []
    monkeypatch.setattr(
        glue,
        "_is_packed_sequence",
        lambda position_ids, batch_size, detect=glue._is_packed_sequence: (
            given.append(position_ids) or detect(position_ids, batch_size)
        ),
    )
    model = flash_model(workshop, METHODS["random"])
    greedy(model, workshop.inputs("one_image"), 2)
    assert given
    assert all(position_ids is None for position_ids in given)
    decoder_calls = [name for name, causal in flash.calls if causal]
    assert set(decoder_calls) == {"dense"}


def holes(states: torch.Tensor) -> torch.Tensor:
    """Positions that rise by two."""
    return torch.arange(states.shape[1]).unsqueeze(0) * 2 + 10


def image_after_text(model, inputs, before_second_turn=None):
    """Logits of a second turn that brings the first image."""
    first = greedy(model, {"input_ids": inputs["input_ids"][:, -8:]}, 2)
    ids = torch.cat([first.sequences, inputs["input_ids"]], dim=1)
    images = {name: inputs[name] for name in ("pixel_values", "image_sizes")}
    if before_second_turn is not None:
        before_second_turn()
    return stacked_logits(greedy(model, {"input_ids": ids, **images}, 2, **cache_argument(cache_of(first))))


def test_positions_with_holes_would_change_the_answer(workshop, flash, monkeypatch):
    """Hand positions with holes to the attention call, as a stock layer loop would: the emulation shows it."""
    model, inputs = flash_model(workshop, METHODS["random"]), workshop.inputs("one_image")
    expected = image_after_text(workshop.reduced("random"), inputs)
    assert largest_difference(image_after_text(model, inputs), expected) <= 1e-5

    def hand_over():
        for layer in model.model.language_model.layers:
            monkeypatch.setattr(
                layer,
                "forward",
                lambda states, forward=layer.forward, **options: forward(
                    states, **{**options, "position_ids": holes(states)}
                ),
            )

    assert largest_difference(image_after_text(model, inputs, hand_over), expected) > 1e-3


def test_the_emulation_runs_the_stock_model(workshop, flash):
    stock = LlavaNextForConditionalGeneration.from_pretrained(workshop.checkpoint(), attn_implementation=FLASH).eval()
    for prompt in ("one_image", "ragged_batch"):
        inputs = workshop.inputs(prompt)
        expected = stacked_logits(greedy(workshop.stock(), inputs))
        assert largest_difference(stacked_logits(greedy(stock, inputs)), expected) <= 1e-5


def test_the_emulation_leaves_nothing_behind():
    with pytest.MonkeyPatch.context() as patch:
        before = dict(vars(glue))
        FlashEmulation(patch)
        assert vars(glue) != before
    assert vars(glue) == before
    assert "flash_attn" not in sys.modules

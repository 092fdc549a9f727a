"""Gradient checkpointing of a decoder: it trains, and what needs a cache says that there is none."""

from __future__ import annotations

import pytest
import torch
from cases import KEEP_ALL, METHODS, greedy, stacked_logits
from keyed_weights import with_clip

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration


def training_model(workshop, reduction: dict, checkpointing: bool = True):
    folder = workshop.checkpoint()
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(
        folder, token_reduction=with_clip(reduction, folder)
    ).train()
    if checkpointing:
        new_name = getattr(model, "activation_checkpointing_enable", None)  # transformers before 5.23 has the old one
        (new_name or model.gradient_checkpointing_enable)()
        assert any(getattr(layer, "gradient_checkpointing", False) for layer in model.model.language_model.layers)
    return model


@pytest.mark.parametrize("method", ["none", "random"])
def test_gradients_are_the_same(workshop, method):
    inputs = workshop.inputs("ragged_batch")
    gradients = []
    for checkpointing in (False, True):
        model = training_model(workshop, KEEP_ALL[method], checkpointing)
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    assert len(gradients[0]) > 50
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("reduction", [METHODS["budget"], METHODS["threshold"], KEEP_ALL["mustdrop"]])
def test_a_method_that_scores_says_that_it_needs_a_cache(workshop, reduction):
    inputs = workshop.inputs("one_image")
    model = training_model(workshop, reduction)
    with pytest.raises(RuntimeError, match="gradient checkpointing fills no cache"):
        model(**inputs)
    assert model.eval()(**inputs).logits.isfinite().all()


def test_an_answer_behind_a_prompt_is_not_trained_without_it(workshop):
    inputs = workshop.inputs("one_image")
    model = training_model(workshop, KEEP_ALL["none"])
    with pytest.raises(RuntimeError, match="a prompt_length or a continued cache reads it"):
        model(**inputs, prompt_length=inputs["input_ids"].shape[1] - 2)


@pytest.mark.parametrize("method", METHODS)
def test_without_gradients_nothing_changes(workshop, method):
    inputs = workshop.inputs("one_image")
    model = training_model(workshop, METHODS[method])
    prompt_length = inputs["input_ids"].shape[1] - 2

    def logits() -> list[torch.Tensor]:
        forward = [model(**inputs, prompt_length=length).logits for length in (None, prompt_length)]
        return [*forward, stacked_logits(greedy(model, inputs))]

    with torch.no_grad():
        training = logits()
        model.eval()
        torch.testing.assert_close(training, logits())

"""Beyond what a model has room for there is an error or a warning that names the limit, in every architecture."""

from __future__ import annotations

import logging

import pytest
import torch
from fusion_architectures import ARCHITECTURES

from lmms_tokendrop.modeling.ops.image_patches import logger


@pytest.fixture
def warnings(caplog):
    """Return the messages of this test; warnings are given once a process."""
    type(logger).warning_once.cache_clear()
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def encoder(fusion_checkpoint):
    """Return `load(name, **changes)`: model and inputs."""

    def load(name: str, **changes):
        architecture = ARCHITECTURES[name]
        model = architecture.question_answering.from_pretrained(fusion_checkpoint(name), **changes)
        return model, architecture.inputs("one")

    return load


@pytest.mark.parametrize(("name", "limit"), [("vilt", 40), ("meter", 48)])
@torch.no_grad()
def test_a_text_fills_all_positions_and_no_more(encoder, name, limit):
    model, inputs = encoder(name)
    ids = inputs["input_ids"]
    for length in (limit, limit + 1):
        inputs["input_ids"] = ids.repeat(1, 5)[:, :length]
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if length == limit:
            assert model(**inputs).logits.isfinite().all()
            continue
        with pytest.raises(ValueError, match=f"{limit + 1} tokens; .* max_position_embeddings={limit}"):
            model(**inputs)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("index", [-1, 3])
def test_a_token_type_that_the_model_lacks_is_refused(encoder, name, index):
    model, inputs = encoder(name)
    with pytest.raises(ValueError, match=f"image_token_type_idx={index}; allowed: 0 to 2"):
        getattr(model, name)(**inputs, image_token_type_idx=index)


@torch.no_grad()
def test_more_patches_than_vilt_reads_are_warned_of(encoder, warnings):
    model, inputs = encoder("vilt", max_image_length=96)
    assert model(**inputs).report.visual_tokens_per_layer[0] == [97]
    assert warnings.messages == []
    model, inputs = encoder("vilt", max_image_length=20)
    assert model(**inputs).report.visual_tokens_per_layer[0] == [21]
    assert warnings.messages
    assert all("max_image_length=20" in message for message in warnings.messages)


@torch.no_grad()
def test_a_sequence_longer_than_the_decoder_was_made_for_is_warned_of(workshop, warnings):
    inputs = workshop.inputs("one_image")
    length = inputs["input_ids"].shape[1]
    model = workshop.reduced("budget")
    model(**inputs)
    assert warnings.messages == []
    config = model.model.language_model.config
    before, config.max_position_embeddings = config.max_position_embeddings, length - 1
    try:
        model(**inputs)
    finally:
        config.max_position_embeddings = before
    assert warnings.messages
    assert all(f"max_position_embeddings={length - 1}" in message for message in warnings.messages)

"""What of an input is the prompt, and which part brings images."""

from __future__ import annotations

import pytest
import torch

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.modeling.core.decoder_inputs import ReductionRequest
from lmms_tokendrop.modeling.core.reducer import Host, NoReduction
from lmms_tokendrop.modeling.core.visual_tokens import VisualTokens


def request(prompt_length=None) -> ReductionRequest:
    """A request of six new tokens, of which the second and third are visual."""
    tokens = VisualTokens.text(1, 6, torch.device("cpu"))
    tokens.image = torch.tensor([[-1, 0, 0, -1, -1, -1]])
    return ReductionRequest(NoReduction(TokenReductionConfig.from_dict(None), Host(4, 64, 42)), tokens, prompt_length)


def test_without_a_prompt_length_everything_is_the_prompt():
    assert request().new_prompt_tokens(past=10, length=6) == 6


def test_past_tokens_count_as_prompt():
    assert request(prompt_length=14).new_prompt_tokens(past=10, length=6) == 4


@pytest.mark.parametrize("prompt_length", [0, 10, 17])
def test_a_prompt_length_outside_the_new_tokens_is_an_error(prompt_length):
    with pytest.raises(ValueError, match=f"prompt_length={prompt_length}; allowed: 11 to 16"):
        request(prompt_length).new_prompt_tokens(past=10, length=6)


def test_an_image_outside_the_prompt_is_an_error():
    with pytest.raises(ValueError, match="image"):
        request(prompt_length=12).new_prompt_tokens(past=10, length=6)


def test_only_the_first_part_brings_images():
    whole = request(prompt_length=4)
    assert whole.chunk(0, 4).tokens.visual.tolist() == [[False, True, True, False]]
    assert whole.chunk(4, 6).tokens is None

"""The whole method against its formulas: the reference takes its own decisions, and the logits are the same."""

from __future__ import annotations

import random
import re

import pytest
import torch
from cases import greedy, largest_difference, stacked_logits
from mustdrop_reference import MustDropReference, UnreachableError
from torch.nn.functional import interpolate

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration
from lmms_tokendrop.modeling.core.transformers_compat import cache_of

FAST, ALL = 12, 100
CONFIGURATIONS = [
    pytest.param(number, marks=[] if number < FAST else pytest.mark.slow, id=str(number)) for number in range(ALL)
]
QUESTIONS = ("is there a circle ?", "what colour is the square ?", "yes or no ?")


def draw_options(draw: random.Random, depth: int) -> dict:
    """Options of the method, and a budget by either name or thresholds."""
    options = {
        "method": "mustdrop",
        "newlines": draw.choice(["row", "keep", "drop"]),
        "merge_threshold": draw.uniform(0.3, 1.0),
        "key_ratio": draw.choice([0.0, 0.08, draw.uniform(0.02, 0.3)]),
        "text_ratio": draw.choice([0.0, 1.0, draw.uniform(0.0, 3.0)]),
        "layers": draw.choice([None, sorted(draw.sample(range(depth - 1), draw.randint(1, 3)))]),
        "compact_first_layers": draw.choice([True, False]),
    }
    kind = draw.choice(["visual_tokens", "keep_ratio", "keep_ratio", "thresholds"])
    if kind == "thresholds":
        thresholds = {"global_threshold": draw.uniform(0.0, 0.03), "individual_threshold": draw.uniform(0.0, 0.06)}
        return options | dict(draw.sample(sorted(thresholds.items()), draw.randint(1, 2)))
    budget = {"visual_tokens": draw.uniform(5, 150), "keep_ratio": draw.uniform(0.1, 0.9)}
    return options | {
        "scope": draw.choice(["image", "tile", "request"]),
        "counter": draw.choice(["input", "release"]),
        kind: budget[kind],
    }


def draw_inputs(draw: random.Random, workshop, **checkpoint) -> dict:
    """A question about one or two pictures of random sizes, whose windows are alike to different degrees."""
    sizes = [(draw.randint(20, 160), draw.randint(20, 160)) for _ in range(draw.choice([1, 1, 2]))]
    prompt = "USER: " + " <image>\n and ".join([""] * (len(sizes) + 1)) + f"{draw.choice(QUESTIONS)} ASSISTANT:"
    inputs = workshop.inputs([(prompt, sizes)], **checkpoint)
    pixels = inputs["pixel_values"].flatten(0, 1)
    random_numbers = torch.Generator().manual_seed(draw.randrange(2**32))
    resized = {"size": pixels.shape[-2:], "mode": "bilinear"}
    colour = interpolate(torch.randn(len(pixels), 3, 4, 4, generator=random_numbers), **resized)
    roughness = interpolate(torch.rand(len(pixels), 1, 5, 5, generator=random_numbers) ** 2, **resized)
    noise = torch.randn(pixels.shape, generator=random_numbers)
    return inputs | {"pixel_values": (colour + 2 * roughness * noise).view_as(inputs["pixel_values"])}


def reachable(options: dict, smallest: float) -> dict:
    """The options with a budget of at least `smallest`."""
    if "visual_tokens" in options:
        return options | {"visual_tokens": smallest + 0.01}
    return options | {"keep_ratio": min(1.0, options["keep_ratio"] + 0.05)}


def load(workshop, options: dict, **checkpoint) -> LlavaNextTokenDropForConditionalGeneration:
    return LlavaNextTokenDropForConditionalGeneration.from_pretrained(
        workshop.checkpoint(**checkpoint), token_reduction=options
    )


@pytest.mark.parametrize("number", CONFIGURATIONS)
def test_prefill_and_three_steps_are_those_of_the_written_out_method(workshop, number):
    draw = random.Random(number)
    checkpoint = {"layers": draw.choice([4, 7]), "image_size": draw.choice([42, 56, 63])}
    options, inputs = draw_options(draw, checkpoint["layers"]), draw_inputs(draw, workshop, **checkpoint)
    stock = workshop.stock(attention="eager", **checkpoint)
    while True:
        reference = MustDropReference(stock, options, inputs)
        try:
            logits, tokens = reference.generate(4)
            break
        except UnreachableError as error:
            with pytest.raises(ValueError, match=re.escape(f"smallest reachable average is {error.smallest:.2f}")):
                greedy(load(workshop, options, **checkpoint), inputs, 4)
            options = reachable(options, error.smallest)
    output = greedy(load(workshop, options, **checkpoint), inputs, 4)
    assert largest_difference(stacked_logits(output)[0], logits) <= 1e-5
    assert output.sequences[0, -4:].tolist() == tokens
    assert cache_of(output).report().forced_merges == [reference.forced_merges]

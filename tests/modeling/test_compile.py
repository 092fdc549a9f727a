"""Compiled models: answers are those of the model as it is, graphs are few, and later requests compile nothing."""

from __future__ import annotations

import pytest
import torch
from cases import METHODS
from fusion_architectures import ARCHITECTURES
from kinds import REPEATED
from sizes import one_fast

from lmms_tokendrop.benchmark.compiled_graphs import CompiledRun, classified, generated, run_compiled

RELEASE = {"method": "pumer", "reference": "release"}
ENCODER_CASES = [
    pytest.param(name, options, id=f"{name}-{'-'.join(options.values())}", marks=[] if fast else pytest.mark.slow)
    for name, architecture in ARCHITECTURES.items()
    for options in (*({"method": method} for method in architecture.options.reducers), RELEASE)
    for fast in [options == {"method": "pumer"}]
]


def given(options: dict) -> dict:
    """The method of a case, and what it can't be without."""
    return {name: value for name, value in options.items() if name in ("method", "clip")}


DECODER_CASES = one_fast(
    [
        {"method": "mustdrop", "decode_interval": 2},
        METHODS["threshold"],
        *(given(options) for name, options in METHODS.items() if ("llava_next", name) not in REPEATED),
    ]
)
ROOM = {"vilt": 8, "meter": 16}
"""Graphs that a method may need beside those of the stock class: each half of a layer, for each kind of input."""


def check_encoder(run: CompiledRun, stock: CompiledRun, room: int) -> None:
    assert run.difference <= 1e-5
    assert run.late == 0
    assert run.total <= 2 * stock.total + room


def check_decoder(run: CompiledRun, stock: CompiledRun) -> None:
    """Whatever stays of the first picture, its graphs are those of every other."""
    assert run.difference <= 1e-5
    assert run.graphs[0] == run.total
    assert run.total <= 2 * stock.total


def encoder_answers(model, name: str) -> CompiledRun:
    """Compile a model of text and image and ask it three times, of padded texts and images that differ."""
    return run_compiled(model, classified, [ARCHITECTURES[name].inputs("ragged", seed=seed) for seed in range(3)])


def decoder_answers(model, workshop, prompts: str = "ragged_batch") -> CompiledRun:
    """Compile LLaVA-NeXT and ask it three times, prompt and three tokens, of noise, a picture and faint noise.

    Many more windows are alike in the picture than in noise.
    """
    inputs = workshop.inputs(prompts)
    pixels = inputs["pixel_values"]
    pictures = (3.0 * torch.randn_like(pixels), pixels, 0.01 * torch.randn_like(pixels))
    return run_compiled(model, generated, [{**inputs, "pixel_values": picture} for picture in pictures])


@pytest.fixture(scope="module")
def stock_graphs(fusion_checkpoint, workshop):
    """Return ``graphs(name)``: how the stock class of an architecture compiles."""
    known: dict[str, CompiledRun] = {}

    def graphs(name: str) -> CompiledRun:
        if name not in known and name == "llava_next":
            known[name] = decoder_answers(workshop.stock(), workshop)
        elif name not in known:
            model = ARCHITECTURES[name].stock.from_pretrained(fusion_checkpoint(name)).eval()
            known[name] = encoder_answers(model, name)
        return known[name]

    return graphs


@pytest.mark.parametrize(("name", "options"), ENCODER_CASES)
def test_every_method_of_an_encoder(fusion_checkpoint, stock_graphs, name, options):
    architecture = ARCHITECTURES[name]
    model = architecture.question_answering.from_pretrained(
        fusion_checkpoint(name),
        token_reduction=options,
        new_parameters=(f"{architecture.prefix}.token_reducer.",),
    )
    room = 0 if options["method"] == "none" else ROOM[name]
    check_encoder(encoder_answers(model, name), stock_graphs(name), room)


@pytest.mark.parametrize("options", DECODER_CASES, ids=str)
def test_every_method_of_a_decoder(workshop, stock_graphs, options):
    run = decoder_answers(workshop.reduced(options), workshop)
    check_decoder(run, stock_graphs("llava_next"))


@pytest.mark.slow
@pytest.mark.parametrize(("text", "prompts"), [("mistral", "one_image"), ("qwen2", "two_images")])
def test_every_decoder_in_a_batch_of_one(workshop, stock_graphs, text, prompts):
    run = decoder_answers(workshop.reduced({"method": "mustdrop"}, text), workshop, prompts)
    check_decoder(run, stock_graphs("llava_next"))


@pytest.mark.slow
def test_generate_with_a_compiled_forward_pass(workshop, monkeypatch):
    model, inputs = workshop.reduced({"method": "mustdrop"}), workshop.inputs("ragged_batch")
    expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    torch._dynamo.reset()
    monkeypatch.setattr(model, "forward", torch.compile(model.forward, backend="aot_eager"))
    assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False), expected)
    torch._dynamo.reset()

"""Compiled models: answers are those of the model as it is, graphs are few, and later requests compile nothing."""

from __future__ import annotations

import pytest
from fusion_architectures import ARCHITECTURES

from lmms_tokendrop.benchmark.compiled_graphs import run_compiled

CASES = [
    (name, {"method": "pumer", "reference": "release"} if method == "release" else {"method": method})
    for name, architecture in ARCHITECTURES.items()
    for method in (*architecture.options.reducers, "release")
]
ROOM = {"vilt": 8, "meter": 16}
"""Graphs that a method may need beside those of the stock class: each half of a layer, for each kind of input."""


def encoder_answers(model, name: str):
    """Compile a model of text and image and ask it three times, of padded texts and images that differ."""
    requests = [ARCHITECTURES[name].inputs("ragged", seed=seed) for seed in range(3)]
    return run_compiled(model, lambda model, inputs: model(**inputs).logits, requests)


@pytest.fixture(scope="module")
def stock_graphs(fusion_checkpoint) -> dict[str, int]:
    """Graphs of the stock classes."""
    graphs = {}
    for name, architecture in ARCHITECTURES.items():
        graphs[name] = encoder_answers(architecture.stock.from_pretrained(fusion_checkpoint(name)).eval(), name).total
    return graphs


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda case: case if isinstance(case, str) else case["method"])
def test_every_method_of_an_encoder(fusion_checkpoint, stock_graphs, name, options):
    architecture = ARCHITECTURES[name]
    model = architecture.question_answering.from_pretrained(
        fusion_checkpoint(name),
        token_reduction=options,
        new_parameters=(f"{architecture.prefix}.token_reducer.",),
    )
    run = encoder_answers(model, name)
    assert run.difference <= 1e-5
    assert run.late == 0
    assert run.total <= 2 * stock_graphs[name] + (0 if options["method"] == "none" else ROOM[name])

"""Every method on ViLT: dropping is masking, merging writes means, a batch is its rows, nothing is silent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fusion_reference import METHODS, REDUCING, masked_logits
from tiny_vilt import row_of, tiny_vilt_inputs
from transformers import ViltForQuestionAnswering

from lmms_tokendrop.modeling.fusion_reduction_config import FUSION_REDUCERS
from lmms_tokendrop.modeling.modeling_vilt_tokendrop import (
    ViltTokenDropForImagesAndTextClassification,
    ViltTokenDropForQuestionAnswering,
)
from lmms_tokendrop.modeling.stages import Keep

ATTENTIONS = ("eager", "sdpa")
BATCHES = ("one", "whole", "ragged")


@pytest.fixture(scope="session")
def reduced(tiny_vilt_checkpoint):
    """Return `make(method, attention="sdpa")`: the question answering model with a reduction, built once."""
    models = {}

    def make(method: str, attention: str = "sdpa"):
        if (method, attention) not in models:
            torch.manual_seed(0)
            models[method, attention] = ViltTokenDropForQuestionAnswering.from_pretrained(
                tiny_vilt_checkpoint(),
                token_reduction=METHODS[method],
                attn_implementation=attention,
                new_parameters=("vilt.token_reducer.",),
            )
        return models[method, attention]

    return make


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    assert first.shape == second.shape
    return (first - second).abs().max().item()


def test_every_method_has_a_case():
    assert {options["method"] for options in METHODS.values()} == set(FUSION_REDUCERS)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.no_grad()
def test_reducing_equals_the_masked_reference(tiny_vilt_checkpoint, reduced, attention, method, batch):
    model, inputs = reduced(method, attention), tiny_vilt_inputs(batch)
    stock = ViltForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint()).eval()
    output = model(**inputs)
    assert difference(output.logits, masked_logits(stock, model, inputs, output.report)) <= 1e-5


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_sdpa_equals_eager_in_answers_and_decisions(reduced, method):
    inputs = tiny_vilt_inputs("ragged")
    torch.manual_seed(0)
    first, second = reduced(method, "eager"), reduced(method, "sdpa")
    second.vilt.token_reducer.load_state_dict(first.vilt.token_reducer.state_dict())
    one, other = first(**inputs), second(**inputs)
    assert difference(one.logits, other.logits) <= 1e-5
    assert all(torch.equal(a.owner, b.owner) for a, b in zip(one.report.left, other.report.left, strict=True))


@pytest.mark.parametrize("method", REDUCING)
@torch.no_grad()
def test_the_cases_really_reduce_as_planned(reduced, method):
    model = reduced(method)
    report = model(**tiny_vilt_inputs("ragged")).report
    for row in range(3):
        text, image = report.text_tokens[0][row], report.image_tokens[0][row]
        attention, ffn = model.vilt.token_reducer.plan(text, image, 4)
        assert [int(tokens.valid[row].sum()) for tokens in report.received] == attention
        assert [int(tokens.valid[row].sum()) for tokens in report.left] == ffn
        assert ffn[-1] < text + image or attention[-1] < text + image
    assert report.received[-1].valid.shape[1] == max(int(count) for count in report.received[-1].valid.sum(-1))


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_sizes_are_what_was_merged(reduced, method):
    for tokens in reduced(method)(**tiny_vilt_inputs("ragged")).report.left:
        held = torch.zeros_like(tokens.size).scatter_add(1, tokens.owner.clamp_min(0), (tokens.owner >= 0).float())
        assert torch.equal(held, tokens.size)
        assert torch.equal(tokens.place >= 0, tokens.valid)
        assert (tokens.place[:, 0] == 0).all()
        if method != "tome_joint":
            assert tokens.image_cls.sum(-1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_a_padded_row_equals_the_row_alone(reduced, method):
    model, inputs = reduced(method), tiny_vilt_inputs("ragged")
    together = model(**inputs, sample_seeds=torch.tensor([3, 4, 5]))
    for row in range(3):
        alone = model(**row_of(inputs, row), sample_seeds=torch.tensor([3 + row]))
        assert difference(alone.logits, together.logits[row : row + 1]) <= 1e-5
        assert alone.report.image_tokens == [[counts[row]] for counts in together.report.image_tokens]
        assert alone.report.text_tokens == [[counts[row]] for counts in together.report.text_tokens]


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_permuting_the_batch_permutes_the_results(reduced, method):
    model, inputs, order = reduced(method), tiny_vilt_inputs("ragged"), [2, 0, 1]
    seeds = torch.tensor([7, 8, 9])
    first = model(**inputs, sample_seeds=seeds)
    second = model(**{name: values[order] for name, values in inputs.items()}, sample_seeds=seeds[order])
    assert difference(first.logits[order], second.logits) <= 1e-5
    for one, other in zip(first.report.left, second.report.left, strict=True):
        assert torch.equal(one.owner[order], other.owner)


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_what_padding_holds_changes_nothing(reduced, method):
    model, inputs = reduced(method), tiny_vilt_inputs("ragged")
    expected = model(**inputs).logits
    ids = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"], 9)
    inside = inputs["pixel_mask"].bool().unsqueeze(1)
    noise = torch.where(inside, inputs["pixel_values"], torch.randn_like(inputs["pixel_values"]))
    assert difference(model(**{**inputs, "input_ids": ids, "pixel_values": noise}).logits, expected) <= 1e-6


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_a_b_a_gives_a_twice(reduced, method):
    model = reduced(method)
    first = model(**tiny_vilt_inputs("whole")).logits
    model(**tiny_vilt_inputs("ragged"))
    assert torch.equal(model(**tiny_vilt_inputs("whole")).logits, first)


@pytest.mark.parametrize("method", METHODS)
def test_state_dict_keys_are_stocks_but_for_predictors(tiny_vilt_checkpoint, reduced, method):
    stock = ViltForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint())
    added = set(reduced(method).state_dict()) - set(stock.state_dict())
    assert set(stock.state_dict()) <= set(reduced(method).state_dict())
    assert all(key.startswith("vilt.token_reducer.predictors.") for key in added)
    assert bool(added) == (method == "dynamicvit")


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_saving_and_loading_keeps_options_and_weights(reduced, method, tmp_path):
    model = reduced(method)
    model.save_pretrained(tmp_path)
    again = ViltTokenDropForQuestionAnswering.from_pretrained(tmp_path)
    assert again.config.token_reduction == model.config.token_reduction
    inputs = tiny_vilt_inputs("ragged")
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("method", ["pumer", "tome", "random"])
@torch.no_grad()
def test_two_images_are_reduced_apart(tiny_vilt_checkpoint, method):
    model = ViltTokenDropForImagesAndTextClassification.from_pretrained(
        tiny_vilt_checkpoint("two_images"), token_reduction=METHODS[method]
    )
    output = model(**tiny_vilt_inputs("ragged", images=2))
    assert len(output.report) == 2
    assert all(report.image_tokens[-1] < report.image_tokens[0] for report in output.report)


@pytest.mark.parametrize("method", ["pumer", "tome", "random", "cls_attention"])
def test_gradients_flow_through_what_stays(reduced, method):
    model = reduced(method)
    model.zero_grad()
    model(**tiny_vilt_inputs("ragged")).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.vilt.encoder.parameters())
    assert model.vilt.embeddings.patch_embeddings.projection.weight.grad.abs().sum() > 0
    model.zero_grad()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda target: target.index_fill(1, torch.tensor([0]), -1), "move the text's CLS"),
        (lambda target: target.index_fill(1, torch.tensor([3]), -1), "drop text"),
        (lambda target: target.index_fill(1, torch.tensor([20]), 2), "merge text with image"),
        (lambda target: torch.where(torch.arange(target.shape[1]) < 12, target, -1), "drop every token of an image"),
        (lambda target: target.index_fill(1, torch.tensor([20]), 21), "was to leave"),
    ],
)
@torch.no_grad()
def test_a_wrong_decision_raises(tiny_vilt_checkpoint, wrong, message, monkeypatch):
    model = ViltTokenDropForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint(), token_reduction=METHODS["random"])

    def keep(stage, context):
        length = context.tokens.valid.shape[1]
        return Keep.from_target(wrong(torch.arange(length).repeat(2, 1)))

    monkeypatch.setattr(model.vilt.token_reducer, "keep", keep)
    with pytest.raises(RuntimeError, match=message):
        model(**tiny_vilt_inputs("whole"))


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_two_threads_share_a_model(reduced, method):
    model = reduced(method)
    batches = [tiny_vilt_inputs("ragged"), tiny_vilt_inputs("whole", seed=1)]
    expected = [model(**batch).logits for batch in batches]

    def run(number):
        with torch.no_grad():
            return model(**batches[number % 2]).logits

    with ThreadPoolExecutor(2) as pool:
        for number, logits in enumerate(pool.map(run, range(6))):
            assert torch.equal(logits, expected[number % 2])


@pytest.mark.parametrize("method", ["pumer", "tome", "random"])
def test_gradient_checkpointing_changes_no_gradient(tiny_vilt_checkpoint, method):
    gradients = []
    for checkpointing in (False, True):
        model = ViltTokenDropForQuestionAnswering.from_pretrained(
            tiny_vilt_checkpoint(), token_reduction=METHODS[method]
        ).train()
        if checkpointing:
            new_name = getattr(model, "activation_checkpointing_enable", None)  # transformers before 5.23 has the old
            (new_name or model.gradient_checkpointing_enable)()
            assert model.vilt.encoder.layer[0].gradient_checkpointing
        output = model(**tiny_vilt_inputs("ragged"))
        output.logits.square().sum().backward()
        assert output.report.image_tokens[-1] < output.report.image_tokens[0]
        gradients.append([parameter.grad for parameter in model.vilt.encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_bfloat16_runs_with_the_same_counts(tiny_vilt_checkpoint, reduced, method):
    model = ViltTokenDropForQuestionAnswering.from_pretrained(
        tiny_vilt_checkpoint(),
        token_reduction=METHODS[method],
        dtype=torch.bfloat16,
        new_parameters=("vilt.token_reducer.",),
    )
    output = model(**tiny_vilt_inputs("ragged"))
    assert output.logits.dtype == torch.bfloat16
    assert output.logits.isfinite().all()
    if method != "tome_joint":
        assert output.report.image_tokens == reduced(method)(**tiny_vilt_inputs("ragged")).report.image_tokens

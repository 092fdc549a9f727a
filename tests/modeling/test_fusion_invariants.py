"""Every method on ViLT and METER: dropping is masking, merging writes means, a batch is its rows, nothing is silent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fusion_architectures import ARCHITECTURES, CASES, REDUCING_CASES

from lmms_tokendrop.modeling.core.fusion_plan import plan
from lmms_tokendrop.modeling.core.reducer import Keep

NAMES = tuple(ARCHITECTURES)


@pytest.fixture(scope="session")
def reduced(fusion_checkpoint):
    """Return `make(name, method, attention="sdpa")`: the question answering model with a reduction, built once."""
    models = {}

    def make(name: str, method: str, attention: str = "sdpa"):
        if (name, method, attention) not in models:
            torch.manual_seed(0)
            architecture = ARCHITECTURES[name]
            models[name, method, attention] = architecture.question_answering.from_pretrained(
                fusion_checkpoint(name),
                token_reduction=architecture.methods[method],
                attn_implementation=attention,
                new_parameters=(f"{architecture.prefix}.token_reducer.",),
            )
        return models[name, method, attention]

    return make


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    assert first.shape == second.shape
    return (first - second).abs().max().item()


@pytest.mark.parametrize("name", NAMES)
def test_every_method_has_a_case(name):
    architecture = ARCHITECTURES[name]
    assert {options["method"] for options in architecture.methods.values()} == set(architecture.options.reducers)


@pytest.mark.parametrize(
    ("attention", "batch"), [("eager", "ragged"), ("sdpa", "one"), ("sdpa", "whole"), ("sdpa", "ragged")]
)
@pytest.mark.parametrize(("name", "method"), CASES)
@torch.no_grad()
def test_reducing_equals_the_masked_reference(fusion_checkpoint, reduced, attention, name, method, batch):
    model, inputs = reduced(name, method, attention), ARCHITECTURES[name].inputs(batch)
    stock = ARCHITECTURES[name].stock.from_pretrained(fusion_checkpoint(name)).eval()
    output = model(**inputs)
    assert difference(output.logits, ARCHITECTURES[name].masked_logits(stock, model, inputs, output.report)) <= 1e-5


@pytest.mark.parametrize(("name", "method"), CASES)
@torch.no_grad()
def test_sdpa_equals_eager_in_answers_and_decisions(reduced, name, method):
    inputs = ARCHITECTURES[name].inputs("ragged")
    torch.manual_seed(0)
    first, second = reduced(name, method, "eager"), reduced(name, method, "sdpa")
    ARCHITECTURES[name].encoder(second).token_reducer.load_state_dict(
        ARCHITECTURES[name].encoder(first).token_reducer.state_dict()
    )
    one, other = first(**inputs), second(**inputs)
    assert difference(one.logits, other.logits) <= 1e-5
    assert all(torch.equal(a.owner, b.owner) for a, b in zip(one.report.left, other.report.left, strict=True))


@pytest.mark.parametrize(("name", "method"), REDUCING_CASES)
@torch.no_grad()
def test_the_cases_really_reduce_as_planned(reduced, name, method):
    model = reduced(name, method)
    report = model(**ARCHITECTURES[name].inputs("ragged")).report
    for row in range(3):
        text, image = report.text_tokens[0][row], report.visual_tokens_per_layer[0][row]
        attention, ffn = plan(ARCHITECTURES[name].encoder(model).token_reducer, text, image, 4)
        assert [int(tokens.valid[row].sum()) for tokens in report.received] == attention
        assert [int(tokens.valid[row].sum()) for tokens in report.left] == ffn
        assert ffn[-1] < text + image or attention[-1] < text + image
    assert report.received[-1].valid.shape[1] == max(int(count) for count in report.received[-1].valid.sum(-1))


@pytest.mark.parametrize(("name", "method"), CASES)
@torch.no_grad()
def test_the_report_names_the_unreduced_number_of_image_tokens(reduced, name, method):
    inputs = ARCHITECTURES[name].inputs("ragged")
    report = reduced(name, method)(**inputs).report
    assert report.full_visual_tokens == reduced(name, "none")(**inputs).report.visual_tokens_per_layer[0]
    before = torch.tensor(report.full_visual_tokens)
    assert (torch.tensor(report.visual_tokens_per_layer[-1]) < before).all() or method in ("none", "merge_text")


@pytest.mark.parametrize(("name", "method"), CASES)
@torch.no_grad()
def test_sizes_are_what_was_merged(reduced, name, method):
    for tokens in reduced(name, method)(**ARCHITECTURES[name].inputs("ragged")).report.left:
        held = torch.zeros_like(tokens.size).scatter_add(1, tokens.owner.clamp_min(0), (tokens.owner >= 0).float())
        assert torch.equal(held, tokens.size)
        assert torch.equal(tokens.place >= 0, tokens.valid)
        assert (tokens.place[:, 0] == 0).all()
        if method != "tome_joint":
            assert tokens.image_cls.sum(-1).tolist() == [1, 1, 1]


@pytest.mark.parametrize(("name", "method"), CASES)
@torch.no_grad()
def test_a_padded_row_equals_the_row_alone(reduced, name, method):
    model, inputs = reduced(name, method), ARCHITECTURES[name].inputs("ragged")
    together = model(**inputs, sample_seeds=torch.tensor([3, 4, 5]))
    for row in range(3):
        alone = model(**ARCHITECTURES[name].row_of(inputs, row), sample_seeds=torch.tensor([3 + row]))
        assert difference(alone.logits, together.logits[row : row + 1]) <= 1e-5
        assert alone.report.visual_tokens_per_layer == [
            [counts[row]] for counts in together.report.visual_tokens_per_layer
        ]
        assert alone.report.text_tokens == [[counts[row]] for counts in together.report.text_tokens]


@pytest.mark.parametrize(("name", "method"), CASES)
@torch.no_grad()
def test_permuting_the_batch_permutes_the_results(reduced, name, method):
    model, inputs, order = reduced(name, method), ARCHITECTURES[name].inputs("ragged"), [2, 0, 1]
    seeds = torch.tensor([7, 8, 9])
    first = model(**inputs, sample_seeds=seeds)
    second = model(**{name: values[order] for name, values in inputs.items()}, sample_seeds=seeds[order])
    assert difference(first.logits[order], second.logits) <= 1e-5
    for one, other in zip(first.report.left, second.report.left, strict=True):
        assert torch.equal(one.owner[order], other.owner)


@pytest.mark.parametrize(("name", "method"), CASES)
@torch.no_grad()
def test_what_padding_holds_changes_nothing(reduced, name, method):
    model, inputs = reduced(name, method), ARCHITECTURES[name].inputs("ragged")
    expected = model(**inputs).logits
    ids = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"], 9)
    changed = {**inputs, "input_ids": ids}
    if "pixel_mask" in inputs:
        inside = inputs["pixel_mask"].bool().unsqueeze(1)
        changed["pixel_values"] = torch.where(inside, inputs["pixel_values"], torch.randn_like(inputs["pixel_values"]))
    assert difference(model(**changed).logits, expected) <= 1e-6


@pytest.mark.parametrize(("name", "method"), CASES)
@torch.no_grad()
def test_a_b_a_gives_a_twice(reduced, name, method):
    model = reduced(name, method)
    first = model(**ARCHITECTURES[name].inputs("whole")).logits
    model(**ARCHITECTURES[name].inputs("ragged"))
    assert torch.equal(model(**ARCHITECTURES[name].inputs("whole")).logits, first)


@pytest.mark.parametrize(("name", "method"), CASES)
def test_state_dict_keys_are_stocks_but_for_predictors(fusion_checkpoint, reduced, name, method):
    stock = ARCHITECTURES[name].stock.from_pretrained(fusion_checkpoint(name))
    added = set(reduced(name, method).state_dict()) - set(stock.state_dict())
    assert set(stock.state_dict()) <= set(reduced(name, method).state_dict())
    assert all(key.startswith(f"{ARCHITECTURES[name].prefix}.token_reducer.predictors.") for key in added)
    assert bool(added) == (method == "dynamicvit")


@pytest.mark.parametrize(("name", "method"), CASES)
@torch.no_grad()
def test_saving_and_loading_keeps_options_and_weights(reduced, name, method, tmp_path):
    model = reduced(name, method)
    model.save_pretrained(tmp_path)
    again = ARCHITECTURES[name].question_answering.from_pretrained(tmp_path)
    assert again.config.token_reduction == model.config.token_reduction
    inputs = ARCHITECTURES[name].inputs("ragged")
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["pumer", "tome", "random"])
@torch.no_grad()
def test_two_images_are_reduced_apart(fusion_checkpoint, name, method):
    model = ARCHITECTURES[name].two_images.from_pretrained(
        fusion_checkpoint(name, "two_images"), token_reduction=ARCHITECTURES[name].methods[method]
    )
    output = model(**ARCHITECTURES[name].inputs("ragged", images=2))
    assert len(output.report) == 2
    assert all(report.visual_tokens_per_layer[-1] < report.visual_tokens_per_layer[0] for report in output.report)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["pumer", "tome", "random", "cls_attention"])
def test_gradients_flow_through_what_stays(reduced, name, method):
    model = reduced(name, method)
    model.zero_grad()
    model(**ARCHITECTURES[name].inputs("ragged")).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in ARCHITECTURES[name].parameters(model))
    [embedding] = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert embedding.weight.grad.abs().sum() > 0
    model.zero_grad()


@pytest.mark.parametrize("name", NAMES)
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
def test_a_wrong_decision_raises(fusion_checkpoint, name, wrong, message, monkeypatch):
    model = ARCHITECTURES[name].question_answering.from_pretrained(
        fusion_checkpoint(name), token_reduction=ARCHITECTURES[name].methods["random"]
    )

    def keep(stage, context):
        length = context.tokens.valid.shape[1]
        return Keep.merged(wrong(torch.arange(length).repeat(2, 1)))

    monkeypatch.setattr(ARCHITECTURES[name].encoder(model).token_reducer, "keep", keep)
    with pytest.raises(RuntimeError, match=message):
        model(**ARCHITECTURES[name].inputs("whole"))


@pytest.mark.parametrize(("name", "method"), CASES)
@torch.no_grad()
def test_two_threads_share_a_model(reduced, name, method):
    model = reduced(name, method)
    batches = [ARCHITECTURES[name].inputs("ragged"), ARCHITECTURES[name].inputs("whole", seed=1)]
    expected = [model(**batch).logits for batch in batches]

    def run(number):
        with torch.no_grad():
            return model(**batches[number % 2]).logits

    with ThreadPoolExecutor(2) as pool:
        for number, logits in enumerate(pool.map(run, range(6))):
            assert torch.equal(logits, expected[number % 2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["pumer", "tome", "random"])
def test_gradient_checkpointing_changes_no_gradient(fusion_checkpoint, name, method):
    architecture, gradients = ARCHITECTURES[name], []
    for checkpointing in (False, True):
        model = architecture.question_answering.from_pretrained(
            fusion_checkpoint(name), token_reduction=architecture.methods[method]
        ).train()
        if checkpointing:
            new_name = getattr(model, "activation_checkpointing_enable", None)  # transformers before 5.23 has the old
            (new_name or model.gradient_checkpointing_enable)()
            assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        torch.manual_seed(0)
        output = model(**architecture.inputs("ragged"))
        output.logits.square().sum().backward()
        assert output.report.visual_tokens_per_layer[-1] < output.report.visual_tokens_per_layer[0]
        gradients.append([parameter.grad for parameter in architecture.parameters(model)])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(("name", "method"), CASES)
@torch.no_grad()
def test_bfloat16_runs_with_the_same_counts(fusion_checkpoint, reduced, name, method):
    model = ARCHITECTURES[name].question_answering.from_pretrained(
        fusion_checkpoint(name),
        token_reduction=ARCHITECTURES[name].methods[method],
        dtype=torch.bfloat16,
        new_parameters=(f"{ARCHITECTURES[name].prefix}.token_reducer.",),
    )
    output = model(**ARCHITECTURES[name].inputs("ragged"))
    assert output.logits.dtype == torch.bfloat16
    assert output.logits.isfinite().all()
    if method != "tome_joint":
        assert (
            output.report.visual_tokens_per_layer
            == reduced(name, method)(**ARCHITECTURES[name].inputs("ragged")).report.visual_tokens_per_layer
        )

"""DynamicViT's training path: hard samples with gradients, masked attention, the ratio loss."""

from __future__ import annotations

import pytest
import torch
from fusion_architectures import ARCHITECTURES
from tiny_vilt import tiny_vilt_inputs
from transformers import ViltForQuestionAnswering

from lmms_tokendrop.modeling.core.attention import attend_to, key_bias, policy_softmax

LAYERS = {"vilt": [1, 2, 3], "meter": [2, 4, 6]}


def trained(name, checkpoint, layers=None):
    torch.manual_seed(0)
    return (
        ARCHITECTURES[name]
        .question_answering.from_pretrained(
            checkpoint(name),
            token_reduction={"method": "dynamicvit", "layers": layers or LAYERS[name], "keep_ratio": 0.5},
            new_parameters=(f"{name}.token_reducer.",),
        )
        .train()
    )


@pytest.fixture(params=ARCHITECTURES)
def name(request):
    return request.param


@pytest.fixture
def model(name, fusion_checkpoint):
    return trained(name, fusion_checkpoint)


def reducer_of(model):
    return getattr(model, model.base_model_prefix).token_reducer


def test_policies_are_hard_only_fall_and_spare_text_and_cls(name, model):
    inputs = ARCHITECTURES[name].inputs("ragged")
    report = model(**inputs).report
    assert len(report.policies) == 3
    tokens = report.received[0]
    before = tokens.valid.float()
    for policy in report.policies:
        assert policy.unique().tolist() == [0, 1]
        assert (policy <= before).all()
        assert (policy[tokens.text | tokens.image_cls] == 1).all()
        before = policy
    assert [received.valid.shape[1] for received in report.received] == [12 + {"vilt": 97, "meter": 65}[name]] * 4


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masked_attention_equals_masking_keys_for_what_is_there_in_vilt(fusion_checkpoint, attention):
    model = trained("vilt", fusion_checkpoint)
    model.set_attn_implementation(attention)
    inputs = tiny_vilt_inputs("ragged")
    output = model(**inputs)
    stock = ViltForQuestionAnswering.from_pretrained(fusion_checkpoint("vilt")).eval()
    with torch.no_grad():
        text, valid = {"input_ids": inputs["input_ids"]}, inputs["attention_mask"].bool()
        states, tokens, _ = model.vilt.embeddings(text, valid, inputs["pixel_values"], inputs["pixel_mask"])
        policies = dict(zip(LAYERS["vilt"], output.report.policies, strict=True))
        policy = tokens.valid.float()
        for number, layer in enumerate(stock.vilt.encoder.layer):
            policy = policies.get(number, policy)
            states = layer(states, torch.where(policy > 0, 0.0, torch.finfo(torch.float32).min)[:, None, None])[0]
        expected = stock.classifier(stock.vilt.pooler(stock.vilt.layernorm(states)))
    assert (output.logits - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masked_attention_equals_masking_keys_for_what_is_there_in_meter(fusion_checkpoint, attention):
    model = trained("meter", fusion_checkpoint)
    model.set_attn_implementation(attention)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.attention_probs_dropout_prob = model.config.text_config.attention_probs_dropout_prob = 0.0
    inputs = ARCHITECTURES["meter"].inputs("ragged")
    output = model(**inputs)
    stock = ARCHITECTURES["meter"].stock.from_pretrained(fusion_checkpoint("meter")).eval()
    with torch.no_grad():
        text, image = stock.meter.embed(
            stock.meter.get_text_features(inputs["input_ids"], inputs["attention_mask"]),
            stock.meter.get_image_features(inputs["pixel_values"]),
            1,
        )
        policies = dict(zip((1, 2, 3), output.report.policies, strict=True))
        policy = output.report.received[0].valid.float()
        pairs = zip(stock.meter.cross_modal_text_layers, stock.meter.cross_modal_image_layers, strict=True)
        for number, (text_layer, image_layer) in enumerate(pairs):
            policy = policies.get(number, policy)
            mask, image_mask = ((key_bias(part > 0, torch.float32), None) for part in policy.split((12, 65), dim=1))
            text, image = (
                text_layer(text, image, mask, image_mask)[0],
                image_layer(image, text, image_mask, mask)[0],
            )
        expected = stock.classifier(stock.meter.pool(text, image))
    assert (output.logits - expected).abs().max() <= 1e-4


def test_gradients_reach_the_predictors(name, model):
    output = model(**ARCHITECTURES[name].inputs("ragged"))
    (output.logits.square().sum() + 2 * reducer_of(model).ratio_loss(output.report)).backward()
    for parameter in reducer_of(model).parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_the_ratio_loss_by_hand(name, model):
    report = model(**ARCHITECTURES[name].inputs("ragged")).report
    patches = torch.tensor({"vilt": [96.0, 72.0, 64.0], "meter": [64.0] * 3}[name])
    expected = []
    for number, policy in enumerate(report.policies, start=1):
        for row in range(3):
            kept = float(policy[row].detach().sum()) - int(report.received[0].text[row].sum()) - 1
            expected.append((kept / float(patches[row]) - 0.5**number) ** 2)
    loss = reducer_of(model).ratio_loss(report)
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_policy_softmax_by_hand():
    logits = torch.log(torch.tensor([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]))[None, None]
    found = policy_softmax(logits, torch.tensor([[1.0, 1.0, 0.0]]), torch.eye(3, dtype=torch.bool)[None])[0, 0]
    expected = torch.tensor([[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0], [1 / 8, 2 / 8, 5 / 8]])
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(policy_softmax(logits, torch.ones(1, 3)), logits.softmax(-1), atol=1e-6)


@torch.no_grad()
def test_what_left_is_a_key_for_itself_alone(name, model):
    module = {
        "vilt": lambda: model.vilt.encoder.layer[0].attention.attention,
        "meter": lambda: model.meter.cross_modal_text_layers[0].attention.self,
    }[name]().eval()
    states, policy = torch.randn(1, 4, model.config.hidden_size), torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    _, own, _, _ = attend_to(module, states, states, (None, policy))
    _, cross, _, _ = attend_to(module, states, states.clone(), (None, policy))
    seen = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 1, 1]])
    assert torch.equal(own[0].mean(0) > 1e-3, seen.bool())
    assert torch.equal(cross[0].mean(0) > 1e-3, seen[:1].bool().expand(4, 4))


def test_a_training_step_lowers_the_loss(name, model):
    inputs, labels = ARCHITECTURES[name].inputs("whole"), torch.eye(10)[[2, 5]]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        torch.manual_seed(0)
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@torch.no_grad()
def test_the_report_names_cells_where_patches_leave_before_the_first_layer(name, fusion_checkpoint):
    inputs = ARCHITECTURES[name].inputs("ragged")
    unreduced = ARCHITECTURES[name].question_answering.from_pretrained(fusion_checkpoint(name))
    every = unreduced(**inputs).report.kept["after layer 0"]
    report = trained(name, fusion_checkpoint, [0, 2]).eval()(**inputs).report
    for number, (row, whole) in enumerate(zip(report.kept["after layer 0"], every, strict=True)):
        assert set(row) < set(whole)
        assert len(set(row)) == len(row) == report.visual_tokens_per_layer[0][number] - 1
        assert any(cell not in row for cell in whole[: len(row)])

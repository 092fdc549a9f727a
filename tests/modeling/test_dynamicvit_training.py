"""DynamicViT's training path: hard samples with gradients, masked attention, the ratio loss."""

from __future__ import annotations

import pytest
import torch
from tiny_vilt import tiny_vilt_inputs
from transformers import ViltForQuestionAnswering

from lmms_tokendrop.modeling.fusion_attention import policy_softmax
from lmms_tokendrop.modeling.modeling_vilt_tokendrop import ViltTokenDropForQuestionAnswering

LAYERS = [1, 2, 3]


@pytest.fixture
def model(tiny_vilt_checkpoint):
    torch.manual_seed(0)
    return ViltTokenDropForQuestionAnswering.from_pretrained(
        tiny_vilt_checkpoint(),
        token_reduction={"method": "dynamicvit", "layers": LAYERS, "keep_ratio": 0.5},
        new_parameters=("vilt.token_reducer.",),
    ).train()


def test_policies_are_hard_only_fall_and_spare_text_and_cls(model):
    inputs = tiny_vilt_inputs("ragged")
    report = model(**inputs).report
    assert len(report.policies) == 3
    tokens = report.received[0]
    before = tokens.valid.float()
    for policy in report.policies:
        assert policy.unique().tolist() == [0, 1]
        assert (policy <= before).all()
        assert (policy[tokens.text | tokens.image_cls] == 1).all()
        before = policy
    assert [received.valid.shape[1] for received in report.received] == [12 + 97] * 4


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masked_attention_equals_masking_keys_for_what_is_there(model, tiny_vilt_checkpoint, attention):
    model.set_attn_implementation(attention)
    inputs = tiny_vilt_inputs("ragged")
    output = model(**inputs)
    stock = ViltForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint()).eval()
    with torch.no_grad():
        states, tokens, _ = model.vilt.embeddings(
            inputs["input_ids"],
            inputs["attention_mask"],
            None,
            inputs["pixel_values"],
            inputs["pixel_mask"],
            None,
            None,
        )
        policies = dict(zip(LAYERS, output.report.policies, strict=True))
        policy = tokens.valid.float()
        for number, layer in enumerate(stock.vilt.encoder.layer):
            policy = policies.get(number, policy)
            states = layer(states, torch.where(policy > 0, 0.0, torch.finfo(torch.float32).min)[:, None, None])[0]
        expected = stock.classifier(stock.vilt.pooler(stock.vilt.layernorm(states)))
    assert (output.logits - expected).abs().max() <= 1e-4


def test_gradients_reach_the_predictors(model):
    output = model(**tiny_vilt_inputs("ragged"))
    (output.logits.square().sum() + 2 * model.vilt.token_reducer.ratio_loss(output.report)).backward()
    for parameter in model.vilt.token_reducer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_the_ratio_loss_by_hand(model):
    report = model(**tiny_vilt_inputs("ragged")).report
    patches = torch.tensor([96.0, 72.0, 64.0])
    expected = []
    for number, policy in enumerate(report.policies, start=1):
        for row in range(3):
            kept = float(policy[row].detach().sum()) - int(report.received[0].text[row].sum()) - 1
            expected.append((kept / float(patches[row]) - 0.5**number) ** 2)
    loss = model.vilt.token_reducer.ratio_loss(report)
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_policy_softmax_by_hand():
    logits = torch.log(torch.tensor([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]))[None, None]
    found = policy_softmax(logits, torch.tensor([[1.0, 1.0, 0.0]]))[0, 0]
    expected = torch.tensor([[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0], [1 / 8, 2 / 8, 5 / 8]])
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(policy_softmax(logits, torch.ones(1, 3)), logits.softmax(-1), atol=1e-6)


def test_a_training_step_lowers_the_loss(model):
    inputs, labels = tiny_vilt_inputs("whole"), torch.eye(10)[[2, 5]]
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

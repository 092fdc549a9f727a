"""PuMer as its release does it, against a plain implementation on sequences that are really reordered."""

from __future__ import annotations

import pytest
import torch
from tiny_vilt import row_of, tiny_vilt_inputs
from transformers import ViltForQuestionAnswering

from lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop import ViltTokenDropForQuestionAnswering

LAYERS = [0, 1, 3]


def release_model(path, attention="sdpa", **options):
    reduction = {"method": "pumer", "reference": "release", "layers": LAYERS, **options}
    return ViltTokenDropForQuestionAnswering.from_pretrained(
        path, token_reduction=reduction, attn_implementation=attention
    )


def matched(keys, values, count):
    """Merge `count` of one row's tokens; the first half comes first, then the second with its means."""
    if count <= 0:
        return values
    unit = keys / keys.norm(dim=-1, keepdim=True)
    first, second = values[0::2], values[1::2]
    similarity = unit[0::2] @ unit[1::2].T
    similarity[0] = -torch.inf
    best, nearest = similarity.max(-1)
    order = best.argsort(descending=True)
    groups = {int(goal): [second[goal]] for goal in range(len(second))}
    for place in order[:count].tolist():
        groups[int(nearest[place])].append(first[place])
    kept = first[sorted(order[count:].tolist())]
    return torch.cat([kept, torch.stack([torch.stack(groups[goal]).mean(0) for goal in range(len(second))])])


def released_logits(stock, model, inputs, prune, merge, text_merge, head):
    """Logits by the release's steps: padded lengths, rows sorted by score, masks multiplied into the softmax."""
    embed = model.vilt.embeddings
    states, tokens, _ = embed(
        {"input_ids": inputs["input_ids"]},
        inputs["attention_mask"].bool(),
        inputs["pixel_values"],
        inputs["pixel_mask"],
    )
    text, mask = inputs["input_ids"].shape[1], tokens.valid.float()
    for number, layer in enumerate(stock.vilt.encoder.layer):
        attention = layer.attention.attention
        rows, length, _ = states.shape
        normed = layer.layernorm_before(states)
        query, key, value = (
            part(normed).view(rows, length, 4, 16).transpose(1, 2)
            for part in (attention.query, attention.key, attention.value)
        )
        logits = query @ key.transpose(2, 3) / 4
        weight = mask[:, None, None] + (1 - mask[:, None, None]) * torch.eye(length)
        scaled = (logits - logits.amax(-1, keepdim=True)).exp() * weight
        probabilities = (scaled + 1e-6 / length) / (scaled.sum(-1, keepdim=True) + 1e-6)
        context = (probabilities @ value).transpose(1, 2).reshape(rows, length, 64)
        states = layer.attention.output.dense(context) + states
        images = length - text
        if number in LAYERS and round(prune * images) > 0:
            kept = max(images - round(prune * images), 1)
            chosen = probabilities[:, 0] if head == "first_head" else probabilities.mean(1)
            scores = chosen[:, :text, text:].sum(1)
            keys, outputs, masks = key.mean(1), [], []
            for row in range(rows):
                index = text + scores[row].argsort(descending=True)[:kept]
                image = matched(keys[row, index], states[row, index], min(round(merge * images), (kept - 1) // 2))
                words = torch.cat([states[row, :text], mask[row, :text, None]], dim=1)
                words = matched(keys[row, :text], words, min(round(text_merge * text), (text - 1) // 2))
                outputs.append(torch.cat([words[:, :-1], image]))
                masks.append(torch.cat([words[:, -1], torch.ones(len(image))]))
            text = len(words)
            states, mask = torch.stack(outputs), torch.stack(masks)
        states = layer.output(layer.intermediate(layer.layernorm_after(states)), states)
    return stock.classifier(stock.vilt.pooler(stock.vilt.layernorm(states)))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("batch", ["one", "whole", "ragged"])
@pytest.mark.parametrize(
    ("prune", "merge", "text_merge", "score"),
    [
        (0.1, 0.3, 0.2, "attention"),
        (0.2, 0.2, 0.3, "first_head"),
        (0.3, 0.5, 0.2, "attention"),
        (0.4, 0.0, 0.0, "attention"),
        (0.008, 0.3, 0.2, "attention"),
    ],
)
@torch.no_grad()
def test_logits_are_those_of_the_releases_steps(
    tiny_vilt_checkpoint, prune, merge, text_merge, score, batch, attention
):
    path, inputs = tiny_vilt_checkpoint(), tiny_vilt_inputs(batch)
    stock = ViltForQuestionAnswering.from_pretrained(path).eval()
    model = release_model(
        path, attention, prune_ratio=prune, image_merge_ratio=merge, text_merge_ratio=text_merge, score=score
    )
    expected = released_logits(stock, model, inputs, prune, merge, text_merge, score)
    assert (model(**inputs).logits - expected).abs().max() <= 2e-5


@torch.no_grad()
def test_counts_are_those_of_padded_lengths_and_rows_depend_on_their_batch(tiny_vilt_checkpoint):
    model, inputs = release_model(tiny_vilt_checkpoint()), tiny_vilt_inputs("ragged")
    output = model(**inputs)
    assert output.report.visual_tokens_per_layer == [[97] * 3, [58] * 3, [35] * 3, [35] * 3]
    assert output.report.text_tokens == [[12] * 3, [10] * 3, [8] * 3, [8] * 3]
    alone = model(**row_of(inputs, 2)).logits
    assert (alone - output.logits[2:]).abs().max() > 1e-4


def test_pruning_nothing_is_an_error(tiny_vilt_checkpoint):
    with pytest.raises(ValueError, match="release does nothing at prune_ratio=0"):
        release_model(tiny_vilt_checkpoint(), prune_ratio=0.0)

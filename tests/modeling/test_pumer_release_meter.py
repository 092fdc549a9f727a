"""PuMer in METER as its release does it, against a plain implementation on streams that are really reordered."""

from __future__ import annotations

import pytest
import torch
from test_pumer_release import matched
from tiny_meter import row_of_meter, tiny_meter_inputs

from lmms_tokendrop.modeling.architectures.modeling_meter import MeterForQuestionAnswering
from lmms_tokendrop.modeling.architectures.modeling_meter_tokendrop import MeterTokenDropForQuestionAnswering

LAYERS = [0, 2, 6]


def release_model(path, attention="sdpa", **options):
    reduction = {"method": "pumer", "reference": "release", "layers": LAYERS, **options}
    return MeterTokenDropForQuestionAnswering.from_pretrained(
        path, token_reduction=reduction, attn_implementation=attention
    )


def attended(attention, states, other, mask):
    """Attention with multiplied masks, in which query i sees key i: states, probabilities and head-mean keys."""
    heads = attention.self
    query, key, value = (
        layer(of).unflatten(-1, (4, 16)).transpose(1, 2)
        for layer, of in ((heads.query, states), (heads.key, other), (heads.value, other))
    )
    logits = query @ key.transpose(2, 3) / 4
    mask = mask[:, None, None]
    weight = mask + (1 - mask) * torch.eye(states.shape[1], other.shape[1])
    scaled = (logits - logits.amax(-1, keepdim=True)).exp() * weight
    probabilities = (scaled + 1e-6 / other.shape[1]) / (scaled.sum(-1, keepdim=True) + 1e-6)
    context = (probabilities @ value).transpose(1, 2).flatten(2)
    return attention.output(context, states), probabilities, key.mean(1)


def reduced(text, image, mask, probabilities, text_keys, image_keys, options):
    """What the text's layer leaves of text, image and mask, in the release's order."""
    count, length = image.shape[1], text.shape[1]
    kept = max(count - round(options["prune_ratio"] * count), 1)
    chosen = probabilities[:, 0] if options["score"] == "first_head" else probabilities.mean(1)
    images, words = [], []
    for row in range(len(text)):
        index = chosen[row].sum(0).argsort(descending=True)[:kept]
        merges = min(round(options["image_merge_ratio"] * count), (kept - 1) // 2)
        images.append(matched(image_keys[row, index], image[row, index], merges))
        merges = min(round(options["text_merge_ratio"] * length), (length - 1) // 2)
        words.append(matched(text_keys[row], torch.cat([text[row], mask[row, :, None]], dim=1), merges))
    words = torch.stack(words)
    return words[..., :-1], torch.stack(images), words[..., -1]


def released_logits(stock, inputs, options):
    """Logits by the release's steps: one layer after the other, padded lengths, multiplied masks."""
    text, image = stock.meter.embed(
        stock.meter.get_text_features(inputs["input_ids"], inputs["attention_mask"]),
        stock.meter.get_image_features(inputs["pixel_values"]),
        1,
    )
    mask = inputs["attention_mask"].float()
    pairs = zip(stock.meter.cross_modal_text_layers, stock.meter.cross_modal_image_layers, strict=True)
    for number, (text_layer, image_layer) in enumerate(pairs):
        text, _, text_keys = attended(text_layer.attention, text, text, mask)
        text, probabilities, image_keys = attended(text_layer.crossattention, text, image, torch.ones(image.shape[:2]))
        if 2 * number in LAYERS:
            text, image, mask = reduced(text, image, mask, probabilities, text_keys, image_keys, options)
        text = text_layer.feed_forward(text)
        image, _, _ = attended(image_layer.attention, image, image, torch.ones(image.shape[:2]))
        image, _, _ = attended(image_layer.crossattention, image, text, mask)
        image = image_layer.feed_forward(image)
    return stock.classifier(stock.meter.pool(text, image))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("batch", ["whole", "ragged"])
@pytest.mark.parametrize(
    ("prune", "merge", "text_merge", "score"),
    [
        (0.2, 0.2, 0.2, "attention"),
        (0.3, 0.5, 0.2, "first_head"),
        (0.3, 0.2, 0.0, "attention"),
        (0.005, 0.3, 0.4, "attention"),
    ],
)
@torch.no_grad()
def test_logits_are_those_of_the_releases_steps(
    tiny_meter_checkpoint, prune, merge, text_merge, score, batch, attention
):
    path, inputs = tiny_meter_checkpoint(), tiny_meter_inputs(batch)
    # padding of one kind only would be equal keys, and which of equals merge is for rounding to say
    inputs["input_ids"] = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"], torch.arange(10, 22))
    options = {"prune_ratio": prune, "image_merge_ratio": merge, "text_merge_ratio": text_merge, "score": score}
    expected = released_logits(MeterForQuestionAnswering.from_pretrained(path).eval(), inputs, options)
    assert (release_model(path, attention, **options)(**inputs).logits - expected).abs().max() <= 2e-5


@torch.no_grad()
def test_counts_are_those_of_padded_lengths_and_rows_depend_on_their_batch(tiny_meter_checkpoint):
    model, inputs = release_model(tiny_meter_checkpoint()), tiny_meter_inputs("ragged")
    output = model(**inputs)
    assert output.report.visual_tokens_per_layer == [[65] * 3, [39] * 3, [23] * 3, [23] * 3]
    assert output.report.text_tokens == [[12] * 3, [10] * 3, [8] * 3, [8] * 3]
    alone = model(**row_of_meter(inputs, 2)).logits
    assert (alone - output.logits[2:]).abs().max() > 1e-4


@pytest.mark.parametrize("ratio", ["prune_ratio", "image_merge_ratio"])
def test_what_the_release_ignores_is_an_error(tiny_meter_checkpoint, ratio):
    with pytest.raises(ValueError, match=f"release does nothing at {ratio}=0"):
        release_model(tiny_meter_checkpoint(), **{ratio: 0.0})


@torch.no_grad()
def test_patches_may_merge_in_the_tower_first(tiny_meter_checkpoint):
    report = release_model(tiny_meter_checkpoint(), vision_r=5)(**tiny_meter_inputs("ragged")).report
    assert report.text_tokens[0] == [12] * 3
    assert report.visual_tokens_per_layer[0] == [report.vision_tokens[-1] - 5] * 3
    assert report.received[0].size.sum(-1).tolist() == [12 + 65] * 3

"""The switches that reproduce the MustDrop release, against a small reimplementation of its formulas."""

from __future__ import annotations

import pytest
import torch
from cases import QUESTION, greedy, largest_difference, stacked_logits
from tiny_models import tiny_image

from lmms_tokendrop.modeling.architectures.modeling_llava_next_tokendrop import FlatLlavaNextProcessor
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.methods.mustdrop import key_tokens

THRESHOLD = 0.45
RELEASE = {
    "method": "mustdrop",
    "merge_threshold": THRESHOLD,
    "merge_count": "batch_minimum",
    "merge_order": "similarity",
    "packing": "flat",
    "position_mode": "compact",
    "compact_first_layers": False,
    "key_ratio": 0.1,
    "layers": [0, 1, 2],
    "global_threshold": 0.016,
    "individual_threshold": 0.12,
}
SIZES = [(60, 40), (84, 84)]


def flat_inputs(workshop, size):
    processor = FlatLlavaNextProcessor.from_pretrained(workshop.checkpoint())
    return dict(processor(images=[tiny_image(*size, seed=sum(size))], text=[QUESTION], return_tensors="pt"))


def release_tower(stock, pixels: torch.Tensor):
    """Features `[tiles, tokens, channels]` in the release's order, key tokens per tile, and what was merged.

    The same number of windows merges in every tile: the smallest number over tiles that reaches the threshold.
    """
    tower = stock.model.vision_tower
    states = tower.encoder.layers[0](tower.pre_layrnorm(tower.embeddings(pixels)), None)
    patches = states[:, 1:].view(len(states), 2, 3, 2, 3, -1).transpose(2, 3).reshape(len(states), 4, 9, -1)
    cells = torch.arange(36).view(2, 3, 2, 3).transpose(1, 2).reshape(4, 9)
    unit = patches / patches.norm(dim=-1, keepdim=True)
    pairs = unit @ unit.transpose(-1, -2)
    score = (pairs.sum((-1, -2)) - 9) / 72
    count = int((score >= THRESHOLD).sum(-1).min())
    sequences, orders = [], []
    for tile in range(len(states)):
        best = score[tile].topk(count).indices
        merged = patches[tile, best].mean(1)
        taken = set(cells[best].flatten().tolist())
        rest = [cell for cell in range(36) if cell not in taken]
        sequences.append(torch.cat([states[tile, :1], merged, states[tile, 1:][rest]]))
        orders.append([*cells[best][:, 4].tolist(), *rest])
    states = torch.stack(sequences)
    for block in tower.encoder.layers[1:-1]:
        states = block(states, None)
    last = tower.encoder.layers[-1]
    heads = last.self_attn.num_heads
    normed = last.layer_norm1(states)
    query = last.self_attn.q_proj(normed).unflatten(-1, (heads, -1)).transpose(1, 2)
    key = last.self_attn.k_proj(normed).unflatten(-1, (heads, -1)).transpose(1, 2)
    attention = (query[:, :, :1] @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)[:, :, 0, 1:].mean(1)
    tokens = attention.shape[1]
    keys = attention.topk(-(-tokens // 10)).indices
    return stock.model.multi_modal_projector(states[:, 1:]), keys, orders


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_the_tower_is_the_release_s(workshop, size):
    inputs = flat_inputs(workshop, size)
    features, keys, orders = release_tower(workshop.stock(), inputs["pixel_values"][0])
    output = workshop.reduced(RELEASE).get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    (tokens,) = output.visual_tokens
    assert 0 < features.shape[1] < 36
    for tile in range(len(features)):
        here = (tokens.tile == tile) & tokens.present
        assert (tokens.row[here] * 6 + tokens.column[here]).tolist() == orders[tile]
        assert largest_difference(output.pooler_output[0][here], features[tile]) <= 1e-5 * features.abs().max()
        key = key_tokens(tokens.carry["cls_attention"][None], here[None], tokens.map(lambda values: values[None]), 0.1)
        assert key[0, here].nonzero().flatten().tolist() == keys[tile].sort().values.tolist()


@pytest.mark.parametrize("size", SIZES)
def test_flat_packing_has_every_cell_of_every_tile_and_no_newline(workshop, size):
    inputs = flat_inputs(workshop, size)
    tiles = inputs["pixel_values"].shape[1]
    assert int((inputs["input_ids"] == 4).sum()) == tiles * 36
    output = workshop.reduced(RELEASE).get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    assert not bool(output.visual_tokens[0].newline.any())
    assert len(output.pooler_output[0]) == tiles * 36


@torch.no_grad()
def test_flat_packing_alone_lays_the_stock_features_end_to_end(workshop):
    inputs = flat_inputs(workshop, (60, 40))
    reduction = {"method": "mustdrop", "packing": "flat", "merge_threshold": 1.1, "global_threshold": 0.0}
    output = workshop.reduced(reduction).get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    hidden = workshop.stock().model.vision_tower(inputs["pixel_values"][0], output_hidden_states=True).hidden_states[-2]
    expected = workshop.stock().model.multi_modal_projector(hidden[:, 1:]).flatten(0, 1)
    torch.testing.assert_close(output.pooler_output[0], expected)


@torch.no_grad()
def release_prefill(stock, inputs):
    """Last logits of the release's prefill, and what each stage kept, as places in the merged sequence."""
    features, keys, _ = release_tower(stock, inputs["pixel_values"][0])
    visual = features.flatten(0, 1)
    key = (keys + torch.arange(len(keys)).unsqueeze(-1) * features.shape[1]).flatten().tolist()
    ids = inputs["input_ids"][0]
    start = int((ids == 4).nonzero()[0])
    after = ids[int((ids == 4).nonzero()[-1]) + 1 :]
    embed = stock.get_input_embeddings()
    states = torch.cat([embed(ids[:start]), visual, embed(after)]).unsqueeze(0)
    decoder = stock.model.language_model
    alive, kept = list(range(len(visual))), []
    for number, layer in enumerate(decoder.layers):
        length = states.shape[1]
        positions = torch.arange(length).unsqueeze(0)
        mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]
        weights = {}
        hook = layer.self_attn.register_forward_hook(lambda module, args, out, into=weights: into.update(rows=out[1]))
        states = layer(
            states, attention_mask=mask, position_embeddings=decoder.rotary_emb(states, position_ids=positions)
        )
        hook.remove()
        if number not in RELEASE["layers"]:
            continue
        rows = weights["rows"][0][:, start + len(alive) :, start : start + len(alive)].mean(0)
        share, best = rows.sum(0), rows.amax(0)
        drop = (share < RELEASE["global_threshold"] * share.sum()) & (best < RELEASE["individual_threshold"])
        stays = [place for place in range(len(alive)) if not drop[place] or alive[place] in key]
        index = [*range(start), *(start + place for place in stays), *range(start + len(alive), length)]
        states, alive = states[:, index], [alive[place] for place in stays]
        kept.append(alive)
    return stock.lm_head(decoder.norm(states))[:, -1], kept


@pytest.mark.parametrize("size", SIZES)
def test_the_prefill_is_the_release_s(workshop, size):
    inputs = flat_inputs(workshop, size)
    expected, kept = release_prefill(workshop.stock(attention="eager"), inputs)
    output = greedy(workshop.reduced(RELEASE), inputs, 1)
    assert largest_difference(stacked_logits(output)[:, 0], expected) <= 1e-5
    records = cache_of(output).records
    merged = [place for place in records[0].index[0].tolist() if inputs["input_ids"][0, place] == 4]
    for record, places in zip(records[1:], kept, strict=True):
        visual = [place for place in record.index[0].tolist() if inputs["input_ids"][0, place] == 4]
        assert visual == [merged[place] for place in places]
    assert len(kept[-1]) < len(merged)


@pytest.mark.parametrize("size", SIZES)
def test_the_cache_is_the_release_s(workshop, size):
    """Layers 0 and 1 keep what they received, later ones the last survivors; the counter counts after the drop."""
    inputs = flat_inputs(workshop, size)
    _, kept = release_prefill(workshop.stock(attention="eager"), inputs)
    report = cache_of(greedy(workshop.reduced(RELEASE), inputs, 1)).report()
    text = int((inputs["input_ids"] != 4).sum())
    after_merging = report.visual_tokens_per_layer[0][0]
    assert report.kv_lengths == [text + after_merging, text + len(kept[0]), text + len(kept[2]), text + len(kept[2])]
    counted = [len(kept[0]), len(kept[1]), len(kept[2]), len(kept[2])]
    assert report.average_visual_tokens_release == [pytest.approx(sum(counted) / 4)]

"""ToMe in LLaVA-NeXT's CLIP tower: merging equals masking in stock blocks, and what merged stands where it is read."""

from __future__ import annotations

import pytest
import torch
from cases import ATTENTIONS, greedy, largest_difference, stacked_logits

from lmms_tokendrop.modeling.core.staged_clip import StagedVisionOutput, shown_cells
from lmms_tokendrop.modeling.core.transformers_compat import cache_of

R = 5
PATCHES = 36


def spied(model, monkeypatch) -> list:
    """What the reducer is asked and says, from now on."""
    asked, keep = [], model.model.token_reducer.keep
    monkeypatch.setattr(
        model.model.token_reducer,
        "keep",
        lambda stage, context: asked.append((context, keep(stage, context))) or asked[-1][1],
    )
    return asked


@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.no_grad()
def test_merging_equals_masking_in_stock_blocks(workshop, monkeypatch, attention):
    """Nothing leaves here: a merged token's slot has the mean by size, its key the logarithm of the size."""
    model = workshop.reduced({"method": "vision_tome", "vision_r": R}, attention=attention)
    asked = spied(model, monkeypatch)
    pixels = torch.randn(2, 3, 42, 42)
    output = model.model.vision_tower.forward_staged(pixels, [-2], model.model.token_reducer)
    assert output.cells.shape == (2, PATCHES - 3 * R)

    stock = workshop.stock(attention="eager").model.vision_tower
    states = stock.pre_layrnorm(stock.embeddings(pixels))
    size = torch.ones(2, 1 + PATCHES)
    for layer, (context, keep) in zip(stock.encoder.layers, asked, strict=False):
        bias = size.log()[:, None, None]
        states = states + layer.self_attn(layer.layer_norm1(states), attention_mask=bias)[0]
        for row, (place, target) in enumerate(zip(context.tokens.place, keep.target, strict=True)):
            before, old = states[row].clone(), size[row].clone()
            for slot in target.unique().tolist():
                members = place[target == slot]
                states[row, place[slot]] = (before[members] * old[members, None]).sum(0) / old[members].sum()
                size[row] = size[row].index_fill(0, members, 0.0)
                size[row, place[slot]] = old[members].sum()
        states = states + layer.mlp(layer.layer_norm2(states))
    for row in range(2):
        left = size[row, 1:].nonzero().flatten()
        assert output.cells[row].tolist() == left.tolist()
        expected = states[row, 1:][left]
        assert largest_difference(output.features[row, 1:], expected) <= 1e-5 * expected.abs().max()
    assert (size.sum(-1) == 1 + PATCHES).all()


def test_a_state_goes_to_the_first_cell_that_is_read_of_those_it_is_made_of():
    alive = torch.tensor([[True, False, False, True, True]])
    cells, owner = torch.tensor([[1, 2, 4, -1]]), torch.tensor([[0, 0, 1, 2, 2]])
    vision = StagedVisionOutput(torch.zeros(1, 5, 1), cells, owner, {})
    assert shown_cells(vision, alive).tolist() == [[0, 2, 4, -1]]


@torch.no_grad()
def test_the_decoder_receives_one_token_for_each_that_has_a_patch_of_the_picture(workshop, monkeypatch):
    """Of a wide picture unpadding cuts rows off; what they merged with stays."""
    inputs = workshop.inputs("odd_aspect")
    plain = workshop.reduced("none").model.get_image_features(
        inputs["pixel_values"], image_sizes=inputs["image_sizes"], return_dict=True
    )
    (tokens,) = plain.visual_tokens
    model = workshop.reduced({"method": "vision_tome", "vision_r": R})
    tower, seen = model.model.vision_tower, {}
    forward = tower.forward_staged
    monkeypatch.setattr(tower, "forward_staged", lambda *a, **k: seen.update(output=forward(*a, **k)) or seen["output"])
    report = cache_of(model(**inputs)).report()
    read = ~tokens.newline
    owners = seen["output"].owner[tokens.tile[read], tokens.row[read] * 6 + tokens.column[read]]
    groups = torch.stack([tokens.tile[read], owners]).unique(dim=1)
    assert report.visual_tokens_per_layer == [[groups.shape[1]]] * 4
    assert groups.shape[1] < int(read.sum())


def test_both_backends_give_the_same_answer(workshop):
    reduction, prompts = {"method": "vision_tome"}, "ragged_batch"
    logits = [
        stacked_logits(greedy(workshop.reduced(reduction, attention=name), workshop.inputs(prompts)))
        for name in ("sdpa", "eager")
    ]
    assert largest_difference(*logits) <= 1e-5

"""The vision tower with a stage: a merge equals masking; earlier and later layers."""

from __future__ import annotations

import pytest
import torch
from cases import ATTENTIONS, largest_difference
from masked_reference import four_dimensional

from lmms_tokendrop.modeling.core.reducer import Host, Keep, Stage, TokenReducer
from lmms_tokendrop.modeling.core.staged_clip import StagedCLIPVisionModel
from lmms_tokendrop.modeling.ops.token_ops import merge_groups
from lmms_tokendrop.modeling.ops.windows import window_cells, window_targets

WINDOWS = window_cells(6, 6)


def tower(workshop, attention="sdpa") -> StagedCLIPVisionModel:
    return workshop.reduced("threshold", attention=attention).model.vision_tower


class Deciding(TokenReducer):
    """A method that merges chosen windows of each tile after a block, and remembers what it saw."""

    needs = frozenset({"cls_attention"})

    def __init__(self, choice: list[list[bool]], block: int = 0):
        super().__init__(None, Host(4, 64, 42, 4))
        self.block = block
        alive = torch.ones(len(choice), 36, dtype=torch.bool)
        self.target = window_targets(WINDOWS, alive, torch.tensor(choice))
        self.present = self.target == torch.arange(36)

    def stages(self):
        return (Stage("vision", self.block, "after_block"),)

    def count(self, stage, counts):
        return None

    def keep(self, stage, context):
        self.seen = context.hidden_states
        return Keep.merged(torch.nn.functional.pad(self.target + 1, (1, 0)))


CHOICES = {
    "all_tiles": [[True, False, False, True], [False, True, True, True], [True] * 4],
    "one_tile_keeps_all": [[True, False, False, False], [False] * 4, [True] * 4],
    "none": [[False] * 4] * 3,
}


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.no_grad()
def test_dropping_members_equals_masking_them(workshop, attention, choice, block):
    pixels = torch.randn(3, 3, 42, 42)
    reducer = Deciding(CHOICES[choice], block)
    present = reducer.present
    output = tower(workshop, attention).forward_staged(pixels, [-2], reducer)

    stock = workshop.stock(attention=attention).model.vision_tower
    states = stock.pre_layrnorm(stock.embeddings(pixels))
    mask = None
    for number, layer in enumerate(stock.encoder.layers[:-1]):
        states = layer(states, mask)
        if number == block:
            states = torch.cat([states[:, :1], merge_groups(states[:, 1:], reducer.target)], dim=1)
            visible = torch.cat([torch.ones(3, 1, dtype=torch.bool), present], dim=1)
            mask = four_dimensional(visible[:, None].expand(-1, 37, -1), attention)
    for tile in range(3):
        cells = output.cells[tile]
        assert cells[cells >= 0].tolist() == present[tile].nonzero().flatten().tolist()
        kept = states[tile, 1:][present[tile]]
        assert largest_difference(output.features[tile, 1:][cells >= 0], kept) <= 1e-5
        assert largest_difference(output.features[tile, 0], states[tile, 0]) <= 1e-5


@pytest.mark.parametrize("layers", [[-2], [-1], [0], [1], [2], [-3, -2], [0, 4]])
@torch.no_grad()
def test_without_merging_every_layer_is_the_stock_towers(workshop, layers):
    pixels = torch.randn(2, 3, 42, 42)
    output = tower(workshop).forward_staged(pixels, layers, Deciding([[False] * 4] * 2))
    hidden = workshop.stock().model.vision_tower(pixels, output_hidden_states=True).hidden_states
    assert torch.equal(output.features, torch.cat([hidden[layer] for layer in layers], dim=-1))


@pytest.mark.parametrize("layers", [[0, -2], [1, 3]])
@torch.no_grad()
def test_earlier_layers_go_through_the_same_merge(workshop, layers):
    pixels = torch.randn(2, 3, 42, 42)
    reducer = Deciding([[True, False, True, False], [False, True, False, True]])
    output = tower(workshop).forward_staged(pixels, layers, reducer)
    hidden = workshop.stock().model.vision_tower(pixels, output_hidden_states=True).hidden_states[layers[0]]
    merged, present = merge_groups(hidden[:, 1:], reducer.target), reducer.present
    assert torch.equal(output.features[:, 1:, :64], torch.stack([merged[tile, present[tile]] for tile in range(2)]))
    assert torch.equal(output.features[:, 0, :64], hidden[:, 0])


@torch.no_grad()
def test_the_plain_forward_pass_is_the_stock_one(workshop):
    pixels = torch.randn(2, 3, 42, 42)
    expected = workshop.stock().model.vision_tower(pixels)
    actual = tower(workshop)(pixels)
    assert torch.equal(actual.last_hidden_state, expected.last_hidden_state)
    assert torch.equal(actual.pooler_output, expected.pooler_output)


@torch.no_grad()
def test_the_stage_sees_the_output_of_its_block(workshop):
    pixels = torch.randn(1, 3, 42, 42)
    reducer = Deciding([[False] * 4])
    tower(workshop).forward_staged(pixels, [-2], reducer)
    hidden = workshop.stock().model.vision_tower(pixels, output_hidden_states=True).hidden_states[1]
    assert torch.equal(reducer.seen, hidden)

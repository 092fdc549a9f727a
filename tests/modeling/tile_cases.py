"""Tiles whose states, attention and keys are given by hand, as a method before the decoder finds them."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.modeling.core.applying import Keep, apply
from lmms_tokendrop.modeling.core.fusion_selection import FusionCounts, keep_best_of_image
from lmms_tokendrop.modeling.core.fusion_tokens import FusionTokens
from lmms_tokendrop.modeling.core.reducer import Context, Host, TokenReducer
from lmms_tokendrop.modeling.core.tile_layout import Tiles

BLOCKS, LAYERS = 4, 4
FEATURE_BLOCK = BLOCKS - 2


def reducer_of(kind: type[TokenReducer], method: str, **options) -> Any:
    """A method as a tiny LLaVA-NeXT builds it."""
    checked = TokenReductionConfig.from_dict({"method": method, **options})
    return kind(checked, Host(LAYERS, 64, 42, BLOCKS, feature_block=FEATURE_BLOCK))


def tiles_of(
    alive: torch.Tensor, image: list[int] | None = None, request: list[int] | None = None, grid: tuple = (1, 1)
) -> Tiles:
    """Tiles of which `alive [tiles, cells]` says what is shown; by default of one image."""
    image = image or [0] * len(alive)
    return Tiles(
        grid=grid,
        alive=alive,
        image=torch.tensor(image),
        request=torch.tensor(request or image),
        line=torch.full(alive.shape, -1),
        line_owner=torch.zeros(0, dtype=torch.long),
        num_layers=LAYERS,
    )


def tile_context(states: torch.Tensor, tiles: Tiles, attention: torch.Tensor, heads: torch.Tensor | None = None):
    """What a stage behind a block finds.

    Parameters
    ----------
    states : torch.Tensor
        `[tiles, 1 + cells, channels]`, CLS first.
    tiles : Tiles
        The tiles.
    attention : torch.Tensor
        `[tiles, heads, 1 + cells]`, of the CLS query.
    heads : torch.Tensor, optional
        Keys, `[tiles, heads, 1 + cells, head_dim]`; default: the states, of one head. Queries are the same.
    """
    heads = states.unsqueeze(1) if heads is None else heads
    tokens = FusionTokens.of_image(states)
    counts = tiles.counts(FusionCounts(*tokens.counts(), *tokens.counts()))
    providers = {
        "tiles": lambda: tiles,
        "best": partial(keep_best_of_image, tokens),
        "attention_rows": lambda rows: attention.unsqueeze(2),
        "projections": lambda ahead=0: (heads, heads),
        "keys": lambda: heads.mean(1),
    }
    seeds = torch.zeros(len(states), dtype=torch.long)
    return Context(tokens, tokens.valid, states, counts, tokens.text, seeds, providers=providers)


def kept_cells(keep: Keep) -> list[list[int]]:
    """The cells of each tile that a decision leaves; CLS stays."""
    assert keep.stays[:, 0].all()
    return [row.nonzero().flatten().tolist() for row in keep.stays[:, 1:]]


def decided(reducer: TokenReducer, context: Context) -> tuple[list[list[int]], torch.Tensor]:
    """The cells that a method leaves of each tile, and their states, one tile behind the other."""
    stage = reducer.stages()[-1]
    keep = reducer.keep(stage, context)
    tokens, (states,), _ = apply(context.tokens, [context.hidden_states], keep, reducer, "left")
    inside = tokens.valid[:, 1:]
    assert inside.sum(-1).tolist() == [len(row) for row in kept_cells(keep)]
    return kept_cells(keep), states[:, 1:][inside]


@torch.no_grad()
def stock_tile(stock, pixels: torch.Tensor, block: int = FEATURE_BLOCK) -> SimpleNamespace:
    """What a block of the stock tower, with eager attention, gives for one tile, without CLS.

    Returns
    -------
    SimpleNamespace
        `states` and `keys [cells, channels]`, `query [channels]` of CLS, `cls` and `received [cells]`, head-mean
        attention, and `pooled [channels]`, the state of CLS.
    """
    tower = stock.vision_tower
    output = tower(pixels[None], output_hidden_states=True, output_attentions=True)
    layer, entered = tower.encoder.layers[block], output.hidden_states[block]
    entered = layer.layer_norm1(entered)[0]
    attention, states = output.attentions[block][0].mean(0), output.hidden_states[block + 1][0]
    return SimpleNamespace(
        states=states[1:],
        pooled=states[0],
        keys=layer.self_attn.k_proj(entered)[1:],
        cls_key=layer.self_attn.k_proj(entered)[0],
        query=layer.self_attn.q_proj(entered)[0],
        cls=attention[0, 1:],
        received=attention.mean(0)[1:],
    )


def shown_tiles(model, inputs: dict, image: int) -> dict[int, tuple[torch.Tensor, list[int], dict[int, torch.Tensor]]]:
    """Per tile of an image its pixels, the cells that the picture covers, and the projected features that are left."""
    found = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"], return_dict=True)
    tokens, rows = found.visual_tokens[image], found.pooler_output[image]
    cells = tokens.row * 6 + tokens.column
    tiles = {}
    for tile in tokens.tile.unique().tolist():
        here = (tokens.tile == tile) & ~tokens.newline
        left = here & tokens.present
        features = dict(zip(cells[left].tolist(), rows[left], strict=True))
        tiles[tile] = inputs["pixel_values"][image, tile], sorted(cells[here].tolist()), features
    return tiles

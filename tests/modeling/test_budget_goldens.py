"""The whole model at the papers' budgets: true geometry, tiny width, pictures whose windows are alike as stated.

Each window of a picture has one colour, its centre another, and the first vision block is the identity: the angle
between the two colours is how similar the window is.
"""

from __future__ import annotations

from math import acos, cos, sin

import pytest
import torch
from budget_goldens import GOLDENS, LANDSCAPE, SMALLEST, SQUARE, Golden
from transformers import CLIPVisionConfig, LlamaConfig

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration
from lmms_tokendrop.modeling.architectures.modeling_llava_next_tokendrop import LlavaNextTokenDropConfig
from lmms_tokendrop.modeling.core.transformers_compat import cache_of

SIDE, PATCH, WINDOW = 24, 14, 3
TILE = SIDE * PATCH
IMAGE = 4
IMAGE_SIZES = {SQUARE: (672, 672), LANDSCAPE: (600, 800)}
FIRST_ROW = {SQUARE: (0, 0, 0, 0, 0), LANDSCAPE: (0, 6, 6, 0, 0)}
"""Unpadding takes the first rows of the upper tiles, and the last ones of the lower tiles."""


def tiny_model(reduction: dict, layers: int) -> LlavaNextTokenDropForConditionalGeneration:
    """LLaVA-NeXT of true geometry, 8 channels in the tower and 16 in the decoder."""
    vision = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=TILE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=16,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    config = LlavaNextTokenDropConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        token_reduction={"method": "mustdrop", **reduction},
    )
    model = LlavaNextTokenDropForConditionalGeneration(config).eval()
    with torch.no_grad():
        make_states_colours(model.model.vision_tower)
    return model


def make_states_colours(tower) -> None:
    """Let the states behind the first block be the patches' mean colours (and their negatives, so that they centre)."""
    embeddings, block = tower.embeddings, tower.encoder.layers[0]
    embeddings.position_embedding.weight.zero_()
    embeddings.patch_embedding.weight.zero_()
    for channel in range(3):
        embeddings.patch_embedding.weight[channel, channel] = 1 / PATCH**2
        embeddings.patch_embedding.weight[3 + channel, channel] = -1 / PATCH**2
    for last in (block.self_attn.out_proj, block.mlp.fc2):
        last.weight.zero_()
        last.bias.zero_()


def picture(golden: Golden, threshold: float = 0.8) -> torch.Tensor:
    """Pixels `[1, tiles, 3, height, width]`; `golden.similar` windows are at the threshold or above."""
    order = window_order(golden)
    colours = torch.zeros(len(golden.rows), 3, SIDE, SIDE)
    colours[:, 0] = 1.0
    for rank, (tile, top, left) in enumerate(order):
        similarity = threshold + 0.2 * (golden.similar - 0.5 - rank) / len(order)
        angle = acos((36 * similarity - 28) / 8)  # of 36 pairs, the 8 with the centre have its cosine, the others 1
        colours[tile, :2, top + 1, left + 1] = torch.tensor([cos(angle), sin(angle)])
    return colours.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3).unsqueeze(0)


def window_order(golden: Golden) -> list[tuple[int, int, int]]:
    """(tile, top row, left column) of the windows, the most similar one first."""
    windows = [
        (tile, top, left)
        for tile, (first, rows) in enumerate(zip(FIRST_ROW[golden.rows], golden.rows, strict=True))
        for top in range(first, first + rows, WINDOW)
        for left in range(0, SIDE, WINDOW)
    ]
    if not golden.in_turn:
        return windows
    own = [[window for window in windows if window[0] == tile] for tile in range(len(golden.rows))]
    return sorted(windows, key=lambda window: (own[window[0]].index(window), window[0]))


@torch.no_grad()
def report_of(golden: Golden):
    """What a prefill with the picture and three text tokens reports."""
    newlines = sum(golden.rows[1:]) // 2
    visual = sum(golden.rows) * SIDE + newlines
    output = tiny_model(golden.reduction, golden.layers)(
        input_ids=torch.tensor([[1, *[IMAGE] * visual, 5, 6, 7]]),
        pixel_values=picture(golden),
        image_sizes=torch.tensor([IMAGE_SIZES[golden.rows]]),
        use_cache=True,
        logits_to_keep=1,
    )
    return cache_of(output).report()


@pytest.mark.parametrize("golden", GOLDENS, ids=str)
def test_a_prefill_leaves_what_the_rule_says(golden):
    report = report_of(golden)
    merged, *drops = [counts for (counts,) in report.counts.values()]
    assert report.forced_merges == [golden.forced]
    assert (merged["tokens"], merged["key_tokens"]) == (golden.after_merging, golden.keys)
    assert tuple(counts["tokens"] for counts in drops) == golden.stages
    assert {counts["key_tokens"] for counts in drops} == {golden.keys}
    assert {counts["newlines"] for counts in (merged, *drops)} == {0}
    averages = report.average_visual_tokens if golden.counter == "input" else report.average_visual_tokens_release
    assert averages == [pytest.approx(golden.tokens, abs=0.5)]


@pytest.mark.parametrize(("layers", "counter", "smallest"), SMALLEST)
def test_what_can_t_be_reached_names_the_smallest_average(layers, counter, smallest):
    impossible = Golden(layers, 40, counter, 0, 0, 0, (0, 0, 0, 0))
    with pytest.raises(ValueError, match=rf"smallest reachable average is {smallest}"):
        report_of(impossible)

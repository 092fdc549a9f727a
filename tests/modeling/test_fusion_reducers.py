"""Counts of the papers, options, and decisions against a plain per-row implementation."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from transformers import ViltConfig

from lmms_tokendrop import FusionReductionConfig
from lmms_tokendrop.modeling.core.fusion_plan import build_fusion_reducer
from lmms_tokendrop.modeling.core.fusion_selection import FusionCounts, keep_best_of_image
from lmms_tokendrop.modeling.core.fusion_tokens import FusionTokens
from lmms_tokendrop.modeling.core.reducer import Context
from lmms_tokendrop.modeling.methods.dynamicvit import KeepPredictor
from lmms_tokendrop.modeling.methods.tome import merge_schedule


def build(num_layers: int = 12, hidden_size: int = 16, native_size: int = 384, **options):
    config = ViltConfig(num_hidden_layers=num_layers, hidden_size=hidden_size, image_size=native_size)
    return build_fusion_reducer(FusionReductionConfig, FusionReductionConfig.from_dict(options), config)


def counts_by_stage(reducer, text: int, image: int) -> list[tuple[int, int]]:
    """Text and image tokens before the first stage and after each."""
    first = now = (torch.tensor([text]), torch.tensor([image]))
    found = [(text, image)]
    for stage in reducer.stages():
        now = reducer.count(stage, FusionCounts(*now, *first))
        found.append((int(now[0]), int(now[1])))
    return found


@pytest.mark.parametrize(
    ("options", "text", "image", "expected"),
    [
        ({"preset": "vilt-vqav2"}, 32, 145, [(32, 145), (26, 87), (21, 52), (17, 31)]),
        ({}, 32, 145, [(32, 145), (26, 87), (21, 52), (17, 31)]),
        ({"preset": "vilt-snli-ve"}, 40, 145, [(40, 145), (32, 87), (26, 52), (21, 31), (17, 19)]),
        (
            {"layers": [0, 2, 4, 6], "prune_ratio": 0.2, "image_merge_ratio": 0.2},
            32,
            577,
            [(32, 577), (26, 347), (21, 209), (17, 125), (14, 75)],
        ),
        (
            {"layers": [0, 2, 4, 6], "prune_ratio": 0.3, "image_merge_ratio": 0.5},
            40,
            577,
            [(40, 577), (32, 203), (26, 72), (21, 26), (17, 10)],
        ),
        (
            {"layers": [2, 4, 6], "prune_ratio": 0.3, "image_merge_ratio": 0.5},
            40,
            325,
            [(40, 325), (32, 114), (26, 41), (21, 15)],
        ),
    ],
)
def test_pumer_leaves_the_papers_counts(options, text, image, expected):
    assert counts_by_stage(build(method="pumer", **options), text, image) == expected


def test_each_part_of_pumer_works_alone():
    nothing = {"prune_ratio": 0.0, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0}
    for name, expected in (
        ("prune_ratio", (32, 101)),
        ("image_merge_ratio", (32, 101)),
        ("text_merge_ratio", (22, 145)),
    ):
        reducer = build(method="pumer", **{**nothing, name: 0.3})
        assert counts_by_stage(reducer, 32, 145)[1] == expected
    with pytest.raises(ValueError, match="nothing would happen"):
        build(method="pumer", **nothing)


def test_random_and_cls_attention_drop_as_much_of_the_image_as_pumer():
    for method in ("random", "cls_attention"):
        assert [image for _, image in counts_by_stage(build(method=method), 32, 145)] == [145, 87, 52, 31]


def test_dynamicvit_keeps_powers_of_the_ratio_of_the_first_patches():
    assert [image for _, image in counts_by_stage(build(method="dynamicvit"), 32, 145)] == [145, 101, 71, 50]
    assert [stage.layer for stage in build(method="dynamicvit").stages()] == [3, 6, 9]
    assert {stage.point for stage in build(method="dynamicvit").stages()} == {"before_block"}


def test_tome_merges_r_tokens_in_every_block_until_half_are_left_to_merge():
    assert merge_schedule(13, "constant", 12) == [13] * 12
    assert merge_schedule(13, "decreasing", 12) == [26, 23, 21, 18, 16, 14, 11, 9, 7, 4, 2, 0]
    images = [image for _, image in counts_by_stage(build(method="tome"), 32, 145)]
    assert images == [145, 132, 119, 106, 93, 80, 67, 54, 41, 28, 15, 8, 5]
    sums = [sum(pair) for pair in counts_by_stage(build(method="tome", merge_scope="joint"), 32, 145)]
    assert sums == [177 - 13 * merges for merges in range(13)]


def test_default_layers_scale_and_layers_that_cannot_act_raise():
    assert [stage.layer for stage in build(method="pumer").stages()] == [2, 5, 8]
    assert [stage.layer for stage in build(method="pumer", num_layers=6).stages()] == [0, 2, 3]
    assert [stage.layer for stage in build(method="pumer", layers=[11]).stages()] == [11]
    for method in ("pumer", "random", "cls_attention", "dynamicvit"):
        with pytest.raises(ValueError, match="layer 12 can't act in an encoder of 12 layers; allowed are 0 to 11"):
            build(method=method, layers=[2, 12])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "pumer", "r": 3}, "method 'pumer' has no option 'r'"),
        ({"method": "pumer", "prune_ratio": 1.5}, "allowed: a number from 0 to 1"),
        ({"method": "pumer", "score": "tip"}, "allowed: 'attention', 'first_head', 'keys', 'queries'"),
        ({"method": "pumer", "layers": [4, 2]}, "ascending"),
        ({"method": "pumer", "preset": "vilt-flickr30k"}, "allowed: 'vilt-vqav2'"),
        ({"method": "tome", "r": 0}, "allowed: a whole number from 1"),
        ({"method": "tome", "proportional_attention": 1}, "allowed: True, False"),
        ({"method": "random", "prune_ratio": 0.0}, "nothing would happen"),
        (
            {"method": "dynamicvit", "keep_ratio": 1.0},
            "dynamicvit: .* leave all of 145 image and 40 text tokens, so noth",
        ),
        (
            {"method": "random", "prune_ratio": 0.003},
            "leave all of 145 image and 40 text tokens, so nothing would happen",
        ),
        (
            {"method": "pumer", "prune_ratio": 0, "image_merge_ratio": 0.003, "text_merge_ratio": 0.01},
            "leave all of 145",
        ),
        ({"method": "smres", "image_size": 384}, "still have 12 patches .* nothing would happen; allowed: 1 to 367"),
        ({"method": "smres", "image_size": 368}, "allowed: 1 to 367"),
        ({"method": "smres", "native_size": 32}, "image_size=26: .* allowed: none, the image has one patch"),
        ({"method": "pumer", "image_size": 512}, "nothing would happen"),
        ({"method": "merging"}, "method='merging'; allowed: 'none', 'pumer', 'tome'"),
        ({"method": "none", "seed": 1}, "method 'none' has no option 'seed'"),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_smaller_sizes():
    assert build(method="smres").image_size == 320
    assert build(method="smres", image_size=224).image_size == 224
    assert build(method="smres", image_size=367).image_scale == 367 / 384
    assert build(method="pumer", image_size=320).image_size == 320
    assert build(method="pumer").image_size is None


class StageCase:
    """A stage with two rows: 5 and 3 text tokens of 5, 9 and 6 image tokens of 9; random keys and attention."""

    def __init__(self, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        text, image = torch.ones(2, 5), torch.ones(2, 9)
        text[1, 3:], image[1, 6:] = 0, 0
        self.tokens = FusionTokens.start(text, image)
        self.attention = torch.rand(2, 4, 14, 14, generator=generator)
        self.keys = torch.randn(2, 14, 8, generator=generator)
        self.queries = torch.randn(2, 14, 8, generator=generator)
        self.states = torch.randn(2, 14, 16, generator=generator)

    def rows(self, rows):
        longest = int(rows.sum(-1).max())
        found = torch.zeros(2, 4, longest, 14)
        for row in range(2):
            chosen = rows[row].nonzero()[:, 0]
            found[row, :, : len(chosen)] = self.attention[row][:, chosen]
        return found

    def context(self) -> Context:
        tokens, seeds = self.tokens, torch.tensor([1, 2])
        counts = FusionCounts(*tokens.counts(), *tokens.counts())
        providers = {
            "keys": lambda: self.keys,
            "queries": lambda: self.queries,
            "attention_rows": self.rows,
            "best": partial(keep_best_of_image, tokens),
        }
        return Context(tokens, tokens.valid, self.states, counts, tokens.text, seeds, providers=providers)

    def image(self, row: int) -> list[int]:
        return self.tokens.image[row].nonzero()[:, 0].tolist()

    def text(self, row: int) -> list[int]:
        return self.tokens.text[row].nonzero()[:, 0].tolist()

    def score(self, kind: str, row: int, token: int) -> float:
        votes = {
            "attention": lambda t: self.attention[row, :, t, token].mean().item(),
            "first_head": lambda t: self.attention[row, 0, t, token].item(),
            "keys": lambda t: (self.keys[row, t] @ self.keys[row, token]).item(),
            "queries": lambda t: (self.queries[row, t] @ self.keys[row, token]).item(),
        }[kind]
        return sum(votes(t) for t in self.text(row))

    def merged(self, row: int, order: list[int], count: int) -> dict[int, int]:
        """Bipartite matching, as the paper words it."""
        unit = torch.nn.functional.normalize(self.keys[row], dim=-1)
        first, second = order[0::2], order[1::2]
        edges = []
        for token in first[1:]:
            similarity, goal = max(((unit[token] @ unit[other]).item(), other) for other in second)
            edges.append((similarity, token, goal))
        return {token: goal for _, token, goal in sorted(edges, reverse=True)[:count]}


@pytest.mark.parametrize("prune_ratio", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["attention", "first_head", "keys", "queries"])
@pytest.mark.parametrize("seed", range(3))
def test_pumer_decides_as_the_paper_words_it(kind, prune_ratio, seed):
    case = StageCase(seed)
    reducer = build(method="pumer", prune_ratio=prune_ratio, image_merge_ratio=0.25, text_merge_ratio=0.4, score=kind)
    target = reducer.keep(reducer.stages()[0], case.context()).target
    for row in range(2):
        expected = {token: token for token in case.text(row)}
        cls, *patches = case.image(row)
        total = 1 + len(patches)
        if prune_ratio:
            patches.sort(key=lambda token, row=row: -case.score(kind, row, token))
            patches = patches[: total - round(prune_ratio * total) - 1]
        kept = [cls, *patches]
        expected |= {token: token for token in kept}
        expected |= case.merged(row, kept, min(round(0.25 * total), (len(kept) - 1) // 2))
        text = case.text(row)
        expected |= case.merged(row, text, min(round(0.4 * len(text)), (len(text) - 1) // 2))
        assert target[row].tolist() == [expected.get(token, -1) for token in range(14)]


@pytest.mark.parametrize("scope", ["image", "joint"])
def test_tome_decides_as_the_paper_words_it(scope):
    case = StageCase()
    reducer = build(method="tome", r=3, merge_scope=scope)
    keep = reducer.keep(reducer.stages()[0], case.context())
    for row in range(2):
        among = case.image(row) if scope == "image" else case.text(row) + case.image(row)
        expected = {token: token for token in case.text(row) + case.image(row)}
        expected |= case.merged(row, among, min(3, (len(among) - 1) // 2))
        assert keep.target[row].tolist() == [expected.get(token, -1) for token in range(14)]


@pytest.mark.parametrize("cls_token", ["text", "image"])
def test_attention_of_a_cls_token(cls_token):
    case = StageCase()
    reducer = build(method="cls_attention", prune_ratio=0.5, cls_token=cls_token)
    target = reducer.keep(reducer.stages()[0], case.context()).target
    for row in range(2):
        cls, *patches = case.image(row)
        query = 0 if cls_token == "text" else cls
        patches.sort(key=lambda token, row=row, query=query: -case.attention[row, :, query, token].mean())
        kept = {cls, *patches[: 1 + len(patches) - round(0.5 * (1 + len(patches))) - 1], *case.text(row)}
        assert target[row].tolist() == [token if token in kept else -1 for token in range(14)]


def test_random_pruning_is_seeded_by_option_and_sample():
    def kept(seed, sample_seed):
        case = StageCase()
        context = case.context()
        context.sample_seeds = torch.tensor([sample_seed, 0])
        reducer = build(method="random", prune_ratio=0.5, seed=seed)
        return tuple(reducer.keep(reducer.stages()[0], context).target[0].tolist())

    assert kept(0, 1) == kept(0, 1)
    assert len({kept(seed, sample) for seed in (0, 1) for sample in (0, 1, 2)}) >= 4


def test_the_predictor_sees_each_patch_and_the_mean_of_those_present():
    torch.manual_seed(0)
    predictor = KeepPredictor(16).eval()
    states, present = torch.randn(1, 6, 16), torch.tensor([[0, 1, 1, 1, 0, 0]])
    found = predictor(states, present)
    assert found.shape == (1, 6, 2)
    assert torch.allclose(found.exp().sum(-1), torch.ones(1, 6))
    changed = states.clone()
    changed[0, 0] = torch.randn(16)
    assert torch.allclose(predictor(changed, present)[:, 1:], found[:, 1:])
    changed[0, 1] = torch.randn(16)
    assert not torch.allclose(predictor(changed, present)[:, 2:], found[:, 2:])

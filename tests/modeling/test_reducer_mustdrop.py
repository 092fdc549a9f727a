"""MustDrop's formulas: layers, key tokens, dual attention, the two modes of the filter."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.modeling.core.drop_layers import drop_layers
from lmms_tokendrop.modeling.core.reducer import Context, Host, Stage
from lmms_tokendrop.modeling.core.selection import DecoderCounts, keep_by_priority
from lmms_tokendrop.modeling.core.visual_tokens import VisualTokens
from lmms_tokendrop.modeling.methods.mustdrop import PAPER_LAYERS, MustDrop, dual_attention, key_tokens

# one text token, four visual tokens of image 0, two text tokens
PROBABILITIES = torch.tensor(
    [
        [[0.10, 0.40, 0.10, 0.05, 0.05, 0.30, 0.00], [0.20, 0.10, 0.30, 0.03, 0.07, 0.10, 0.20]],
        [[0.30, 0.20, 0.10, 0.15, 0.05, 0.20, 0.00], [0.20, 0.10, 0.10, 0.01, 0.09, 0.30, 0.20]],
    ]
)  # [heads, text rows, keys]


def mustdrop(num_layers: int, **options) -> MustDrop:
    return MustDrop(TokenReductionConfig.from_dict({"method": "mustdrop", **options}), Host(num_layers, 16, 42, 4))


def context(options=None, key: list[bool] | None = None, cls_attention: list[float] | None = None) -> Context:
    tokens = VisualTokens.text(1, 7, torch.device("cpu"))
    for name in ("image", "tile"):
        setattr(tokens, name, torch.tensor([[-1, 0, 0, 0, 0, -1, -1]]))
    tokens.present = torch.tensor([[False, True, True, True, True, False, False]])
    key = torch.tensor([[False, *(key or [False] * 4), False, False]])
    attention = torch.tensor([[0.0, *(cls_attention or [0.0] * 4), 0.0, 0.0]])
    protected = key if getattr(options, "protects_key_tokens", True) else torch.zeros_like(key)
    counts = DecoderCounts(
        options,
        tokens,
        groups=tokens.groups("image")[0],
        full=torch.tensor([4]),
        full_newlines=torch.tensor([0]),
        processed=[torch.tensor([4])],
        protected=protected,
    )
    providers = {"attention_rows": lambda rows: PROBABILITIES.unsqueeze(0), "cls_attention": lambda: attention}
    found = Context(
        tokens=tokens,
        valid=torch.ones(1, 7, dtype=torch.bool),
        hidden_states=None,
        counts=counts,
        text_rows=torch.tensor([[False] * 5 + [True] * 2]),
        sample_seeds=torch.zeros(1).long(),
        carry={"key": key},
        providers=providers,
    )
    providers["best"] = partial(keep_by_priority, options, found)
    return found


def kept_visual(reduction: dict, **marks) -> list[int]:
    reducer = mustdrop(4, layers=[0], **reduction)
    keep = reducer.keep(Stage("decoder", 0), context(reducer.options, **marks))
    kept = keep.stays[0].nonzero().flatten().tolist()
    assert kept[0] == 0, "text stays"
    assert kept[-2:] == [5, 6], "text stays"
    return kept[1:-2]


def test_dual_attention_by_hand():
    share, best, _ = dual_attention(context())
    # head means of the visual columns: row 0: .30 .10 .10 .05; row 1: .10 .20 .02 .08; total mass .95
    expected = torch.tensor([0.40, 0.30, 0.12, 0.13]) / 0.95
    torch.testing.assert_close(share[0, 1:5], expected)
    torch.testing.assert_close(best[0, 1:5], torch.tensor([0.30, 0.20, 0.10, 0.08]))
    assert share[0, [0, 5, 6]].tolist() == best[0, [0, 5, 6]].tolist() == [0.0, 0.0, 0.0]


def test_dual_score_is_the_larger_relative_score():
    share, best, score = dual_attention(context())
    relative = torch.stack([share[0, 1:5] / share[0, 1:5].mean(), best[0, 1:5] / best[0, 1:5].mean()])
    torch.testing.assert_close(score[0, 1:5], relative.amax(0).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("thresholds", "kept"),
    [
        # shares: .421 .316 .126 .137; best: .30 .20 .10 .08
        ({"global_threshold": 0.13, "individual_threshold": 0.15}, [1, 2, 4]),
        ({"global_threshold": 0.20, "individual_threshold": 0.15}, [1, 2]),
        ({"global_threshold": 0.20, "individual_threshold": 0.09}, [1, 2, 3]),
        ({"global_threshold": 0.20}, [1, 2]),
        ({"individual_threshold": 0.25}, [1]),
        ({"global_threshold": 1.0, "individual_threshold": 0.0}, [1, 2, 3, 4]),
        ({"global_threshold": 0.0, "individual_threshold": 1.0}, [1, 2, 3, 4]),
    ],
)
def test_a_token_leaves_only_below_both_thresholds(thresholds, kept):
    assert kept_visual(thresholds) == kept


def test_the_tests_are_strict():
    best = dual_attention(context())[1][0, 3].item()
    assert 3 in kept_visual({"global_threshold": 1.0, "individual_threshold": best})


def test_key_tokens_never_leave_under_thresholds():
    thresholds = {"global_threshold": 1.1, "individual_threshold": 1.1}
    assert kept_visual(thresholds, key=[False, False, True, True]) == [3, 4]


def test_an_image_without_key_tokens_keeps_its_best_token_whatever_the_thresholds():
    assert kept_visual({"global_threshold": 1.1, "individual_threshold": 1.1}) == [1]


def test_key_tokens_never_leave_under_a_budget():
    # 4 layers, the first receives 4: an average of 2.5 leaves two for the other three, 3.25 leaves three
    marks = {"key": [False, True, True, False], "cls_attention": [0.9, 0.1, 0.3, 0.2]}
    assert kept_visual({"visual_tokens": 2.5}, **marks) == [2, 3]
    assert kept_visual({"visual_tokens": 3.25}, **marks) == [1, 2, 3]
    with pytest.raises(ValueError, match=r"visual_tokens.*smallest reachable average is 2\.50"):
        kept_visual({"visual_tokens": 2.4}, **marks)


def test_in_format_1_key_tokens_came_first_by_cls_attention_and_were_cut_to_fit():
    marks = {"key": [False, True, True, True], "cls_attention": [0.9, 0.1, 0.3, 0.2]}
    assert kept_visual({"format": 1, "visual_tokens": 1.75}, **marks) == [3]
    assert kept_visual({"format": 1, "visual_tokens": 2.5}, **marks) == [3, 4]
    assert kept_visual({"format": 1, "visual_tokens": 3.25}, **marks) == [2, 3, 4]


def test_under_a_budget_the_others_follow_by_dual_score():
    marks = {"key": [False, False, False, True], "cls_attention": [0.9, 0.1, 0.3, 0.2]}
    assert kept_visual({"visual_tokens": 2.5}, **marks) == [1, 4]


@pytest.mark.parametrize(
    ("tokens", "keys"), [(576, 47), (438, 36), (64, 6), (36, 3), (20, 2), (1, 1), (100, 8), (25, 2)]
)
def test_the_number_of_key_tokens_is_rounded_up(tokens, keys):
    attention = torch.rand(1, 600)
    among = torch.arange(600).unsqueeze(0) < tokens
    marks = key_tokens(attention, among, of_tiles([0] * 600), 0.08)
    assert int(marks.sum()) == keys
    assert marks[0].nonzero().flatten().tolist() == attention[0, :tokens].topk(keys).indices.sort().values.tolist()


def of_tiles(tiles: list[int]) -> VisualTokens:
    """Tokens of one image."""
    tokens = VisualTokens.text(1, len(tiles), torch.device("cpu"))
    tokens.image, tokens.tile = torch.zeros(1, len(tiles)).long(), torch.tensor([tiles])
    return tokens


def test_key_tokens_are_counted_per_tile():
    attention = torch.tensor([[0.1, 0.4, 0.2, 0.3, 0.1, 0.2, 0.9, 0.9]])
    among = torch.tensor([[True] * 6 + [False] * 2])
    marks = key_tokens(attention, among, of_tiles([0] * 4 + [1] * 4), 0.5)
    assert marks.tolist() == [[False, True, False, True, False, True, False, False]]


@pytest.mark.parametrize(
    ("depth", "layers"),
    [
        (32, (2, 6, 10, 14)),
        (40, (2, 7, 12, 17)),
        (12, (0, 1, 3, 4)),
        (8, (0, 1, 2, 3)),
        (24, (1, 4, 7, 10)),
        (4, (0, 1, 2)),
    ],
)
def test_default_layers_follow_the_depth(depth, layers):
    assert drop_layers(None, depth, PAPER_LAYERS) == layers


@pytest.mark.parametrize("layers", [[3], [0, 3], [7], [1, 40]])
def test_a_layer_at_or_past_the_last_is_an_error(layers):
    with pytest.raises(ValueError, match=r"layers=.*0 to 2"):
        drop_layers(layers, 4, PAPER_LAYERS)


def test_the_last_layer_but_one_is_allowed():
    assert drop_layers([2], 4, PAPER_LAYERS) == (2,)


def test_stages_are_the_papers():
    prefill = [Stage("features"), *(Stage("decoder", layer) for layer in (2, 6, 10, 14))]
    cache = [Stage("decode", layer, "after_prefill") for layer in range(2, 32)]
    assert mustdrop(32).stages() == (Stage("vision", 0, "after_block"), *prefill, *cache)


def test_the_caches_of_layers_zero_and_one_shrink_when_asked():
    assert [stage.layer for stage in mustdrop(4, compact_first_layers=True).stages_at("decode")] == [0, 1, 2, 3]


def test_the_output_aware_policy_asks_every_layer_after_so_many_tokens():
    stages = [stage for stage in mustdrop(4, decode_interval=6).stages() if stage.point == "after_token"]
    assert stages == [Stage("decode", layer, "after_token", 6) for layer in range(4)]

"""MustDrop's formulas: layers, key tokens, dual attention, the two modes of the filter."""

from __future__ import annotations

import pytest
import torch

from lmms_tokendrop.modeling.reducer_mustdrop import MustDrop, drop_layers, dual_attention, dual_score
from lmms_tokendrop.modeling.stages import Stage, StageContext
from lmms_tokendrop.modeling.token_reduction_config import TokenReductionConfig
from lmms_tokendrop.modeling.visual_tokens import VisualTokens

# one text token, four visual tokens of image 0, two text tokens
PROBABILITIES = torch.tensor(
    [
        [[0.10, 0.40, 0.10, 0.05, 0.05, 0.30, 0.00], [0.20, 0.10, 0.30, 0.03, 0.07, 0.10, 0.20]],
        [[0.30, 0.20, 0.10, 0.15, 0.05, 0.20, 0.00], [0.20, 0.10, 0.10, 0.01, 0.09, 0.30, 0.20]],
    ]
)  # [heads, text rows, keys]


def context(key: list[bool] | None = None, cls_attention: list[float] | None = None) -> StageContext:
    tokens = VisualTokens.text(1, 7, torch.device("cpu"))
    for name in ("image", "tile"):
        setattr(tokens, name, torch.tensor([[-1, 0, 0, 0, 0, -1, -1]]))
    tokens.present = torch.tensor([[False, True, True, True, True, False, False]])
    tokens.key = torch.tensor([[False, *(key or [False] * 4), False, False]])
    tokens.cls_attention = torch.tensor([[0.0, *(cls_attention or [0.0] * 4), 0.0, 0.0]])
    return StageContext(
        tokens=tokens,
        valid=torch.ones(1, 7, dtype=torch.bool),
        text_rows=torch.tensor([[False] * 5 + [True] * 2]),
        groups=tokens.groups("image")[0],
        full=torch.tensor([4]),
        full_newlines=torch.tensor([0]),
        processed=[torch.tensor([4])],
        num_layers=4,
        sample_seeds=torch.zeros(1).long(),
        attention_rows=lambda rows: (PROBABILITIES.unsqueeze(0), torch.ones(1, 2, dtype=torch.bool)),
    )


def kept_visual(reduction: dict, **marks) -> list[int]:
    reducer = MustDrop(TokenReductionConfig.from_dict({"method": "mustdrop", "layers": [0], **reduction}), 4)
    keep = reducer.keep(Stage("prefill", 0), context(**marks))
    kept = keep.index[0].tolist()
    assert kept[0] == 0, "text stays"
    assert kept[-2:] == [5, 6], "text stays"
    return kept[1:-2]


def test_dual_attention_by_hand():
    share, best = dual_attention(context())
    # head means of the visual columns: row 0: .30 .10 .10 .05; row 1: .10 .20 .02 .08; total mass .95
    expected = torch.tensor([0.40, 0.30, 0.12, 0.13]) / 0.95
    torch.testing.assert_close(share[0, 1:5], expected)
    torch.testing.assert_close(best[0, 1:5], torch.tensor([0.30, 0.20, 0.10, 0.08]))
    assert share[0, [0, 5, 6]].tolist() == best[0, [0, 5, 6]].tolist() == [0.0, 0.0, 0.0]


def test_dual_score_is_the_larger_relative_score():
    share, best = dual_attention(context())
    score = dual_score(context(), share, best)[0, 1:5]
    relative = torch.stack([share[0, 1:5] / share[0, 1:5].mean(), best[0, 1:5] / best[0, 1:5].mean()])
    torch.testing.assert_close(score, relative.amax(0).double(), rtol=1e-6, atol=1e-6)


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
    reducer = MustDrop(TokenReductionConfig.from_dict({"method": "mustdrop"}), 32)
    attention = torch.rand(1, 600)
    alive = torch.arange(600).unsqueeze(0) < tokens
    marks = reducer.key_tokens(attention, alive)
    assert int(marks.sum()) == keys
    assert marks[0].nonzero().flatten().tolist() == attention[0, :tokens].topk(keys).indices.sort().values.tolist()


def test_key_tokens_are_counted_per_tile():
    reducer = MustDrop(TokenReductionConfig.from_dict({"method": "mustdrop", "key_ratio": 0.5}), 32)
    alive = torch.tensor([[True] * 4, [True, True, False, False]])
    marks = reducer.key_tokens(torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.1, 0.2, 0.9, 0.9]]), alive)
    assert marks.tolist() == [[False, True, False, True], [False, True, False, False]]


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
    assert drop_layers(None, depth) == layers


@pytest.mark.parametrize("layers", [[3], [0, 3], [7], [1, 40]])
def test_a_layer_at_or_past_the_last_is_an_error(layers):
    with pytest.raises(ValueError, match=r"layers=.*0 to 2"):
        drop_layers(layers, 4)


def test_the_last_layer_but_one_is_allowed():
    assert drop_layers([2], 4) == (2,)


def test_stages_are_the_papers():
    config = TokenReductionConfig.from_dict({"method": "mustdrop"})
    prefill = [Stage("prefill", layer) for layer in (-1, 2, 6, 10, 14)]
    assert MustDrop(config, 32).stages() == (Stage("vision", 0), *prefill, Stage("decode", 2))


def test_the_caches_of_layers_zero_and_one_shrink_when_asked():
    config = TokenReductionConfig.from_dict({"method": "mustdrop", "compact_first_layers": True})
    assert MustDrop(config, 32).stages()[-1] == Stage("decode", 0)

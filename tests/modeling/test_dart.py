"""DART: pivots by the size of their keys, then what is least like them, by hand and one token at a time."""

from __future__ import annotations

import pytest
import torch
from cases import greedy
from test_reducer_mustdrop import context

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.modeling.core.reducer import Host, Stage
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.methods.dart import PRESETS, Dart, even_shares, least_like

STATES = [[0.0, 0.0], [1.0, 0.0], [2.0, 0.25], [0.0, 3.0], [-1.0, 0.25], [0.0, 1.0], [1.0, -1.0]]
"""Text, four visual tokens, and the text behind them: the second visual token nearly repeats the first."""

KEYS = [[9.0, 9.0], [-3.0, 2.0], [4.0, 0.0], [1.0, 1.0], [1.0, -1.0], [0.0, 5.0], [-2.0, 2.0]]
"""One channel in two heads. Sizes of the visual tokens: 5 4 2 2; of the text behind them: 5 4."""


def dart(num_layers: int = 4, **options) -> Dart:
    return Dart(TokenReductionConfig.from_dict({"method": "dart", **options}), Host(num_layers, 16, 42, 4))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        # the first pivot is token 1, least like it is 4, then 3; the text's is (0, 1), least like it are 1 and then 2
        ({"image_pivots": 1, "text_pivots": 0, "R": 0.75}, [1]),
        ({"image_pivots": 1, "text_pivots": 0, "R": 0.5}, [1, 4]),
        ({"image_pivots": 1, "text_pivots": 0, "R": 0.25}, [1, 3, 4]),
        ({"image_pivots": 1, "text_pivots": 1, "R": 0.25}, [1, 2, 4]),
        ({"image_pivots": 2, "text_pivots": 0, "R": 0.5}, [1, 2]),
        ({"R": 0.5}, [1, 2]),
        ({"R": 0.0}, [1, 2, 3, 4]),
    ],
)
def test_pivots_stay_and_choose_what_is_least_like_them(options, kept):
    reducer = dart(K=1, **options)
    found = context(reducer.options)
    found.providers["keys_by_head"] = lambda: torch.tensor(KEYS).T.view(1, 2, 7, 1)
    found.providers["normed_states"] = lambda: torch.tensor(STATES).unsqueeze(0)
    keep = reducer.keep(Stage("decoder", 0, "after_block"), found)
    assert keep.stays[0].nonzero().flatten().tolist() == [0, *kept, 5, 6]


def test_places_are_shared_out_evenly():
    there = torch.tensor([[True, True, True, True], [True, False, True, False]])
    assert even_shares(there, torch.tensor([6, 5])).tolist() == [[2, 2, 1, 1], [3, 0, 2, 0]]


def test_pivots_choose_in_turn_what_no_other_has_chosen():
    likeness = torch.tensor([[[0.9, 0.1], [-0.5, -0.9], [0.0, 0.3], [0.2, -0.2]]])
    valid, chosen = torch.tensor([[True, True, True, True]]), torch.tensor([[True, False, False, False]])
    assert least_like(likeness, valid, chosen, torch.tensor([[1, 1]])).tolist() == [[True, True, False, True]]
    assert least_like(likeness, valid, chosen, torch.tensor([[2, 0]])).tolist() == [[True, True, True, False]]


def naive(states: torch.Tensor, sizes: list[float], image: list[int], text: list[int], left: int) -> list[int]:
    """Places of the visual tokens that stay of a row, four pivots of both kinds."""
    own = sorted(image, key=lambda place: -sizes[place])[: min(4, left)]
    pivots = own + sorted(text, key=lambda place: -sizes[place])[:4]
    kept = list(own)
    for number, pivot in enumerate(pivots):
        rest = left - len(own)
        share = rest // len(pivots) + (number < rest % len(pivots))
        free = sorted(set(image) - set(kept))
        kept += sorted(free, key=lambda place: float(torch.cosine_similarity(states[place], states[pivot], dim=0)))[
            :share
        ]
    return sorted(kept)


@torch.no_grad()
@pytest.mark.parametrize("R", [0.2, 0.6, 0.98])
@pytest.mark.parametrize("K", [1, 2])
def test_the_model_keeps_what_one_keeps_that_goes_token_by_token(workshop, K, R):
    inputs = workshop.inputs("one_image")
    stock = workshop.stock()
    plain = stock(**inputs, output_hidden_states=True, use_cache=True)
    states = stock.model.language_model.norm(plain.hidden_states[K][0])
    sizes = cache_layer_keys(plain, K - 1)[0].abs().sum((0, 2)).tolist()
    output = workshop.reduced({"method": "dart", "K": K, "R": R})(**inputs, use_cache=True)
    cache = cache_of(output)
    tokens = cache.tokens
    image = (tokens.visual & ~tokens.newline)[0].nonzero().flatten().tolist()
    text = [place for place in range(len(states)) if not bool(tokens.visual[0, place]) and place > image[0]]
    kept = [place for place in cache.records[0].index[0].tolist() if place in image]
    assert kept == naive(states, sizes, image, text, -int(-len(image) * (1 - R) // 1))


def cache_layer_keys(output, layer: int) -> torch.Tensor:
    """`[batch, heads, length, head_dim]`, rotated."""
    return cache_of(output).layers[layer].keys


@pytest.mark.parametrize("prompt", ["one_image", "two_images", "ragged_batch"])
def test_a_budget_is_met_to_the_rounding_of_one_count(workshop, prompt):
    model = workshop.reduced({"method": "dart", "K": 1, "visual_tokens": 60})
    report = cache_of(greedy(model, workshop.inputs(prompt), 1)).report()
    images = 2 if prompt == "two_images" else 1
    assert all(abs(average - 60 * images) <= images * 3 / 8 for average in report.average_visual_tokens)


def test_a_budget_below_that_of_the_first_layers_names_the_smallest_one(workshop):
    """All 102 tokens in two of four layers, and one in the others."""
    model = workshop.reduced({"method": "dart", "keep_ratio": 0.5})
    with pytest.raises(ValueError, match=r"keep_ratio.*smallest reachable average is 51\.50"):
        model(**workshop.inputs("one_image"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"K": 4}, "K=4: .*allowed: 1 to 3"),
        ({"R": 0.5, "visual_tokens": 64}, "exclude each other"),
        ({"K": 3, "preset": "k2-r88.9"}, "K, preset exclude each other"),
        ({"image_pivots": 0}, "image_pivots=0; allowed: a whole number from 1"),
        ({"text_pivots": -1}, "text_pivots=-1; allowed: a whole number from 0"),
    ],
)
def test_options_that_say_nothing_sensible_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        dart(**options)


def test_presets_are_the_papers_ratios():
    left = [-int(-576 * (1 - options["R"]) // 1) for options in PRESETS.values()]
    assert left == [192, 128, 64]
    assert dart().options.R == dart(preset="k2-r77.8").options.R == 0.778

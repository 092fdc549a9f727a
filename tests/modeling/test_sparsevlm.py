"""SparseVLM: raters, scores, rank rule and lists by hand, and the whole method against one written token by token."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from cases import greedy, largest_difference
from test_reducer_mustdrop import context

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.modeling.core.budget import Budget
from lmms_tokendrop.modeling.core.reducer import Host, Stage
from lmms_tokendrop.modeling.core.transformers_compat import cache_of
from lmms_tokendrop.modeling.methods.sparsevlm import SparseVLM, attention_rank, raters
from lmms_tokendrop.modeling.methods.sparsevlm_options import PRESETS

LAYERS = 4


def sparsevlm(num_layers: int = LAYERS, **options) -> SparseVLM:
    return SparseVLM(TokenReductionConfig.from_dict({"method": "sparsevlm", **options}), Host(num_layers, 16, 42, 4))


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        # of two patches, softmax over both text tokens: 1/8 7/8 and 1/2 1/2, then 1/4 3/4 and 3/4 1/4
        ([[1.0, 1.0], [7.0, 1.0]], [6]),
        ([[1.0, 3.0], [3.0, 1.0]], [5, 6]),
    ],
)
def test_raters_are_the_text_that_fits_the_image_at_least_as_well_as_the_mean(text, chosen):
    found = context()
    found.hidden_states = torch.zeros(1, 7, 2)
    found.hidden_states[0, 1:5] = torch.eye(2).repeat(2, 1)
    found.hidden_states[0, 5:] = torch.tensor(text).log()
    found.hidden_states[0, 0] = 9.0  # what stands before the image sees none of it
    assert raters(found)[0].nonzero().flatten().tolist() == chosen


def test_text_that_sees_only_some_of_the_images_does_not_rate():
    found = context()
    found.tokens = replace(found.tokens, image=torch.tensor([[0, 0, -1, 1, 1, -1, -1]]))
    found.text_rows = found.tokens.image < 0
    found.hidden_states = torch.zeros(1, 7, 2)
    found.hidden_states[0, 2] = 9.0
    assert raters(found)[0].nonzero().flatten().tolist() == [5, 6]


def by_hand(reducer: SparseVLM, rater: list[bool]):
    """The context of MustDrop's formulas, with one channel per token, whose attention gives the rows asked for."""
    found = context(reducer.options)
    every = found.providers["attention_rows"](None)
    found.providers["attention_rows"] = lambda rows: every[:, :, rows[0, 5:]]
    found.hidden_states = torch.tensor([0.0, 1.0, 2.0, 4.0, 8.0, 0.0, 0.0]).view(1, 7, 1)
    found.carry = {"rater": torch.tensor([[False] * 5 + rater])}
    return found


@pytest.mark.parametrize(
    ("rater", "kept"),
    [
        # head means of the two text tokens: .30 .10 .10 .05 and .10 .20 .02 .08
        ([True, False], [1]),
        ([False, True], [2]),
        ([True, True], [1]),
    ],
)
def test_the_raters_decide_and_other_text_does_not(rater, kept):
    reducer = sparsevlm(layers=[0], kept=[1], recycling="none")
    keep = reducer.keep(Stage("decoder", 0, "after_block"), by_hand(reducer, rater))
    assert keep.stays[0].nonzero().flatten().tolist() == [0, *kept, 5, 6]
    assert keep.added is None
    assert keep.carry["rater"][0].tolist() == [False] * 5 + rater


@pytest.mark.parametrize(("recycling", "new"), [("mean", 14 / 3), ("sum", 14.0)])
def test_recycled_tokens_carry_what_left(recycling, new):
    """Token 1 is kept; the others, of states 2, 4 and 8, make one cluster."""
    reducer = sparsevlm(layers=[0], kept=[1], recycling=recycling, recycled_ratio=1.0, cluster_ratio=0.0)
    keep = reducer.keep(Stage("decoder", 0, "after_block"), by_hand(reducer, [True, False]))
    assert keep.stays[0].nonzero().flatten().tolist() == [0, 1, 2, 5, 6]
    places, states = keep.added
    assert places.tolist() == [[2]]
    torch.testing.assert_close(states, torch.tensor([[[new]]]))


def test_the_rank_of_each_image():
    """Three raters (one row has two): proportional rows have rank 1, whatever the other image's columns are."""
    rows = torch.tensor(
        [
            [[0.0, 0.1, 0.2, 0.3, 0.4], [0.0, 0.2, 0.4, 0.1, 0.1], [0.0, 0.3, 0.6, 0.2, 0.9]],
            [[0.0, 0.1, 0.2, 0.3, 0.4], [0.0, 0.5, 0.1, 0.1, 0.2], [0.0, 0.0, 0.0, 0.0, 0.0]],
        ]
    )
    groups = torch.tensor([[-1, 0, 0, 1, 1], [-1, 2, 2, 2, 2]])
    assert attention_rank(rows, groups, torch.tensor([2, 2, 4]), torch.tensor([3, 2])).tolist() == [1, 2, 2]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"rank_ratio": 0.0}, 4),
        ({"rank_ratio": 0.5}, 3),
        ({"rank_ratio": 0.99}, 3),
        ({"rank_ratio": 1.0}, 2),
        ({"rank_scale": 0.5}, 1),
        ({"rank_scale": 0.7, "rank_bias": 0.7}, 2),
        ({"rank_scale": 0.0}, 1),
        ({"rank_scale": 13.5}, 3),
    ],
)
def test_what_stays_by_rank(options, kept):
    """Four tokens and two raters whose rows have rank 2: the paper drops the ratio of the other two, rounded down."""
    reducer = sparsevlm(layers=[0], recycling="none", **options)
    found = by_hand(reducer, [True, True])
    assert reducer.count(reducer.stages()[1], found.counts) is None
    keep = reducer.keep(reducer.stages()[1], found)
    assert int((keep.stays & found.tokens.visual).sum()) == kept


def averages(reducer: SparseVLM, tokens: int = 576) -> tuple[float, float]:
    """Of one image: what layers receive, and what drops leave."""
    received, left, current = [], [], torch.tensor([tokens])
    stages = {stage.layer: stage for stage in reducer.stages_at("decoder")}
    for layer in range(reducer.host.num_layers):
        received.append(int(current))
        if layer in stages:
            counts = SimpleNamespace(current=current, least=lambda: torch.tensor([1]))
            current = reducer.count(stages[layer], counts)
        left.append(int(current))
    return sum(received) / len(received), sum(left) / len(left)


@pytest.mark.parametrize(
    ("preset", "received", "left"),
    [
        ("192", 206.5, 192.0),
        ("128", 145.4, 128.6),
        ("96", 114.1, 96.9),
        ("64", 82.2, 64.8),
        ("v2-192", 206.8, 192.4),
        ("v2-64", 81.8, 64.4),
    ],
)
def test_averages_of_the_published_lists(preset, received, left):
    """576 tokens, 32 layers, after layers 2, 6 and 15; recycled tokens count."""
    found = averages(sparsevlm(32, preset=preset))
    assert tuple(round(value, 1) for value in found) == (received, left)


def test_layers_are_the_papers_and_follow_the_depth():
    assert sparsevlm(32).layers == (2, 6, 15)
    assert sparsevlm(40).layers == (2, 7, 19)
    assert sparsevlm(32, preset="first-192").layers == (2, 6, 15, 19)
    assert sparsevlm(32, layers=[4, 5]).layers == (4, 5)


def naive_recycling(states: list[torch.Tensor], clusters: int, summed: bool) -> list[tuple[int, torch.Tensor]]:
    """Index of each centre, and what comes back there, one token at a time."""
    size, root = len(states), states[0].numel() ** 0.5
    apart = [[float((a - b).norm()) / root for b in states] for a in states]
    density = [float(torch.tensor([-sum(d * d for d in sorted(row)[:clusters]) / clusters]).exp()) for row in apart]
    scores = []
    for token in range(size):
        denser = [apart[token][j] for j in range(size) if (density[j], -j) > (density[token], -token)]
        scores.append(density[token] * min(denser, default=max(map(max, apart))))
    centres = sorted(range(size), key=lambda token: (-scores[token], token))[:clusters]
    members: dict[int, list[int]] = {centre: [centre] for centre in centres}
    for token in set(range(size)) - set(centres):
        if summed:
            best = max(centres, key=lambda centre: float(torch.cosine_similarity(states[token], states[centre], dim=0)))
        else:
            best = min(centres, key=lambda centre: apart[token][centre])
        members[best].append(token)
    groups = {centre: torch.stack([states[token] for token in tokens]) for centre, tokens in members.items()}
    return [(centre, group.sum(0) if summed else group.mean(0)) for centre, group in groups.items()]


@torch.no_grad()
def naive_logits(stock, inputs: dict, kept: list[int], recycling: str) -> tuple[torch.Tensor, list[int]]:
    """Logits of the last token, and visual tokens per layer, of one prompt with one image."""
    model, decoder = stock.model, stock.model.language_model
    image = (inputs["input_ids"] == stock.config.image_token_id).unsqueeze(-1)
    features = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output[0]
    states = stock.get_input_embeddings()(inputs["input_ids"])
    states = states.masked_scatter(image.expand_as(states), features)[0]
    newline = (features == model.image_newline).all(-1)
    visual = image[0, :, 0].tolist()
    positions = [place for place in range(len(states)) if not (visual[place] and newline[place - visual.index(True)])]
    text = [place for place in positions if not visual[place] and place > visual.index(True)]
    fit = (states[[p for p in positions if visual[p]]] @ states[text].T).softmax(-1).mean(0)
    rater = {place for place, value in zip(text, fit, strict=True) if value >= fit.mean()}
    states, received = states[positions], []
    for number, layer in enumerate(decoder.layers):
        received.append(sum(visual[place] for place in positions))
        causal = torch.full((len(states), len(states)), torch.finfo(torch.float32).min).triu(1)[None, None]
        seen: list[torch.Tensor] = []
        hook = layer.self_attn.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output[1]))
        rotary = decoder.rotary_emb(states[None], position_ids=torch.tensor([positions]))
        states = layer(states[None], attention_mask=causal, position_embeddings=rotary)[0]
        hook.remove()
        if number >= len(kept):
            continue
        rows = [slot for slot, place in enumerate(positions) if place in rater]
        score = seen[0][0].mean(0)[rows].mean(0)
        images = [slot for slot, place in enumerate(positions) if visual[place]]
        order = sorted(images, key=lambda slot: -float(score[slot]))
        chosen, lost = order[: kept[number]], order[kept[number] :]
        again = sorted(lost[: int(0.3 * len(lost)) + 1])
        new = {}
        if recycling != "none":
            back = naive_recycling([states[slot] for slot in again], int(0.1 * len(again)) + 1, recycling == "sum")
            new = {again[centre]: state for centre, state in back}
        stays = [slot for slot, place in enumerate(positions) if not visual[place] or slot in chosen or slot in new]
        states = torch.stack([new.get(slot, states[slot]) for slot in stays])
        positions = [positions[slot] for slot in stays]
    return stock.lm_head(decoder.norm(states))[-1], received


@pytest.mark.parametrize("recycling", ["mean", "sum", "none"])
@pytest.mark.parametrize("kept", [[60, 30, 8], [40, 35, 1]])
def test_the_model_equals_one_that_does_it_token_by_token(workshop, kept, recycling):
    inputs = workshop.inputs("one_image")
    expected, received = naive_logits(workshop.stock(attention="eager"), inputs, kept, recycling)
    output = workshop.reduced({"method": "sparsevlm", "kept": kept, "recycling": recycling})(**inputs, use_cache=True)
    assert cache_of(output).report().visual_tokens_per_layer == [[count] for count in received]
    assert largest_difference(output.logits[0, -1], expected) <= 1e-5


@pytest.mark.parametrize("counter", ["input", "release"])
@pytest.mark.parametrize("prompt", ["one_image", "two_images", "ragged_batch"])
def test_a_budget_is_met_with_recycled_tokens_in_it(workshop, prompt, counter):
    """To half a token: what rounding misses in one layer the next ones make up for."""
    model = workshop.reduced({"method": "sparsevlm", "visual_tokens": 60, "counter": counter})
    report = cache_of(greedy(model, workshop.inputs(prompt), 1)).report()
    found = report.average_visual_tokens if counter == "input" else report.average_visual_tokens_release
    images = 2 if prompt == "two_images" else 1
    assert all(abs(average - 60 * images) <= 0.5 * images for average in found)


def test_a_budget_below_that_of_the_first_layers_names_the_smallest_one(workshop):
    """96 patches; the first of four layers receives all of them, the others at least one."""
    with pytest.raises(ValueError, match=r"visual_tokens.*smallest reachable average is 24\.75"):
        workshop.reduced({"method": "sparsevlm", "visual_tokens": 24})(**workshop.inputs("one_image"))


def test_of_32_layers_three_32nds_is_the_smallest_budget():
    """The first three receive all of 576 tokens, the others at least one."""
    budget, full = Budget(None, 3 / 32, "image", "input"), torch.tensor([576])
    with pytest.raises(ValueError, match=r"keep_ratio: an average of 54\.00 .* smallest reachable average is 54\.91"):
        budget.next_count(full, [full] * 3, full, torch.tensor([1]), sparsevlm(32).layers, 32)


def test_a_prompt_that_ends_in_an_image_is_refused(workshop):
    with pytest.raises(ValueError, match=r"sparsevlm scores images by the text .* must not end in an image"):
        workshop.reduced("sparsevlm")(**workshop.inputs([("USER: <image>", [(60, 40)])]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kept": [3], "keep_ratio": 0.5}, "keep_ratio, kept exclude each other"),
        ({"rank_ratio": 0.5, "rank_scale": 2.0}, "rank_ratio, rank_scale exclude each other"),
        ({"preset": "64", "visual_tokens": 64}, "preset exclude each other"),
        ({"rank_bias": 1.0}, "rank_bias needs rank_scale"),
        ({"recycling": "none", "cluster_ratio": 0.2}, "cluster_ratio needs recycling"),
        ({"kept": [3, 0, 2]}, r"kept=\[3, 0, 2\]; allowed: a list of whole numbers from 1"),
        ({"kept": 3}, "kept=3; allowed: a list of whole numbers from 1"),
        ({"rank_ratio": 1.5}, "rank_ratio=1.5; allowed: a number from 0 to 1"),
        ({"recycling": "median"}, "recycling='median'; allowed: 'mean', 'sum', 'none'"),
        ({"preset": "v3"}, "preset='v3'; allowed: '192'"),
    ],
)
def test_options_that_say_nothing_sensible_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        sparsevlm(**options)


def test_a_list_has_a_number_for_each_drop():
    with pytest.raises(ValueError, match=r"kept=\[30, 9\]: 2 numbers; allowed: one for each of layers=\[0, 1, 2\]"):
        sparsevlm(kept=[30, 9])
    assert sparsevlm(kept=[30, 9], layers=[0, 2]).layers == (0, 2)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_what_the_releases_publish(preset):
    saved = sparsevlm(32, preset=preset).options.to_dict()
    assert PRESETS[preset].items() <= saved.items()
    assert TokenReductionConfig.from_dict(saved).to_dict() == saved

"""Merging under thresholds and budgets, and whole budgets on the tiny model: averages, floors, forced merges."""

from __future__ import annotations

import re
from collections import Counter
from math import ceil
from typing import NamedTuple

import pytest
import torch
from cases import METHODS, PROMPTS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_models import PATCH_SIZE

from lmms_tokendrop.modeling.core.transformers_compat import cache_of

LAYERS = 4
RATIOS = (0.0, 0.3, 0.6)


@torch.no_grad()
def prefilled(model, inputs):
    return cache_of(model(**inputs, use_cache=True))


def report_of(model, inputs):
    return prefilled(model, inputs).report()


def group_counts(report, scope: str) -> dict[tuple, list[int]]:
    """Tokens of each group: before the first layer, and after each layer."""
    stages = {-1 if name == "before layer 0" else int(name.split()[-1]): rows for name, rows in report.kept.items()}
    counts: dict[tuple, list[int]] = {}
    current = None
    for layer in range(-1, len(report.visual_tokens_per_layer)):
        current = stages.get(layer, current)
        tally: Counter = Counter()
        for row, tokens in enumerate(current):
            for image, tile, *_ in tokens:
                tally[{"request": (row,), "image": (row, image), "tile": (row, image, tile)}[scope]] += 1
        for group in counts.keys() | tally.keys():
            counts.setdefault(group, []).append(tally[group])
    return counts


def full_counts(workshop, inputs, scope: str, image_size: int) -> dict[tuple, tuple[int, int]]:
    """Tokens and newlines of each group in the unreduced model."""
    reduction = {"method": "random", "keep_ratio": 1.0, "newlines": "keep"}
    (rows,) = report_of(workshop.reduced(reduction, image_size=image_size), inputs).kept.values()
    side = image_size // PATCH_SIZE
    tokens: Counter = Counter()
    newlines: Counter = Counter()
    for row, entries in enumerate(rows):
        for image, tile, _, column in entries:
            group = {"request": (row,), "image": (row, image), "tile": (row, image, tile)}[scope]
            tokens[group] += 1
            newlines[group] += column == side
    return {group: (total, newlines[group]) for group, total in tokens.items()}


def smallest_reachable(error: ValueError) -> float:
    return float(re.search(r"smallest reachable average is (\d+\.\d+)", str(error)).group(1))


sizes = st.tuples(st.integers(20, 160), st.integers(20, 160))
cases = st.fixed_dictionaries(
    {
        "images": st.lists(st.lists(sizes, min_size=1, max_size=2), min_size=1, max_size=2),
        "image_size": st.sampled_from([28, 42, 63]),
        "method": st.sampled_from(["mustdrop", "mustdrop", "random"]),
        "scope": st.sampled_from(["image", "tile", "request"]),
        "counter": st.sampled_from(["input", "release"]),
        "newlines": st.sampled_from(["row", "keep", "drop"]),
        "budget": st.one_of(
            st.tuples(st.just("keep_ratio"), st.floats(0.05, 1.0)),
            st.tuples(st.just("visual_tokens"), st.floats(2.0, 120.0)),
        ),
        "merge_threshold": st.sampled_from([0.4, 0.8, 1.1]),
        "key_ratio": st.sampled_from([0.0, 0.08, 0.3, 1.0]),
        "layers": st.sampled_from([None, [0], [1, 2], [2], [0, 2]]),
    }
)


class Left(NamedTuple):
    """A visual token that a stage left."""

    request: int
    image: int
    tile: int
    line: int
    newline: bool
    key: bool

    def group(self, scope: str) -> tuple[int, ...]:
        return {"request": self[:1], "image": self[:2], "tile": self[:3]}[scope]

    @property
    def row(self) -> tuple[int, int, int]:
        """The row of an image."""
        return self.request, self.image, self.line


def left_tokens(tokens, key) -> list[Left]:
    """The visual tokens of a batch; `key` says which are key tokens."""
    rows, places = tokens.visual.nonzero(as_tuple=True)
    fields = [*(getattr(tokens, name) for name in Left._fields[1:-1]), key]
    return [
        Left(*values) for values in zip(rows.tolist(), *(field[rows, places].tolist() for field in fields), strict=True)
    ]


def check_least(cache, case) -> None:
    """At every stage all key tokens are there, a patch of each image in each group, and the newlines that belong."""
    unmarked = torch.zeros_like(cache.tokens.visual)
    whole = left_tokens(cache.tokens, unmarked)
    ends = {token.row: token.tile for token in whole if token.newline}
    first, *later = [
        left_tokens(cache.provenance(record.index), record.carry.get("key", torch.zeros_like(record.index)))
        for record in cache.records
    ]
    for tokens in (first, *later):
        assert sum(token.key for token in tokens) == sum(token.key for token in first), "a key token left"
        patches = [token for token in tokens if not token.newline]
        held = {(token.image, token.group(case["scope"])) for token in patches}
        assert held == {(token.image, token.group(case["scope"])) for token in whole if not token.newline}
        beside = {token.row for token in patches if token.line >= 0}
        if case["scope"] == "tile":
            beside = {token.row for token in patches if ends.get(token.row) == token.tile}
        newlines = {token.row for token in tokens if token.newline}
        assert newlines == {"keep": set(ends), "row": beside, "drop": set()}[case["newlines"]]
    sizes = Counter(token.group("tile") for token in first if not token.newline)
    keys = Counter(token.group("tile") for token in first if token.key)
    ratio = case["key_ratio"] if case["method"] == "mustdrop" else 0.0
    assert keys == +Counter({tile: ceil(ratio * size - 1e-9) for tile, size in sizes.items()})


def check_budget(workshop, case):
    """Whatever the options, averages meet the budget, key tokens stay, and the least that must stay does."""
    name, amount = case["budget"]
    reduction = {name: amount, **{key: case[key] for key in ("method", "scope", "counter", "newlines")}}
    if case["method"] == "mustdrop":
        reduction |= {key: case[key] for key in ("merge_threshold", "key_ratio", "layers")}
    prompts = [("USER:" + " <image>\n" * len(images) + "yes ? ASSISTANT:", images) for images in case["images"]]
    inputs = workshop.inputs(prompts, image_size=case["image_size"])
    full = full_counts(workshop, inputs, case["scope"], case["image_size"])
    available = {
        group: total - newlines if case["newlines"] == "drop" else total for group, (total, newlines) in full.items()
    }

    for _ in range(len(full) + 1):
        model = workshop.reduced(reduction, image_size=case["image_size"])
        try:
            cache = prefilled(model, inputs)
            break
        except ValueError as error:
            named = smallest_reachable(error)
            if name == "keep_ratio":
                reduction[name] = min(1.0, (named + 0.01) / min(available.values()))
            else:
                reduction[name] = max(named + 0.01, reduction[name] + 0.01)
    else:
        pytest.fail("the named average was not reachable")

    report = cache.report()
    check_least(cache, case)
    offset = 0 if case["counter"] == "input" else 1
    tolerance = 1.5 if case["newlines"] == "row" else 0.5
    for group, counts in group_counts(report, case["scope"]).items():
        most = available[group]
        target = min(reduction[name] * most if name == "keep_ratio" else reduction[name], most)
        average = sum(counts[offset : offset + LAYERS]) / LAYERS
        nothing_may_leave = case["method"] == "mustdrop" and counts[0] <= target
        assert abs(average - target) <= tolerance + 1e-6 or (nothing_may_leave and set(counts) == {counts[0]}), counts
        if case["method"] == "mustdrop" and not any(report.forced_merges):
            assert counts[0] >= target - 1e-6, "merging stops before the tokens fall below the budget"


ONE_PLACE_OVER = {
    "images": [[(20, 20), (20, 20)], [(20, 20)]],
    "image_size": 28,
    "method": "mustdrop",
    "scope": "request",
    "counter": "release",
    "newlines": "row",
    "budget": ("keep_ratio", 0.0546875),
    "merge_threshold": 0.4,
    "key_ratio": 0.0,
    "layers": None,
}
"""Two images share a budget of which one place is over, too little for a patch and the newline of its row."""


@settings(max_examples=25)
@given(cases)
@example(ONE_PLACE_OVER)
def test_averages_meet_the_budget_and_key_tokens_stay(workshop, case):
    check_budget(workshop, case)


@pytest.mark.slow
@settings(max_examples=150)
@given(cases)
def test_averages_meet_the_budget_and_key_tokens_stay_on_many_more_cases(workshop, case):
    check_budget(workshop, case)


def test_the_floor_that_an_error_names_is_reachable(workshop):
    inputs = workshop.inputs("one_image")
    options = {"method": "mustdrop", "layers": [1]}
    with pytest.raises(ValueError, match="visual_tokens") as caught:
        report_of(workshop.reduced({**options, "visual_tokens": 5}), inputs)
    floor = smallest_reachable(caught.value)
    with pytest.raises(ValueError, match="visual_tokens"):
        report_of(workshop.reduced({**options, "visual_tokens": floor - 0.01}), inputs)
    report = report_of(workshop.reduced({**options, "visual_tokens": floor + 0.01}), inputs)
    assert report.average_visual_tokens[0] == pytest.approx(floor, abs=0.5)


def test_a_ratio_that_can_t_be_reached_names_keep_ratio(workshop):
    model = workshop.reduced({"method": "mustdrop", "layers": [2], "keep_ratio": 0.01})
    with pytest.raises(ValueError, match=r"keep_ratio.*image.*counter='input'.*smallest reachable"):
        report_of(model, workshop.inputs("one_image"))


def test_merges_that_the_budget_forces_are_reported(workshop):
    inputs = workshop.inputs("ragged_batch")
    options = {"method": "mustdrop", "layers": [2], "merge_threshold": 1.1}
    full = report_of(workshop.reduced({**options, "keep_ratio": 1.0}), inputs).visual_tokens_per_layer[0]
    report = report_of(workshop.reduced({**options, "keep_ratio": 0.5}), inputs)
    assert all(count > 0 for count in report.forced_merges)
    for row, total in enumerate(full):
        assert abs(report.average_visual_tokens[row] - 0.5 * total) <= 0.5
        assert report.visual_tokens_per_layer[0][row] < total
    free = report_of(workshop.reduced({**options, "keep_ratio": 0.9}), inputs)
    assert free.forced_merges == [0, 0]
    assert free.visual_tokens_per_layer[0] == full


def test_forced_merges_take_the_most_similar_windows_and_no_more_than_needed(workshop):
    inputs = workshop.inputs("one_image")
    options = {"method": "mustdrop", "layers": [2], "merge_threshold": 1.1, "key_ratio": 0.0}
    report = report_of(workshop.reduced({**options, "visual_tokens": 55}), inputs)
    received = report.visual_tokens_per_layer[0][0]
    # three layers receive what merging left, one the single token that must stay
    assert (3 * received + 1) / 4 <= 55 < (3 * (received + 9) + 1) / 4


def test_more_windows_merge_where_key_tokens_have_to_be_paid_for(workshop):
    inputs = workshop.inputs("one_image")
    options = {"method": "mustdrop", "layers": [1], "merge_threshold": 1.1, "visual_tokens": 45, "text_ratio": 0.0}
    merges = [report_of(workshop.reduced({**options, "key_ratio": ratio}), inputs).forced_merges[0] for ratio in RATIOS]
    assert merges == sorted(merges)
    assert len(set(merges)) == len(RATIOS)


def test_merging_makes_room_for_the_places_that_the_text_decides(workshop):
    inputs = workshop.inputs("one_image")
    options = {"method": "mustdrop", "layers": [0], "merge_threshold": 1.1, "visual_tokens": 32, "key_ratio": 0.1}
    last = {}
    for ratio in (0.0, 1.0):
        report = report_of(workshop.reduced({**options, "text_ratio": ratio}), inputs)
        last[ratio] = list(report.counts.values())[-1][0]
    assert last[0.0]["tokens"] < 2 * last[0.0]["key_tokens"]
    assert last[1.0]["tokens"] >= 2 * last[1.0]["key_tokens"]


@torch.no_grad()
def test_each_window_is_decided_by_the_threshold_alone(workshop):
    model = workshop.reduced({"method": "mustdrop", "merge_threshold": 0.6, "global_threshold": 0.0})
    inputs = workshop.inputs("one_image")
    (tokens,) = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).visual_tokens
    states = workshop.stock().model.vision_tower(inputs["pixel_values"][0], output_hidden_states=True).hidden_states[1]
    for tile in range(3):
        for top, left in [(0, 0), (0, 3), (3, 0), (3, 3)]:
            here = (tokens.tile == tile) & ~tokens.newline
            here &= (tokens.row // 3 * 3 == top) & (tokens.column // 3 * 3 == left)
            members = states[tile, 1:][tokens.row[here] * 6 + tokens.column[here]]
            pairs = torch.nn.functional.cosine_similarity(members[:, None], members[None], dim=-1)
            count = len(members)
            mean = (pairs.sum() - count) / (count * (count - 1))
            assert int(tokens.present[here].sum()) == (1 if mean >= 0.6 else count)


@pytest.mark.parametrize("image_size", [28, 35])
@torch.no_grad()
def test_cells_outside_whole_windows_never_merge(workshop, image_size):
    model = workshop.reduced(
        {"method": "mustdrop", "merge_threshold": -1, "global_threshold": 0.0}, image_size=image_size
    )
    inputs = workshop.inputs("one_image", image_size=image_size)
    (tokens,) = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).visual_tokens
    outside = (tokens.row >= 3) | (tokens.column >= 3)
    assert bool(tokens.present[outside].all())
    windows = ~outside & ~tokens.newline
    assert int(tokens.present[windows].sum()) == len(tokens.tile[windows].unique())


@torch.no_grad()
def test_features_have_as_many_rows_as_placeholders_whatever_merges(workshop):
    for prompt in PROMPTS:
        inputs = workshop.inputs(prompt)
        if "pixel_values" not in inputs:
            continue
        stock = workshop.stock().get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output
        ours = workshop.reduced("threshold").get_image_features(inputs["pixel_values"], inputs["image_sizes"])
        assert [len(image) for image in ours.pooler_output] == [len(image) for image in stock]


@pytest.mark.parametrize("layers", [40, 12])
def test_deep_decoders_meet_plan_and_lengths(workshop, layers):
    model = workshop.reduced({"method": "mustdrop", "visual_tokens": 40}, layers=layers)
    inputs = workshop.inputs("one_image", layers=layers)
    report = report_of(model, inputs)
    expected = {40: [2, 7, 12, 17], 12: [0, 1, 3, 4]}[layers]
    assert list(report.kept) == ["before layer 0", *(f"after layer {layer}" for layer in expected)]
    received = [count[0] for count in report.visual_tokens_per_layer]
    changes = [layer for layer in range(layers - 1) if received[layer + 1] != received[layer]]
    assert changes == expected
    assert abs(sum(received) / layers - 40) < 1
    text = int((inputs["input_ids"] != 4).sum())
    assert report.kv_lengths == [text + received[0], text + received[1], *[text + received[-1]] * (layers - 2)]
    assert report.kv_bytes == sum(report.kv_lengths) * 256


@pytest.mark.parametrize("method", ["budget", "random"])
def test_the_release_counter_counts_after_the_drop(workshop, method):
    reduction = {**METHODS[method], "counter": "release"}
    report = report_of(workshop.reduced(reduction), workshop.inputs("one_image"))
    wanted = report.full_visual_tokens[0] * reduction["keep_ratio"]
    assert abs(report.average_visual_tokens_release[0] - wanted) < 1
    if method == "budget":
        assert report.average_visual_tokens[0] > wanted + 1


def test_several_images_share_a_request_s_budget(workshop):
    inputs = workshop.inputs("two_images")
    report = report_of(workshop.reduced({**METHODS["budget"], "scope": "request"}), inputs)
    wanted = report.full_visual_tokens[0] * METHODS["budget"]["keep_ratio"]
    assert abs(report.average_visual_tokens[0] - wanted) < 1

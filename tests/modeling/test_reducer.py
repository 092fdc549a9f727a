"""The protocol of stages: what is refused, and what methods of a few lines get and give at each place."""

from __future__ import annotations

import sys

import pytest
import torch
from cases import greedy
from fusion_architectures import ARCHITECTURES

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration
from lmms_tokendrop.catalogue import Method, registry
from lmms_tokendrop.modeling.core.fusion_plan import CountDependsOnData, plan
from lmms_tokendrop.modeling.core.fusion_tokens import FusionTokens
from lmms_tokendrop.modeling.core.reducer import Keep, Stage, TokenReducer
from lmms_tokendrop.modeling.core.transformers_compat import cache_of

PARTS = ("decoder", "fusion", "co_attention")
DECODER = "llava_next"
SIDE = 6
"""Patches in a row of the tiny decoder's tiles."""

MODELS = (DECODER, *ARCHITECTURES)
STAGES = {DECODER: Stage("decoder", 1), "vilt": Stage("fusion", 1), "meter": Stage("fusion", 1)}


@pytest.fixture
def build(workshop, fusion_checkpoint, monkeypatch):
    """Return ``build(architecture, *stages, **members)``: a model with a reducer of these stages and members."""
    ours = Method(name="ours", title="a test", reducers=dict.fromkeys(PARTS, f"{__name__}:Ours"))
    monkeypatch.setattr(registry, "_methods", {**{entry.name: entry for entry in registry.methods()}, "ours": ours})

    def make(architecture: str, *stages: Stage, **members):
        members = {"count": lambda self, stage, counts: None, **members, "stages": lambda self: stages}
        monkeypatch.setattr(sys.modules[__name__], "Ours", type("Ours", (TokenReducer,), members), raising=False)
        if architecture == DECODER:
            kind, folder = LlavaNextTokenDropForConditionalGeneration, workshop.checkpoint()
        else:
            kind, folder = ARCHITECTURES[architecture].question_answering, fusion_checkpoint(architecture)
        return kind.from_pretrained(folder, token_reduction={"method": "ours"}).eval()

    return make


@pytest.fixture
def inputs_of(workshop):
    """Return ``inputs_of(architecture, ragged=True)``: a batch with padding, or one row."""

    def make(architecture: str, ragged: bool = True) -> dict:
        if architecture == DECODER:
            return workshop.inputs("ragged_batch" if ragged else "one_image")
        return ARCHITECTURES[architecture].inputs("ragged" if ragged else "one")

    return make


def every_second(context) -> torch.Tensor:
    """What stays if every second visual token leaves, counted from 0: CLS is the first of its image."""
    visual = context.tokens.visual
    return context.valid & (~visual | ((visual.cumsum(-1) - 1) % 2 == 0))


def halve(self, stage, context) -> Keep:
    return Keep.of(every_second(context))


def whole(context) -> torch.Tensor:
    """The target of a decision in which everything stays."""
    return Keep.of(context.valid).target


@torch.no_grad()
def run(model, inputs: dict):
    return model(**inputs)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (lambda: Stage("prefil", 1), "place='prefil'; allowed: 'vision', 'features', 'decoder', 'fusion', 'decode'"),
        (
            lambda: Stage("decoder", 1, "before_block"),
            "point='before_block' in 'decoder'; allowed: 'before_ffn', 'after_block'",
        ),
        (lambda: Stage("decode", 1, "after_token", 0), "every at 'after_token'=0; allowed: a whole number from 1"),
        (lambda: Stage("decoder", 1, every=2), "every at 'before_ffn'=2; allowed: a whole number from 1 to 1"),
    ],
)
def test_a_stage_that_there_is_not_is_refused(stage, message):
    with pytest.raises(ValueError, match=f"Stage: {message}"):
        stage()


@pytest.mark.parametrize(
    ("architecture", "stages", "message"),
    [
        (DECODER, [Stage("decoder", 4)], "layer 4 can't act; allowed: 0 to 3"),
        (DECODER, [Stage("decode", 99)], "layer 99 can't act; allowed: 0 to 3"),
        (DECODER, [Stage("decoder")], "layer -1 can't act; allowed: 0 to 3"),
        (DECODER, [Stage("features", 1)], "layer 1 can't act; allowed: -1 to -1"),
        (DECODER, [Stage("fusion", 1)], "no such place; allowed: 'vision', 'features', 'decoder', 'decode'"),
        (DECODER, [Stage("decoder", 1), Stage("decoder", 1)], "two stages at one point; allowed: one"),
        (DECODER, [Stage("decoder", 1), Stage("decoder", 1, "after_block")], "two stages at one point; allowed: one"),
        ("vilt", [Stage("fusion", 4, "before_block")], "layer 4 can't act; allowed: 0 to 3"),
        ("vilt", [Stage("vision", 0)], "no such place; allowed: 'fusion'"),
        ("meter", [Stage("decoder", 0)], "no such place; allowed: 'fusion', 'vision'"),
        ("meter", [Stage("vision", 0), Stage("vision", 0)], "two stages at one point; allowed: one"),
    ],
)
def test_a_stage_that_the_model_can_t_run_is_refused_when_it_is_built(build, architecture, stages, message):
    with pytest.raises(ValueError, match=message):
        build(architecture, *stages)


@pytest.mark.parametrize("architecture", MODELS)
def test_what_a_method_needs_and_the_model_does_not_compute_is_refused_when_it_is_built(build, architecture):
    with pytest.raises(ValueError, match="Ours needs 'depth'; this model computes"):
        build(architecture, STAGES[architecture], needs=frozenset({"depth"}), keep=halve)


@pytest.mark.parametrize(
    ("architecture", "stage", "there"),
    [
        (DECODER, STAGES[DECODER], "attention_rows, best, keys, keys_by_head"),
        (
            DECODER,
            Stage("decoder", 1, "after_block"),
            "attention_rows, best, keys, keys_by_head, next_attention_rows, normed_states",
        ),
        (DECODER, Stage("decoder", 3, "after_block"), "attention_rows, best, keys, keys_by_head, normed_states"),
        ("vilt", STAGES["vilt"], "attention_rows, best, keys, queries"),
    ],
)
def test_absent_data_is_named_with_what_there_is(build, inputs_of, architecture, stage, there):
    model = build(architecture, stage, keep=lambda self, stage, context: context.cls_attention())
    with pytest.raises(ValueError, match=f"cls_attention is not provided .*; provided: {there}$"):
        run(model, inputs_of(architecture))


@pytest.mark.parametrize(
    ("architecture", "kind"), [(DECODER, r"\[3, 3\] visual tokens"), ("vilt", r"\[3, 3, 3\] image tokens")]
)
def test_a_stage_that_leaves_another_count_than_it_states_is_an_error(build, inputs_of, architecture, kind):
    def count(self, stage, counts):
        if architecture == DECODER:
            return torch.full_like(counts.full, 3)
        return counts.text, torch.full_like(counts.image, 3)

    keep_all = {"keep": lambda self, stage, context: Keep.of(context.valid), "count": count}
    with pytest.raises(RuntimeError, match=f"layer 1 was to leave {kind} of its batch and left"):
        run(build(architecture, STAGES[architecture], **keep_all), inputs_of(architecture))


def test_a_method_that_states_no_count_runs_and_has_no_plan(build, inputs_of):
    model = build("vilt", STAGES["vilt"], keep=halve)
    run(model, inputs_of("vilt"))
    with pytest.raises(CountDependsOnData, match=r"Ours: what Stage\(.*\) leaves depends on the data"):
        plan(model.vilt.token_reducer, 12, 65, 4)


def drops_text(context) -> Keep:
    return Keep.of(context.tokens.visual)


def empties_images(context) -> Keep:
    return Keep.of(context.valid & ~context.tokens.visual)


def merges_into_what_leaves(context) -> Keep:
    places = context.tokens.visual[0].nonzero().flatten()
    target = whole(context).clone()
    target[0, places[-1]], target[0, places[-2]] = places[-2], -1
    return Keep.merged(target)


def merges_image_into_text(context) -> Keep:
    visual = context.tokens.visual
    text, image = (marks[0].nonzero().flatten() for marks in (context.valid & ~visual, visual))
    target = whole(context).clone()
    target[0, image[-1]] = text[-1]
    return Keep.merged(target)


def merges_padding(context) -> Keep:
    row, padding = (~context.valid).nonzero()[0].tolist()
    target = whole(context).clone()
    target[row, padding] = context.tokens.visual[row].nonzero()[-1]
    return Keep.merged(target)


def adds_in_place_of_text(context) -> Keep:
    text = (context.valid & ~context.tokens.visual).long().argmax(-1, keepdim=True)
    return Keep.of(context.valid, added=(text, context.hidden_states[:, :1]))


def mixes_in_place_of_text(context) -> Keep:
    places, _ = adds_in_place_of_text(context).added
    return Keep.of(context.valid, mixed=(places, context.valid.unsqueeze(1).float()))


WRONG = {
    drops_text: "to drop text|to move the text's CLS",
    empties_images: "to drop every token of an image",
    merges_into_what_leaves: "to merge into a token that leaves",
    merges_image_into_text: "to merge text with image",
    merges_padding: "to let padding take part",
    adds_in_place_of_text: "to add a token at the place of text",
    mixes_in_place_of_text: "to add a token at the place of text",
}


@pytest.mark.parametrize("decision", WRONG, ids=lambda decision: decision.__name__)
@pytest.mark.parametrize("architecture", MODELS)
def test_a_decision_that_breaks_the_rules_is_an_error(build, inputs_of, architecture, decision):
    members = {"keep": lambda self, stage, context: decision(context), "adds": True}
    model = build(architecture, STAGES[architecture], **members)
    with pytest.raises(RuntimeError, match=f"A stage tried {WRONG[decision]}"):
        run(model, inputs_of(architecture))


@pytest.mark.parametrize("decision", [adds_in_place_of_text, mixes_in_place_of_text])
@pytest.mark.parametrize("architecture", MODELS)
def test_a_method_that_adds_tokens_says_so(build, inputs_of, architecture, decision):
    model = build(architecture, STAGES[architecture], keep=lambda self, stage, context: decision(context))
    with pytest.raises(RuntimeError, match="its method does not say that it `adds`"):
        run(model, inputs_of(architecture))


def zombies(self, stage, context) -> Keep:
    return halve(self, stage, context) if stage.place == "vision" else Keep.of(context.valid)


def test_what_the_tower_left_out_can_t_come_back_before_the_decoder(build, inputs_of):
    model = build(DECODER, Stage("vision", 1, "after_block"), Stage("features"), keep=zombies)
    with pytest.raises(RuntimeError, match="A stage tried to keep tokens that the vision tower left out"):
        run(model, inputs_of(DECODER))


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (lambda context: Keep.of(context.tokens.visual), "to drop text from the cache"),
        (lambda context: Keep.merged(whole(context).roll(1, -1)), "to merge or add tokens in the cache"),
    ],
)
@pytest.mark.parametrize("point", ["after_prefill", "after_token"])
def test_a_cache_keeps_its_text_and_merges_nothing(build, inputs_of, point, decision, message):
    model = build(DECODER, Stage("decode", 1, point), keep=lambda self, stage, context: decision(context))
    with pytest.raises(RuntimeError, match=f"A stage tried {message}"):
        greedy(model, inputs_of(DECODER, ragged=False))


ADDED = {
    "decoder": (DECODER, Stage("features"), "model.language_model.layers.0"),
    "layer": (DECODER, Stage("decoder", 1, "after_block"), "model.language_model.layers.2"),
    "tower": (DECODER, Stage("vision", 0, "after_block"), "model.vision_tower.encoder.layers.1"),
    "fusion": ("vilt", Stage("fusion", 1, "before_block"), "vilt.encoder.layer.1"),
}


@pytest.mark.parametrize("case", ADDED)
def test_added_tokens_stand_in_their_slots(build, inputs_of, case):
    """Of the tokens that stay the last visual one gets a new state; nothing else changes."""
    architecture, stage, layer = ADDED[case]
    seen = {}

    def keep(self, stage, context):
        stays = every_second(context)
        place = (stays & context.tokens.visual).cumsum(-1).argmax(-1, keepdim=True)
        new = torch.full_like(context.hidden_states[:, :1], 0.25)
        seen["expected"] = context.hidden_states.scatter(1, place.unsqueeze(-1).expand_as(new), new)[stays]
        return Keep.of(stays, added=(place, new))

    model = build(architecture, stage, keep=keep, adds=True)
    model.get_submodule(layer).register_forward_pre_hook(lambda module, given: seen.update(received=given[0]))
    run(model, inputs_of(architecture, ragged=False))
    received = seen["received"].flatten(0, 1)
    assert (seen["expected"] == 0.25).all(-1).any()
    assert torch.equal(received, seen["expected"])


@pytest.mark.parametrize("case", ADDED)
def test_mixed_tokens_are_sums_of_what_was_there(build, inputs_of, case):
    """Of the tokens that stay the first visual one becomes the mean of all that there were, and twice itself."""
    architecture, stage, layer = ADDED[case]
    seen = {}

    def keep(self, stage, context):
        stays, states = every_second(context), context.hidden_states
        place = (stays & context.tokens.visual).long().argmax(-1, keepdim=True)
        weights = context.valid / context.valid.sum(-1, keepdim=True) + 2 * (torch.arange(states.shape[1]) == place)
        new = states.mean(1, keepdim=True) + 2 * states.gather(1, place.unsqueeze(-1).expand(-1, -1, states.shape[2]))
        seen["expected"] = states.scatter(1, place.unsqueeze(-1).expand_as(new), new)[stays]
        return Keep.of(stays, mixed=(place, weights.unsqueeze(1)))

    model = build(architecture, stage, keep=keep, adds=True)
    model.get_submodule(layer).register_forward_pre_hook(lambda module, given: seen.update(received=given[0]))
    run(model, inputs_of(architecture, ragged=False))
    torch.testing.assert_close(seen["received"].flatten(0, 1), seen["expected"])


def test_a_token_added_in_a_decoder_layer_goes_through_its_mlp(build, inputs_of):
    seen = {}

    def keep(self, stage, context):
        stays = every_second(context)
        place = (stays & context.tokens.visual).long().argmax(-1, keepdim=True)
        seen["slot"] = int(stays[0, : place[0]].sum())
        seen["new"] = torch.full_like(context.hidden_states[:, :1], 0.25)
        return Keep.of(stays, added=(place, seen["new"]))

    model = build(DECODER, Stage("decoder", 1), keep=keep, adds=True)
    layers = model.model.language_model.layers
    layers[2].register_forward_pre_hook(lambda module, given: seen.update(received=given[0]))
    run(model, inputs_of(DECODER, ragged=False))
    new = seen["new"]
    expected = new + layers[1].mlp(layers[1].post_attention_layernorm(new))
    torch.testing.assert_close(seen["received"][:, seen["slot"] : seen["slot"] + 1], expected)


@torch.no_grad()
def test_behind_a_decoder_layer_a_stage_reads_what_it_gave_and_what_the_next_one_would_attend(workshop, build):
    seen = {}

    def keep(self, stage, context):
        seen.update(states=context.hidden_states, now=context.attention_rows(context.text_rows))
        seen.update(rows=context.text_rows, next=context.next_attention_rows(context.text_rows))
        return Keep.of(every_second(context))

    inputs = workshop.inputs("ragged_batch")
    stock = workshop.stock(attention="eager")(**inputs, output_hidden_states=True, output_attentions=True)
    output = build(DECODER, Stage("decoder", 1, "after_block"), keep=keep)(**inputs, use_cache=True)
    valid = inputs["attention_mask"].bool()
    torch.testing.assert_close(seen["states"][valid], stock.hidden_states[2][valid], rtol=1e-5, atol=1e-5)
    for name, layer in (("now", 1), ("next", 2)):
        for row, marks in enumerate(seen["rows"]):
            wanted = stock.attentions[layer][row][:, marks]
            torch.testing.assert_close(seen[name][row][:, -wanted.shape[1] :], wanted, rtol=1e-5, atol=1e-6)
    before, _, after, last = cache_of(output).report().visual_tokens_per_layer
    assert after == last == [(count + 1) // 2 for count in before]


@torch.no_grad()
def test_a_drop_is_the_same_in_front_of_the_mlp_and_behind_it(workshop, build):
    inputs = workshop.inputs("ragged_batch")
    outputs = [
        greedy(build(DECODER, Stage("decoder", 1, point), keep=halve), inputs)
        for point in ("before_ffn", "after_block")
    ]
    first, second = (torch.stack(output.logits) for output in outputs)
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
    assert cache_of(outputs[0]).report().kept == cache_of(outputs[1]).report().kept


CARRIED = {
    "decoder": (DECODER, Stage("features"), Stage("decoder", 2)),
    "tower": (DECODER, Stage("vision", 0), Stage("vision", 2, "after_block")),
    "vilt": ("vilt", Stage("fusion", 0), Stage("fusion", 2, "before_block")),
    "meter": ("meter", Stage("fusion", 0), Stage("fusion", 2)),
}


@pytest.mark.parametrize("case", CARRIED)
def test_carried_values_reach_the_next_stage(build, inputs_of, case):
    """The first stage hands on which token each one is, and half of them leave; the next one knows it again."""
    architecture, first, second = CARRIED[case]
    checked = []

    def identity(tokens):
        return tokens.place if isinstance(tokens, FusionTokens) else tokens.row * SIDE + tokens.column

    def keep(self, stage, context):
        if stage == first:
            return Keep.of(every_second(context), carry={"identity": identity(context.tokens)})
        visual = context.tokens.visual
        checked.append(int(visual.sum()))
        assert torch.equal(context.carry["identity"][visual], identity(context.tokens)[visual])
        return Keep.of(context.valid)

    run(build(architecture, first, second, keep=keep), inputs_of(architecture))
    assert len(checked) == 1
    assert checked[0] > 0


def test_what_the_tower_carries_reaches_the_decoder(build, inputs_of):
    def keep(self, stage, context):
        if stage.place == "vision":
            return Keep.of(every_second(context), carry={"cell": context.tokens.place})
        tokens = context.tokens
        patches = tokens.visual & tokens.present & ~tokens.newline
        assert patches.any()
        assert torch.equal(tokens.carry["cell"][patches], 1 + tokens.row[patches] * SIDE + tokens.column[patches])
        return Keep.of(context.valid & (tokens.present | ~tokens.visual))

    run(build(DECODER, Stage("vision", 1, "after_block"), Stage("features"), keep=keep), inputs_of(DECODER))


def test_what_the_tower_left_out_leaves_without_a_stage_before_the_decoder(build, inputs_of):
    """Patches that leave behind the last block that is read leave as if they had before the decoder."""

    def even(cells):
        return cells % 2 == 0

    def in_tower(self, stage, context):
        place = context.tokens.place
        return Keep.of((place == 0) | even(place - 1))

    def before_decoder(self, stage, context):
        tokens = context.tokens
        patches = tokens.visual & ~tokens.newline & even(tokens.row * SIDE + tokens.column)
        return Keep.of((context.valid & ~tokens.visual) | patches)

    inputs = inputs_of(DECODER)
    tower = build(DECODER, Stage("vision", 2, "after_block"), keep=in_tower)
    depth = tower.config.vision_config.num_hidden_layers
    assert tower.config.vision_feature_layer + depth == 2
    early = run(tower, inputs)
    late = run(build(DECODER, Stage("features"), keep=before_decoder), inputs)
    assert early.logits.shape[1] < inputs["input_ids"].shape[1]
    assert torch.equal(cache_of(early).left, cache_of(late).left)
    torch.testing.assert_close(early.logits, late.logits)


def test_each_layer_of_the_cache_is_asked_after_prefill(build, inputs_of):
    """Layers hold the same until a method says otherwise, layer by layer."""

    def keep(self, stage, context):
        held = context.tokens.visual.cumsum(-1) <= 4 * (stage.layer + 1)
        return Keep.of(context.valid & (~context.tokens.visual | held))

    inputs = inputs_of(DECODER, ragged=False)
    model = build(DECODER, Stage("decode", 1), Stage("decode", 3), keep=keep)
    cache = cache_of(run(model, inputs))
    length = inputs["input_ids"].shape[1]
    text = length - int((inputs["input_ids"] == model.config.image_token_id).sum())
    assert [layer.get_seq_length() for layer in cache.layers] == [length, text + 8, length, text + 16]


def test_layers_of_the_cache_are_asked_after_every_so_many_tokens(build, inputs_of):
    asked = []

    def keep(self, stage, context):
        seen = context.provided("attention_so_far").masked_fill(~context.tokens.visual, float("inf"))
        asked.append((stage.layer, float(context.provided("attention_so_far").sum())))
        least = torch.zeros_like(context.valid).scatter(1, seen.argmin(-1, keepdim=True), True)
        return Keep.of(context.valid & ~least)

    stages = Stage("decode", 0, "after_token", 2), Stage("decode", 2, "after_token", 3)
    inputs = inputs_of(DECODER, ragged=False)
    cache = cache_of(greedy(build(DECODER, *stages, keep=keep), inputs, steps=7))
    length = inputs["input_ids"].shape[1] + 6
    assert [layer for layer, _ in asked] == [0, 2, 0, 0, 2]
    assert [layer.get_seq_length() for layer in cache.layers] == [length - 3, length, length - 2, length]
    assert asked[0][1] == pytest.approx(2)

"""Rotary positions, masks and inputs of the staged decoder."""

from __future__ import annotations

import copy

import pytest
import torch
from cases import METHODS, PROMPTS, REDUCING, greedy, largest_difference
from tiny_models import TEXT_BACKBONES
from transformers.models.llama.modeling_llama import rotate_half

from lmms_tokendrop import StagedCache
from lmms_tokendrop.modeling.core.transformers_compat import cache_of

WITH_IMAGES = tuple(name for name in PROMPTS if name != "text_only")


class RotarySpy:
    """Notes, per decoder layer and call, the cosine that the layer is given."""

    def __init__(self, model, monkeypatch):
        self.calls: list[list[torch.Tensor]] = []
        decoder = model.model.language_model
        for number, layer in enumerate(decoder.layers):
            monkeypatch.setitem(vars(layer), "forward", self._watch(number, layer.forward))
        steps = decoder.rotary_emb(torch.zeros(1, 1, 1), position_ids=torch.arange(400).unsqueeze(0))
        self.table = torch.cat(steps, dim=-1)[0]

    def _watch(self, number, forward):
        def run(*args, position_embeddings, **kwargs):
            if number == 0:
                self.calls.append([])
            self.calls[-1].append(torch.cat(position_embeddings, dim=-1))
            return forward(*args, position_embeddings=position_embeddings, **kwargs)

        return run

    def positions(self, call: int, layer: int) -> torch.Tensor:
        """`[batch, length]`, positions that a layer was given."""
        given = self.calls[call][layer]
        distance = (given.unsqueeze(2) - self.table).abs().amax(-1)
        assert distance.amin(-1).max() == 0
        return distance.argmin(-1)


@pytest.mark.parametrize("method", REDUCING)
@pytest.mark.parametrize("text", TEXT_BACKBONES)
def test_the_next_token_is_one_position_after_the_last_of_the_prompt_in_every_layer(
    workshop, monkeypatch, text, method
):
    model, inputs = workshop.reduced(method, text), workshop.inputs("ragged_batch")
    spy = RotarySpy(model, monkeypatch)
    greedy(model, inputs, steps=3)
    lengths = inputs["attention_mask"].sum(-1)
    for layer in range(4):
        assert spy.positions(0, layer)[:, -1].tolist() == [int(length) - 1 for length in lengths]
        for generated in (1, 2):
            assert spy.positions(generated, layer)[:, -1].tolist() == [
                int(length) - 1 + generated for length in lengths
            ]


@pytest.mark.parametrize("prompt", WITH_IMAGES)
@pytest.mark.parametrize("method", REDUCING)
def test_survivors_keep_the_positions_of_the_unreduced_sequence(workshop, monkeypatch, method, prompt):
    model, inputs = workshop.reduced(method), workshop.inputs(prompt)
    spy = RotarySpy(model, monkeypatch)
    output = greedy(model, inputs, steps=1)
    unreduced = (inputs["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    stages = {record.name: record.index for record in cache_of(output).records}
    index = torch.arange(unreduced.shape[1]).masked_fill(inputs["attention_mask"] == 0, -1)
    for layer in range(4):
        index = stages.get("before layer 0" if layer == 0 else f"after layer {layer - 1}", index)
        positions = spy.positions(0, layer).expand(len(index), -1)
        for row in range(len(index)):
            real = index[row] >= 0
            assert positions[row][real].tolist() == unreduced[row][index[row][real]].tolist()


@torch.no_grad()
def test_cached_keys_of_layer_zero_are_the_unreduced_models(workshop):
    """Keys are rotated before they are cached: equal keys mean equal positions."""
    model, inputs = workshop.reduced("random"), workshop.inputs("ragged_batch")
    reduced = cache_of(model(**inputs, use_cache=True)).layers[0]
    full = cache_of(workshop.reduced("none")(**inputs, use_cache=True)).layers[0]
    for row in range(2):
        index = reduced.entries.place[row]
        real = index >= 0
        assert largest_difference(reduced.keys[row][:, real], full.keys[row][:, index[real]]) <= 1e-5


@torch.no_grad()
def test_the_last_cached_key_is_rotated_by_the_position_before_the_next_token(workshop):
    """Undo the rotation of the last prompt key in every layer, from the key projection of the layer's input."""
    model, inputs = workshop.reduced("budget"), workshop.inputs("one_image")
    decoder = model.model.language_model
    received = {}
    hooks = [
        layer.register_forward_pre_hook(lambda module, args, number=number: received.update({number: args[0]}))
        for number, layer in enumerate(decoder.layers)
    ]
    cache = cache_of(model(**inputs, use_cache=True))
    for hook in hooks:
        hook.remove()
    length = inputs["input_ids"].shape[1]
    cosine, sine = decoder.rotary_emb(received[0], position_ids=torch.tensor([[length - 1]]))
    for number, layer in enumerate(decoder.layers):
        states = layer.input_layernorm(received[number][:, -1:])
        plain = layer.self_attn.k_proj(states).view(1, 1, 4, -1).transpose(1, 2)
        rotated = plain * cosine.unsqueeze(1) + rotate_half(plain) * sine.unsqueeze(1)
        assert largest_difference(cache.layers[number].keys[:, :, -1:], rotated) <= 1e-5


def test_compact_positions_differ_and_count_what_the_layer_holds(workshop, monkeypatch):
    model = workshop.reduced({**METHODS["budget"], "position_mode": "compact"})
    inputs = workshop.inputs("one_image")
    spy = RotarySpy(model, monkeypatch)
    output = greedy(model, inputs, steps=2)
    received = [len(record.index[0]) for record in cache_of(output).records]
    for layer in range(4):
        assert spy.positions(0, layer)[0].tolist() == list(range(received[layer]))
        assert spy.positions(1, layer)[0].tolist() == [received[3]]


@torch.no_grad()
def test_no_position_ids_reach_the_layers(workshop, monkeypatch):
    """Kept positions have holes, which attention backends would take for packed sequences."""
    model, inputs = workshop.reduced("budget"), workshop.inputs("one_image")
    given = []
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        monkeypatch.setitem(
            vars(attention),
            "forward",
            lambda *args, forward=attention.forward, **kwargs: given.append(kwargs) or forward(*args, **kwargs),
        )
    greedy(model, inputs, steps=2)
    assert len(given) == 8
    assert all(options.get("position_ids") is None for options in given)


@torch.no_grad()
def test_the_decoder_alone_equals_the_stock_decoder(workshop):
    embeds = torch.randn(2, 12, 64)
    ours = workshop.reduced("budget").model.language_model(inputs_embeds=embeds)
    stock = workshop.stock().model.language_model(inputs_embeds=embeds)
    assert torch.equal(ours.last_hidden_state, stock.last_hidden_state)
    assert cache_of(ours) is None or isinstance(cache_of(ours), StagedCache)


class TestErrors:
    def test_padding_on_the_right(self, workshop):
        inputs = workshop.inputs("ragged_batch")
        with pytest.raises(ValueError, match=r"attention_mask.*right"):
            workshop.reduced("budget")(**{**inputs, "attention_mask": inputs["attention_mask"].flip(-1)})

    def test_a_mask_of_another_length(self, workshop):
        inputs = workshop.inputs("one_image")
        with pytest.raises(ValueError, match="attention_mask"):
            workshop.reduced("budget")(**{**inputs, "attention_mask": inputs["attention_mask"][:, :-3]})

    def test_a_four_dimensional_mask(self, workshop):
        inputs = workshop.inputs("one_image")
        length = inputs["input_ids"].shape[1]
        mask = torch.ones(1, 1, length, length, dtype=torch.bool)
        with pytest.raises(ValueError, match="attention_mask"):
            workshop.reduced("budget")(**{**inputs, "attention_mask": mask})

    def test_a_prompt_that_ends_in_an_image(self, workshop):
        inputs = workshop.inputs([("USER: <image>", [(60, 40)])])
        with pytest.raises(ValueError, match="prompt must not end in an image"):
            workshop.reduced("budget")(**inputs)

    def test_a_prompt_that_ends_in_an_image_is_fine_where_text_is_not_read(self, workshop):
        inputs = workshop.inputs([("USER: <image>", [(60, 40)])])
        assert workshop.reduced("random")(**inputs).logits.shape[1] < inputs["input_ids"].shape[1]

    def test_one_row_of_a_batch_that_ends_in_an_image(self, workshop):
        inputs = workshop.inputs([("USER: <image>", [(60, 40)]), PROMPTS["one_image"][0]])
        with pytest.raises(ValueError, match="prompt must not end in an image"):
            workshop.reduced("budget")(**inputs)

    @pytest.mark.parametrize("method", REDUCING)
    def test_training_through_a_drop(self, workshop, method):
        model = workshop.reduced(method)
        try:
            model.train()
            with pytest.raises(RuntimeError, match="gradient"):
                model(**workshop.inputs("one_image"))
        finally:
            model.eval()

    def test_training_without_a_drop_works(self, workshop):
        model = copy.deepcopy(workshop.reduced("none")).train()
        batch = workshop.inputs("one_image")
        model(**batch, labels=batch["input_ids"].masked_fill(batch["input_ids"] == 4, -100)).loss.backward()
        assert all(parameter.grad is not None for parameter in model.model.language_model.layers.parameters())

    def test_labels_with_a_drop(self, workshop):
        inputs = workshop.inputs("one_image")
        with pytest.raises(ValueError, match="labels"):
            workshop.reduced("budget")(**inputs, labels=inputs["input_ids"])

    @pytest.mark.parametrize("text", ["mistral", "qwen2"])
    def test_a_sliding_window_shorter_than_the_prompt(self, workshop, text):
        options = {"sliding_window": 50}
        if text == "qwen2":
            options |= {"use_sliding_window": True, "max_window_layers": 0}
        model = workshop.reduced("budget", text, **options)
        with pytest.raises(ValueError, match="sliding_window=50"):
            greedy(model, workshop.inputs("one_image"))

    def test_an_inactive_sliding_window_is_fine(self, workshop):
        model = workshop.reduced("budget", "qwen2", sliding_window=50, use_sliding_window=False)
        assert greedy(model, workshop.inputs("one_image")).sequences.shape[1] > 50

    def test_a_sliding_window_longer_than_the_sequence_is_fine(self, workshop):
        inputs = workshop.inputs("one_image")
        model = workshop.reduced("none", "mistral", sliding_window=200)
        expected = greedy(workshop.stock("mistral", sliding_window=200), inputs)
        assert torch.equal(greedy(model, inputs).sequences, expected.sequences)


def test_the_mlp_of_a_layer_after_which_tokens_leave_runs_on_what_stays(workshop, monkeypatch):
    model = workshop.reduced("budget")
    seen = []
    for layer in model.model.language_model.layers:
        monkeypatch.setattr(
            layer.mlp, "forward", lambda states, run=layer.mlp.forward: seen.append(states.shape[1]) or run(states)
        )
    output = greedy(model, workshop.inputs("one_image"), 1)
    lengths = {record.name: record.index.shape[1] for record in cache_of(output).records}
    assert seen[:3] == [lengths[f"after layer {number}"] for number in range(3)]
    assert seen[0] < lengths["before layer 0"]


def test_staged_layers_are_not_split_over_devices(workshop):
    assert "StagedLlamaDecoderLayer" in workshop.reduced("none")._no_split_modules


@pytest.mark.parametrize(("newlines", "kept"), [("row", 3), ("drop", 2)])
def test_a_budget_is_a_share_of_what_the_mask_shows_of_an_image(workshop, newlines, kept):
    inputs = workshop.inputs("one_image")
    image = (inputs["input_ids"][0] == workshop.stock().config.image_token_id).nonzero().flatten()
    inputs["attention_mask"][:, : image[-6]] = 0  # six are left, and the last of them is a newline
    model = workshop.reduced({"method": "random", "keep_ratio": 0.5, "newlines": newlines})
    report = cache_of(greedy(model, inputs, steps=1)).report()
    assert report.visual_tokens_per_layer == [[kept]] * 4

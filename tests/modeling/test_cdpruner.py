"""CDPruner: which tokens stay, against determinants of a kernel of stock CLIP; the question; what is refused."""

from __future__ import annotations

import pytest
import torch
from cases import METHODS, greedy
from keyed_weights import with_clip
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPModel, CLIPVisionModel

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration, TokenReductionConfig
from lmms_tokendrop.modeling.core.reducer import Host
from lmms_tokendrop.modeling.core.transformers_compat import cache_argument, cache_of

LONG = "is there a circle above the yellow square ? " * 3


def prompt(question: str, sizes=((60, 40),)) -> list:
    return [("USER: " + "<image>\n" * len(sizes) + question + " ASSISTANT:", list(sizes))]


@pytest.fixture
def kept(workshop):
    """Return `run(prompts, **options)`: the model's inputs, and the places of each row that stay."""

    def run(prompts, **options):
        inputs = workshop.inputs(prompts)
        model = workshop.reduced({**METHODS["cdpruner"], **options})
        report = cache_of(model(**inputs, use_cache=True)).report()
        return inputs, [set(map(tuple, row)) for row in report.kept["before layer 0"]]

    return run


def relevance(workshop, inputs, question: str) -> torch.Tensor:
    """Minus the mean cosine of patches and segments of 16 tokens, `[tiles, patches]`, by stock classes."""
    folder = workshop.checkpoint()
    clip = CLIPModel.from_pretrained(with_clip(METHODS["cdpruner"], folder)["clip"])
    ids = AutoTokenizer.from_pretrained(folder)(question, return_tensors="pt").input_ids
    parts = [clip.text_projection(clip.text_model(segment).pooler_output) for segment in ids.split(16, dim=1)]
    tower: CLIPVisionModel = workshop.stock().model.vision_tower
    states = tower(inputs["pixel_values"].flatten(0, 1), output_hidden_states=True).hidden_states[-2][:, 1:]
    patches = clip.visual_projection(clip.vision_model.post_layernorm(states))
    return -(normalize(patches, dim=-1) @ normalize(torch.cat(parts), dim=-1).T).mean(-1)


def likeliest(kernel: torch.Tensor, count: int) -> list[int]:
    """Places, each the one with which the determinant of the chosen part of the kernel is largest."""
    chosen: list[int] = []
    while len(chosen) < count:
        free = [place for place in range(len(kernel)) if place not in chosen]
        parts = torch.stack([kernel[[*chosen, place]][:, [*chosen, place]] for place in free])
        chosen.append(free[int(torch.linalg.det(parts).argmax())])
    return chosen


@pytest.mark.parametrize("question", ["what colour is the square ?", LONG], ids=["short", "several segments"])
@torch.no_grad()
def test_the_likeliest_subset_given_the_question_stays(workshop, kept, question):
    inputs, [found] = kept(prompt(question), keep_ratio=None, visual_tokens=7)
    plain = workshop.reduced("none").model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    [tokens], [rows] = plain.visual_tokens, plain.pooler_output
    patches = ~tokens.newline
    fit = relevance(workshop, inputs, question + " ASSISTANT:")[tokens.tile, tokens.row * 6 + tokens.column % 6]
    fit = fit[patches].double()
    fit = (fit - fit.min() + 1e-6) / (fit.max() - fit.min())
    states = normalize(rows[patches].double(), dim=-1)
    chosen = likeliest(fit[:, None] * (states @ states.T) * fit, 7)
    places = torch.stack([tokens.tile, tokens.row, tokens.column], dim=-1)[patches].tolist()
    assert {place[1:] for place in found} == {tuple(places[number]) for number in chosen}


def test_another_question_keeps_other_tokens_and_the_text_before_the_image_says_nothing(kept):
    sizes = ((60, 40), (37, 101))
    _, [first] = kept(prompt("what colour is the square ?", sizes))
    _, [second] = kept(prompt(LONG, sizes))
    [(text, _)] = prompt("what colour is the square ?", sizes)
    _, [behind] = kept([(f"A chat . {text}", list(sizes))])
    assert len(first) == len(second)
    assert first != second
    assert first == behind


def test_an_answer_behind_the_prompt_is_no_part_of_the_question(workshop, kept):
    inputs, [expected] = kept(prompt("yes or no ?"))
    length = inputs["input_ids"].shape[1]
    longer = {name: torch.cat([inputs[name], inputs[name][:, -3:]], dim=1) for name in ("input_ids", "attention_mask")}
    model = workshop.reduced("cdpruner")
    report = cache_of(model(**{**inputs, **longer}, prompt_length=length, use_cache=True)).report()
    assert set(map(tuple, report.kept["before layer 0"][0])) == expected


def test_a_second_turn_is_asked_by_its_own_text(workshop, kept):
    inputs, [expected] = kept(prompt("yes or no ?"))
    model = workshop.reduced("cdpruner")
    first = greedy(model, workshop.inputs(prompt(LONG, ((30, 90),))), 2)
    ids = torch.cat([first.sequences, inputs["input_ids"]], dim=1)
    turn = {name: inputs[name] for name in ("pixel_values", "image_sizes")}
    again = greedy(
        model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), **turn}, 1, **cache_argument(cache_of(first))
    )
    assert {place[1:] for place in cache_of(again).report().kept["before layer 0"][0]} >= {
        place[1:] for place in expected
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "method 'cdpruner' needs clip, such as clip='openai/clip-vit-large-patch14-336'"),
        ({"clip": 3}, "clip=3; allowed: a name"),
    ],
)
def test_without_a_clip_there_is_no_method(options, message):
    with pytest.raises(ValueError, match=f"^token_reduction: {message}"):
        TokenReductionConfig.from_dict({"method": "cdpruner", **options})


def test_what_reads_no_question_is_refused(workshop):
    model, inputs = workshop.reduced("cdpruner"), workshop.inputs("one_image")
    with pytest.raises(ValueError, match="questions of None images; method='cdpruner' reads one for each of 1"):
        model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    embedded = {**inputs, "inputs_embeds": model.get_input_embeddings()(inputs["input_ids"])}
    embedded.pop("input_ids")
    with pytest.raises(ValueError, match="questions of None images"):
        model(**embedded)
    with pytest.raises(ValueError, match="cdpruner rates images by the text that follows them"):
        model(**workshop.inputs([("yes or no ? <image>", [(60, 40)])]))


def test_the_clip_is_the_tower_s_and_the_tokenizer_somewhere(workshop):
    folder = workshop.checkpoint()
    options = with_clip(METHODS["cdpruner"], folder)
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(folder, token_reduction=options)
    model.model.token_reducer.questions._model.visual_projection = torch.nn.Linear(48, 16)
    with pytest.raises(ValueError, match=r"clip=.* projects 48 channels, and the vision tower has 64"):
        model(**workshop.inputs("one_image"))
    model.config.name_or_path = ""
    unnamed = LlavaNextTokenDropForConditionalGeneration(model.config).eval()
    with pytest.raises(ValueError, match="token_reduction: tokenizer: cdpruner decodes the question"):
        unnamed(**workshop.inputs("one_image"))


def test_in_a_composition_it_chooses_behind_the_tower():
    options = TokenReductionConfig.from_dict({"features": "cdpruner", "decoder": "fastv", "cdpruner.clip": "x"})
    reducer = TokenReductionConfig.build(options, Host(8, 32, 42, vision_layers=4, feature_block=2))
    assert [stage.place for stage in reducer.stages()] == ["vision", "features", "decoder"]
    options = TokenReductionConfig.from_dict({"vision": "cdpruner", "features": "divprune", "cdpruner.clip": "x"})
    with pytest.raises(ValueError, match="vision='cdpruner' only rates; allowed: features='cdpruner'"):
        TokenReductionConfig.build(options, Host(8, 32, 42, vision_layers=4, feature_block=2))

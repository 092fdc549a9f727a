"""Scoring candidates from one prefilled cache, and the costs of a batch."""

import pytest
import torch
from fewer_tokens import FEWER_TOKENS
from sizes import one_fast
from tiny_models import tiny_image

from lmms_tokendrop.evaluation.accounting import decoder_macs
from lmms_tokendrop.evaluation.arguments import LoadOptions, parse_model_args
from lmms_tokendrop.evaluation.engine import Engine
from lmms_tokendrop.evaluation.generation import GenerationSettings
from lmms_tokendrop.evaluation.loading import load_model, resolve_dtype
from lmms_tokendrop.evaluation.prompts import Prompt, chat_prompt
from lmms_tokendrop.evaluation.scoring import score_candidates
from lmms_tokendrop.modeling.core.staged_cache import StagedCache

METHODS = ("mustdrop", "none", "random", "vision_tome", "fastv", "visionzip", "area_pooling", "sparsevlm")
REDUCTIONS = {method: parse_model_args(FEWER_TOKENS[method], method=method, pretrained="any")[1] for method in METHODS}
"""One method for each place that tokens leave or join at."""

GREEDY = {"do_sample": False}


@pytest.fixture(scope="module")
def engines(tiny_checkpoint) -> dict[str, Engine]:
    options, device = LoadOptions(pretrained=str(tiny_checkpoint("llama"))), torch.device("cpu")
    return {
        method: Engine(*load_model("llava_next", method, options, reduction, device))
        for method, reduction in REDUCTIONS.items()
    }


def prompt(engine: Engine, question: str, *sizes: tuple[int, int], seed: int = 0) -> Prompt:
    images = tuple(tiny_image(*size, seed=seed + place) for place, size in enumerate(sizes))
    return Prompt(chat_prompt(engine.processor, question, images), images, seed)


@pytest.mark.parametrize("method", REDUCTIONS)
def test_prompts_are_prefilled_once_and_keep_the_same_tokens_for_every_candidate(engines, method, monkeypatch):
    engine = engines[method]
    question = prompt(engine, "what colour is the square ?", (60, 40), (30, 90))
    reports, prefills = [], []
    original_report, original_forward = StagedCache.report, engine.model.forward

    def report(cache):
        reports.append(original_report(cache))
        return reports[-1]

    def forward(*args, **kwargs):
        prefills.append(kwargs.get("pixel_values") is not None)
        return original_forward(*args, **kwargs)

    monkeypatch.setattr(StagedCache, "report", report)
    monkeypatch.setattr(engine.model, "forward", forward)
    candidates = [" red", " the green square in the picture", " A B C D"]
    [(together, _)] = engine.score([question], [candidates])
    assert sum(prefills) == 1
    assert len(prefills) > 1
    alone = [engine.score([question], [[candidate]])[0][0][0] for candidate in candidates]
    assert [score.loss for score in together] == pytest.approx([score.loss for score in alone], abs=1e-5)
    assert len(reports) == 4
    assert all(other.kept == reports[0].kept for other in reports[1:])
    assert all(other.kv_lengths == reports[0].kv_lengths for other in reports[1:])
    assert reports[0].reduced == [method != "none"]


@pytest.mark.parametrize("method", REDUCTIONS)
def test_what_greedy_decoding_writes_is_greedy_and_has_the_least_loss_per_token(engines, method):
    """The first tokens of the answer, scored as a candidate, are the argmax at every step of the reduced cache."""
    engine = engines[method]
    question = prompt(engine, "what colour is the square ?", (84, 84))
    inputs = engine.inputs([question])
    output = engine.model.generate(**inputs, max_new_tokens=5, **GREEDY, pad_token_id=3)
    new_ids = output[0, inputs["input_ids"].shape[1] :].tolist()
    with torch.inference_mode():
        positions = inputs["attention_mask"].cumsum(-1) - 1
        prefilled = engine.model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
        other = [*new_ids[:-1], (new_ids[-1] + 1) % 400]
        [[greedy, changed]] = score_candidates(engine.model, prefilled, inputs["attention_mask"], [[new_ids, other]])
    assert greedy.is_greedy
    assert not changed.is_greedy
    assert greedy.loss < changed.loss


@pytest.mark.parametrize("method", REDUCTIONS)
def test_a_ragged_batch_scores_as_each_prompt_alone(engines, method):
    engine = engines[method]
    questions = [
        prompt(engine, "is there a circle in the picture ?", (60, 40)),
        prompt(engine, "yes or no ?", seed=1),
        prompt(engine, "A or B ?", (30, 90), (84, 84), seed=2),
    ]
    candidates = [[" yes", " no there is not"], [" no"], [" A", " B C", " a square"]]
    batch = [scores for scores, _ in engine.score(questions, candidates)]
    for question, texts, scores in zip(questions, candidates, batch, strict=True):
        [(alone, _)] = engine.score([question], [texts])
        assert [score.loss for score in scores] == pytest.approx([score.loss for score in alone], abs=1e-4)
        assert [score.is_greedy for score in scores] == [score.is_greedy for score in alone]


@pytest.mark.parametrize("method", one_fast(tuple(REDUCTIONS)))
@pytest.mark.parametrize("pretrained", ["tiny", "pocket"])
def test_an_answer_that_ends_with_a_stop_string_is_the_longer_one_cut(tiny_checkpoint, method, pretrained):
    path = "pocket" if pretrained == "pocket" else str(tiny_checkpoint("llama"))
    options = LoadOptions(pretrained=path)
    engine = Engine(*load_model("llava_next", method, options, REDUCTIONS[method], torch.device("cpu")))
    questions = [
        prompt(engine, "what is in the picture ?", (60, 40)),
        prompt(engine, "yes or no ?", seed=1),
        prompt(engine, "what colour is the circle ?", (84, 84), seed=2),
    ]
    eos = {"min_new_tokens": 12} if pretrained == "pocket" else {}  # it would answer with one word
    options = {"max_new_tokens": 12, **eos, **GREEDY}
    whole = engine.generate(questions, GenerationSettings(options, ()))
    first, second = whole[0][0], whole[2][0]
    for until in [(first[5:7],), (second[len(second) // 2 :][:3], first[-3:]), (first[3], second[1:4]), ("~none~",)]:
        settings = GenerationSettings(options, until)
        batch = engine.generate(questions, settings)
        assert [text for text, _ in batch] == [settings.cut(text) for text, _ in whole]
        for question, (text, cost), (long, long_cost) in zip(questions, batch, whole, strict=True):
            [(alone, alone_cost)] = engine.generate([question], settings)
            assert alone == text
            assert (alone_cost.output_tokens, alone_cost.kv_bytes) == (cost.output_tokens, cost.kv_bytes)
            assert cost.output_tokens <= long_cost.output_tokens
            assert cost.kv_bytes <= long_cost.kv_bytes
            if settings.cut(long) == long:
                assert cost.output_tokens == long_cost.output_tokens
    assert batch[0][1].output_tokens == 12
    [(_, early)] = engine.generate(questions[:1], GenerationSettings(options, (first[5:7],)))
    assert early.output_tokens < 12
    assert early.kv_bytes < whole[0][1].kv_bytes


def test_beams_are_cut_afterwards(engines):
    engine = engines["none"]
    question = prompt(engine, "what is in the picture ?", (60, 40))
    options = {"max_new_tokens": 6, "num_beams": 2, **GREEDY}
    [(text, cost)] = engine.generate([question], GenerationSettings(options, ()))
    settings = GenerationSettings(options, (text[2:4],))
    [(cut, cut_cost)] = engine.generate([question], settings)
    assert cut == settings.cut(text)
    assert cut_cost.output_tokens == cost.output_tokens


def test_beams_run_and_their_bytes_are_added_up(engines):
    engine = engines["mustdrop"]
    question = prompt(engine, "what is in the picture ?", (60, 40))
    [(_, one)] = engine.generate([question], GenerationSettings({"max_new_tokens": 4, **GREEDY}, ()))
    [(_, three)] = engine.generate([question], GenerationSettings({"max_new_tokens": 4, "num_beams": 3, **GREEDY}, ()))
    assert three.kv_bytes == pytest.approx(3 * one.kv_bytes, rel=0.01)
    assert three.visual_tokens == one.visual_tokens


def test_placeholders_in_the_context_stay_where_they_are(engines):
    processor = engines["none"].processor
    image = tiny_image()
    assert (
        chat_prompt(processor, "look: <image> what is it ?", [image]) == "USER: look: <image> what is it ? ASSISTANT:"
    )
    with pytest.raises(ValueError, match="the text has 1 x '<image>', which stands for an image; allowed: none, or 2"):
        chat_prompt(processor, "<image> ?", [image, image])


def test_dtype_names():
    assert resolve_dtype("auto", torch.device("cpu")) is torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) == "auto"
    assert resolve_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16
    with pytest.raises(ValueError, match="dtype='float33'; allowed: auto, float32, bfloat16, float16"):
        resolve_dtype("float33", torch.device("cpu"))


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"attn_implementation": "eager"}, {"device_map": "auto"}])
def test_ways_to_load(tiny_checkpoint, options):
    options = LoadOptions(pretrained=str(tiny_checkpoint("llama")), **options)
    engine = Engine(*load_model("llava_next", "mustdrop", options, REDUCTIONS["mustdrop"], torch.device("cpu")))
    [(_, cost)] = engine.generate(
        [prompt(engine, "what is it ?", (60, 40))], GenerationSettings({"max_new_tokens": 2, **GREEDY}, ())
    )
    newlines = 6
    assert cost.visual_tokens == pytest.approx(0.4 * (cost.full_visual_tokens - newlines), abs=0.5)
    assert engine.model.dtype == (torch.bfloat16 if options.dtype == "bfloat16" else torch.float32)


def test_a_saved_reduction_holds_where_options_are_not_given(engines, tmp_path):
    engine = engines["mustdrop"]
    engine.model.save_pretrained(tmp_path)
    engine.processor.save_pretrained(tmp_path)
    options = LoadOptions(pretrained=str(tmp_path))
    saved, _ = load_model("llava_next", "mustdrop", options, {}, torch.device("cpu"))
    assert saved.config.token_reduction == engine.model.config.token_reduction
    assert REDUCTIONS["mustdrop"].items() <= saved.config.token_reduction.items()
    other, _ = load_model("llava_next", "mustdrop", options, {"keep_ratio": 0.9}, torch.device("cpu"))
    assert other.config.token_reduction == {**saved.config.token_reduction, "keep_ratio": 0.9}
    full, _ = load_model("llava_next", "none", options, {}, torch.device("cpu"))
    assert full.config.token_reduction == {"method": "none"}


@pytest.mark.parametrize("method", REDUCTIONS)
def test_a_finished_answer_costs_the_same_in_a_batch_that_goes_on(engines, method, monkeypatch):
    engine = engines[method]
    questions = [prompt(engine, "yes or no ?", (60, 40)), prompt(engine, "what is it ?", (84, 84), seed=5)]
    settings = GenerationSettings({"max_new_tokens": 6, **GREEDY}, ())
    inputs = engine.inputs(questions[:1])
    first = engine.model.generate(**inputs, max_new_tokens=2, **GREEDY, pad_token_id=3)[0, -1].item()
    monkeypatch.setattr(engine.model.generation_config, "eos_token_id", first)
    batch = engine.generate(questions, settings)
    for question, (text, cost) in zip(questions, batch, strict=True):
        [(alone, alone_cost)] = engine.generate([question], settings)
        assert text == alone
        assert cost.output_tokens == alone_cost.output_tokens
        assert cost.kv_bytes == alone_cost.kv_bytes
    assert batch[0][1].output_tokens <= 2 < batch[1][1].output_tokens


def test_macs_are_those_of_the_tokens_that_each_layer_receives(engines):
    """FastV at the first of the layers: it receives all, the others 40 percent of the image."""
    engine = engines["fastv"]
    [(_, cost)] = engine.score([prompt(engine, "what is it ?", (84, 84))], [[" red"]])
    config = engine.model.config.text_config
    visual, text = int(cost.full_visual_tokens), int(cost.prompt_tokens - cost.full_visual_tokens)
    left = round((cost.visual_tokens * config.num_hidden_layers - visual) / (config.num_hidden_layers - 1))
    assert left < visual
    lengths = [visual + text] + [left + text] * (config.num_hidden_layers - 1)
    assert cost.decoder_macs == decoder_macs(config, lengths, causal=False)

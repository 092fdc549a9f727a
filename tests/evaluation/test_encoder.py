"""The adapter of encoders through lmms-eval itself, on tiny random models."""

import math
from dataclasses import replace

import pytest
import torch
from lmms_results import answers
from PIL.Image import Resampling
from sizes import some_fast
from tiny_vilt import ANSWERS
from transformers import AutoProcessor, ViltForQuestionAnswering, ViltProcessor

from lmms_tokendrop.catalogue import architecture, registry, variants
from lmms_tokendrop.evaluation.arguments import LoadOptions
from lmms_tokendrop.evaluation.encoder_engine import EncoderEngine
from lmms_tokendrop.evaluation.loading import load_model
from lmms_tokendrop.evaluation.prompts import Prompt
from lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop import ViltTokenDropForQuestionAnswering

ENCODER_VARIANTS = [entry for entry in variants() if not architecture(entry.architecture).generates]

OPTIONS = {
    "vilt_tome": {"r": 9},
    "vilt_dynamicvit": {"layers": "1+2+3"},
    "vilt_smres": {"image_size": 24},
    "meter_tome": {"r": 9},
    "meter_vision_tome": {"vision_r": 5},
    "meter_dynamicvit": {"layers": "0+2+4"},
    "meter_smres": {"image_size": 24},
}
"""Model arguments that suit four layers; the defaults do for the others."""

IMAGE_COUNTS = ("prompt_tokens", "full_visual_tokens", "visual_tokens", "visual_tokens_release", "kv_bytes")


@pytest.fixture(scope="session")
def checkpoint(fusion_checkpoint, tmp_path_factory):
    """Return `make(variant)`: a checkpoint for it; DynamicViT's has predictors."""

    def make(entry):
        path = fusion_checkpoint(entry.architecture)
        if entry.method != "dynamicvit":
            return path
        torch.manual_seed(0)
        layers = [int(layer) for layer in OPTIONS[entry.model_id]["layers"].split("+")]
        family = architecture(entry.architecture)
        model = family.load(family.model_class(family.heads[0])).from_pretrained(
            path,
            token_reduction={"method": "dynamicvit", "layers": layers},
            new_parameters=(f"{entry.architecture}.token_reducer.",),
        )
        folder = tmp_path_factory.mktemp("dynamicvit")
        model.save_pretrained(folder)
        AutoProcessor.from_pretrained(path).save_pretrained(folder)
        return folder

    return make


def stock_log_probabilities(path, documents):
    model, processor = ViltForQuestionAnswering.from_pretrained(path).eval(), ViltProcessor.from_pretrained(path)
    with torch.no_grad():
        return [
            model(**processor(images=document["images"][0], text=document["question"], return_tensors="pt"))
            .logits[0]
            .log_softmax(-1)
            for document in documents
        ]


@pytest.fixture
def single_image_documents(single_image_tasks):
    from datasets import load_dataset

    path = str(single_image_tasks / "tiny.parquet")
    return list(load_dataset("parquet", data_files={"test": path}, split="test"))


def test_full_answers_and_losses_equal_the_stock_class(classify, tiny_vilt_checkpoint, single_image_documents):
    path = tiny_vilt_checkpoint()
    expected = stock_log_probabilities(path, single_image_documents)
    results = classify("vilt_full", ["tiny_generate", "tiny_choice", "tiny_likelihood"], pretrained=path, batch_size=2)
    assert answers(results, "tiny_generate") == [[ANSWERS[int(values.argmax())]] for values in expected]
    assert len({answer for [answer] in answers(results, "tiny_generate")}) > 1
    for document, values, pairs in zip(single_image_documents, expected, answers(results, "tiny_choice"), strict=True):
        for choice, (loss, greedy) in zip(document["choices"], pairs, strict=True):
            label = choice.lower().removesuffix(".")
            if label not in ANSWERS:
                assert (loss, greedy) == (math.inf, False)
                continue
            assert loss == pytest.approx(-values[ANSWERS.index(label)].item(), abs=1e-4)
            assert greedy == (ANSWERS[int(values.argmax())] == label)
    first = [pairs[0][0] for pairs in answers(results, "tiny_choice")]
    assert [pairs[0][0] for pairs in answers(results, "tiny_likelihood")] == pytest.approx(first, abs=1e-5)


@pytest.mark.parametrize("entry", some_fast(ENCODER_VARIANTS, 3), ids=lambda entry: entry.model_id)
def test_answers_and_costs_do_not_depend_on_the_batch(classify, checkpoint, entry):
    options = {"pretrained": checkpoint(entry), **OPTIONS.get(entry.model_id, {})}
    alone, together = [
        classify(entry.model_id, ["tiny_generate", "tiny_choice"], batch_size=size, **options) for size in (1, "auto")
    ]
    assert answers(alone, "tiny_generate") == answers(together, "tiny_generate")
    losses = [[loss for pairs in answers(run, "tiny_choice") for loss, _ in pairs] for run in (alone, together)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    for name in IMAGE_COUNTS:
        assert alone["throughput"][f"avg_{name}"] == together["throughput"][f"avg_{name}"]
    cost = alone["throughput"]
    if entry.method == "none":
        assert cost["avg_visual_tokens"] == cost["avg_full_visual_tokens"]
    else:
        assert cost["avg_visual_tokens"] < cost["avg_full_visual_tokens"]
        assert cost["avg_visual_tokens_release"] <= cost["avg_visual_tokens"]
    assert cost["avg_kv_bytes"] == 0


def test_smaller_images_are_fewer_tokens(classify, tiny_vilt_checkpoint):
    options = {"pretrained": tiny_vilt_checkpoint(), "limit": 1}
    full = classify("vilt_full", "tiny_generate", **options)["throughput"]
    small = classify("vilt_smres", "tiny_generate", image_size=16, **options)["throughput"]
    assert full["avg_visual_tokens"] == full["avg_full_visual_tokens"] == 1 + 8 * 12
    assert (small["avg_visual_tokens"], small["avg_full_visual_tokens"]) == (1 + 4 * 6, 1 + 8 * 12)
    assert full["avg_prompt_tokens"] == small["avg_prompt_tokens"]


def test_pocket_is_the_methods_own_model_and_pocket_teacher_the_unreduced_one(
    tiny_vilt_checkpoint, tmp_path, monkeypatch
):
    options = {"method": "pumer", "layers": [1], "prune_ratio": 0.5}
    student = ViltTokenDropForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint(seed=1), token_reduction=options)
    teacher = ViltTokenDropForQuestionAnswering.from_pretrained(tiny_vilt_checkpoint())
    for model, folder in ((student, tmp_path / "student"), (teacher, tmp_path / "teacher")):
        model.save_pretrained(folder)
        ViltProcessor.from_pretrained(tiny_vilt_checkpoint()).save_pretrained(folder)
    bundled = replace(architecture("vilt"), pocket={"none": "teacher", "pumer": "student"})
    monkeypatch.setattr("lmms_tokendrop.pocket.registry.WEIGHTS", tmp_path)
    monkeypatch.setitem(registry._architectures, "vilt", bundled)

    def load(method, pretrained):
        return load_model("vilt", method, LoadOptions(pretrained), {}, torch.device("cpu"))[0]

    for method, pretrained, expected, layers in (
        ("pumer", "pocket", student, [1]),
        ("pumer", "pocket-teacher", teacher, None),
        ("random", "pocket", teacher, None),
        ("none", "pocket-teacher", teacher, None),
    ):
        model = load(method, pretrained)
        assert model.classifier[0].weight.equal(expected.classifier[0].weight)
        assert model.config.token_reduction["method"] == method
        assert model.config.token_reduction.get("layers") == layers
    with pytest.raises(ValueError, match="no bundled model for architecture 'vilt' with method 'dynamicvit'"):
        load("dynamicvit", "pocket")
    with pytest.raises(ValueError, match="'dynamicvit' has trained weights"):
        load("dynamicvit", "pocket-teacher")


def test_predictors_that_were_never_trained_are_an_error(classify, tiny_vilt_checkpoint):
    with pytest.raises(ValueError, match="'dynamicvit' has trained weights and this checkpoint has none"):
        classify("vilt_dynamicvit", "tiny_generate", pretrained=tiny_vilt_checkpoint())


def test_wrong_arguments_end_the_run(classify, tiny_vilt_checkpoint):
    path = tiny_vilt_checkpoint()
    with pytest.raises(ValueError, match=r"'keep_ratio'; options of the method 'pumer': .*prune_ratio"):
        classify("vilt_pumer", "tiny_generate", pretrained=path, keep_ratio=0.5)
    with pytest.raises(ValueError, match="layer 4 can't act"):
        classify("vilt_pumer", "tiny_generate", pretrained=path, layers="2+4")
    with pytest.raises(ValueError, match="load_in_4bit and load_in_8bit are for llava_next, llava, not for vilt"):
        classify("vilt_full", "tiny_generate", pretrained=path, load_in_8bit=True)


def test_questions_without_one_image_and_conversations_are_errors(evaluate, tiny_vilt_checkpoint):
    with pytest.raises(ValueError, match=r"^tiny_generate: document 2: 2 images; .* question_answering, takes 1"):
        evaluate("vilt_full", "tiny_generate", pretrained=tiny_vilt_checkpoint())
    with pytest.raises(NotImplementedError, match="not conversations"):
        evaluate("vilt_full", "tiny_rounds", pretrained=tiny_vilt_checkpoint())


def test_square_images_are_the_models_own_size(classify, tiny_vilt_checkpoint, single_image_documents):
    path = tiny_vilt_checkpoint()
    squares = [
        {**document, "images": [document["images"][0].convert("RGB").resize((32, 32), Resampling.BICUBIC)]}
        for document in single_image_documents
    ]
    expected = [ANSWERS[int(values.argmax())] for values in stock_log_probabilities(path, squares)]
    results = classify("vilt_full", "tiny_generate", pretrained=path, square_image=True, batch_size=2)
    assert answers(results, "tiny_generate") == [[answer] for answer in expected]
    assert results["throughput"]["avg_visual_tokens"] == 1 + 8 * 8


def test_a_head_that_cannot_answer_says_which_can(classify, tiny_vilt_checkpoint):
    with pytest.raises(ValueError, match=r"image_and_text_retrieval, ranks texts.*one of question_answering, "):
        classify("vilt_full", "tiny_generate", pretrained=tiny_vilt_checkpoint("retrieval"))
    with pytest.raises(
        ValueError, match=r"document 0: 1 images; .*takes 2, and the head for 1 is question_answering or"
    ):
        classify("vilt_full", "tiny_choice", pretrained=tiny_vilt_checkpoint("two_images"))


@pytest.fixture
def engine(tiny_vilt_checkpoint):
    path = tiny_vilt_checkpoint()
    return EncoderEngine(ViltTokenDropForQuestionAnswering.from_pretrained(path), ViltProcessor.from_pretrained(path))


def test_candidates_of_which_none_is_a_label_are_an_error(engine, single_image_documents):
    prompt = Prompt("what ?", (single_image_documents[0]["images"][0],), 0)
    [(answer, _)] = engine.classify([prompt])
    with pytest.raises(ValueError, match="none of the candidates"):
        engine.score(answer, ["a cat", "a dog"])


def test_long_questions_are_cut_off_with_a_warning(engine, single_image_documents, caplog):
    prompt = Prompt("red " * 60, (single_image_documents[0]["images"][0],), 0, "task: document 5")
    assert engine.inputs([prompt])["input_ids"].shape == (1, 40)
    assert "task: document 5: 62 tokens; the model has 40 positions" in caplog.text

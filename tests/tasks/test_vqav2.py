"""VQAv2: the soft score by hand, and the task from its data to its metric."""

import pytest
from datasets import Image, List, Value
from lmms_eval.utils import load_yaml_config
from lmms_results import answers
from local_data import MODELS, TASKS, pictures, stock_logits
from tiny_vilt import ANSWERS

FEATURES = {
    "image": Image(),
    "image_id": Value("int64"),
    "question": Value("string"),
    "question_id": Value("int64"),
    "question_type": Value("string"),
    "answer_type": Value("string"),
    "multiple_choice_answer": Value("string"),
    "answers": List({"answer": Value("string"), "answer_confidence": Value("string"), "answer_id": Value("int64")}),
}
"""The columns of VQAv2 as lmms-eval's own task reads it."""

QUESTIONS = (
    "what colour is the circle ?",
    "how many ?",
    "is there a square in the picture ?",
    "which letter ?",
    "no ?",
)


def annotated(given, others, number):
    """Ten annotators, of whom ``number`` gave one answer."""
    texts = [given] * number + [others] * (10 - number)
    return [{"answer": text, "answer_confidence": "yes", "answer_id": 1 + place} for place, text in enumerate(texts)]


@pytest.fixture(scope="module")
def config():
    return load_yaml_config(TASKS / "vqav2" / "tokendrop_vqav2.yaml")


@pytest.mark.parametrize(("number", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_the_score_is_the_mean_over_annotators_left_out(config, number, score):
    document = {"question_id": 1, "answers": annotated("yes", "no", number)}
    assert config["process_results"](document, ["yes"]) == {"vqa_score": pytest.approx(score)}


@pytest.mark.parametrize(
    ("given", "written"), [("2", "Two."), ("dog", "a dog"), ("don't", "dont"), ("light blue", "light-blue")]
)
def test_answers_are_normalised(config, given, written):
    document = {"question_id": 1, "answers": annotated(written, "other", 10)}
    assert config["process_results"](document, [given]) == {"vqa_score": 1.0}


@pytest.mark.parametrize("missing", [None, []])
def test_unannotated_questions_are_not_scored(config, missing):
    with pytest.raises(ValueError, match="question 7 has no annotated answers"):
        config["process_results"]({"question_id": 7, "answers": missing}, ["yes"])


@pytest.mark.parametrize("model", MODELS)
def test_the_task_runs(local_task, fusion_checkpoint, model):
    architecture, method = model.split("_")
    images, path = pictures(5), fusion_checkpoint(architecture, seed={"vilt": 5, "meter": 9}[architecture])
    logits = stock_logits(path, architecture, "question_answering", QUESTIONS, images)
    labels = [ANSWERS[number] for number in logits.argmax(-1)]
    assert len(set(labels)) > 1
    rows = [
        {
            "image": images[number],
            "image_id": number,
            "question": question,
            "question_id": number,
            "question_type": "",
            "answer_type": "other",
            "multiple_choice_answer": "other",
            "answers": annotated(labels[number], "other", number),
        }
        for number, question in enumerate(QUESTIONS)
    ]
    results = local_task("tokendrop_vqav2", rows, FEATURES, split="validation")(model, pretrained=path, batch_size=2)
    given = [answer for [answer] in answers(results, "local")]
    scores = [score if given[number] == labels[number] else 0 for number, score in enumerate((0, 0.3, 0.6, 0.9, 1))]
    assert results["results"]["local"]["vqa_score,none"] == pytest.approx(sum(scores) / 5)
    if method == "full":
        assert given == labels

"""SNLI-VE and NLVR2: the checks of a user's data set, and the tasks from their data to their metric."""

import pytest
import torch
from datasets import ClassLabel, Image, Value
from lmms_eval.tasks import TaskManager
from lmms_results import answers
from local_data import MODELS, TASKS, named, pictures, stock_logits
from transformers import ViltProcessor

from lmms_tokendrop.modeling.architectures.modeling_vilt_tokendrop import ViltTokenDropForVisualEntailment
from lmms_tokendrop.modeling.core.fusion_heads import ENTAILMENT_LABELS

SENTENCES = (
    "there is a red circle",
    "two square",
    "one letter or yellow circle in the picture",
    "no light",
    "a blue square is there",
)
ENTAILMENT = {"image": Image(), "hypothesis": Value("string"), "label": ClassLabel(names=list(ENTAILMENT_LABELS))}
REASONING = {
    "left_image": Image(),
    "right_image": Image(),
    "sentence": Value("string"),
    "label": Value("string"),
}
ENTAILMENT_HEADS = {"vilt": "question_answering", "meter": "entailment"}
RIGHT = (True, False, True, True, False)
"""Which of the predictions the data set calls right."""


def labels_for(predictions: torch.Tensor, labels: tuple[str, ...]) -> list[str]:
    """Return labels of which those marked in `RIGHT` are the predicted ones."""
    return [labels[number if right else number - 1] for number, right in zip(predictions.tolist(), RIGHT, strict=True)]


def entailment_rows(labels=("neutral",) * 5) -> list[dict]:
    return [
        {"image": image, "hypothesis": text, "label": label}
        for image, text, label in zip(pictures(5), SENTENCES, labels, strict=True)
    ]


def reasoning_rows(labels) -> list[dict]:
    images = pictures(6)
    return [
        {"left_image": images[number], "right_image": images[number + 1], "sentence": text, "label": labels[number]}
        for number, text in enumerate(SENTENCES)
    ]


@pytest.fixture
def entailment_checkpoint(fusion_checkpoint):
    """Return ``make(architecture)``; stock ViLT has the head for questions, with the labels of visual entailment."""
    options = {"vilt": {"seed": 7, **named(ENTAILMENT_LABELS)}, "meter": {"seed": 9}}
    return lambda architecture: fusion_checkpoint(architecture, ENTAILMENT_HEADS[architecture], **options[architecture])


@pytest.fixture
def reasoning_checkpoint(fusion_checkpoint):
    """Return ``make(architecture)``."""
    seeds, labels = {"vilt": 8, "meter": 10}, named(("False", "True"))
    return lambda architecture: fusion_checkpoint(architecture, "two_images", seed=seeds[architecture], **labels)


def losses(results: dict) -> list[list[float]]:
    return [[loss for loss, _ in pairs] for pairs in answers(results, "local")]


@pytest.mark.parametrize("model", MODELS)
def test_snli_ve_runs(local_task, entailment_checkpoint, model):
    architecture, method = model.split("_")
    path = entailment_checkpoint(architecture)
    logits = stock_logits(path, architecture, ENTAILMENT_HEADS[architecture], SENTENCES, pictures(5))
    assert len(logits.argmax(-1).unique()) > 1
    rows = entailment_rows(labels_for(logits.argmax(-1), ENTAILMENT_LABELS))
    results = local_task("tokendrop_snli_ve", rows, ENTAILMENT)(
        model, pretrained=path, head="visual_entailment", batch_size=2
    )
    given = [ENTAILMENT_LABELS[row.index(min(row))] for row in losses(results)]
    right = [label == row["label"] for label, row in zip(given, rows, strict=True)]
    assert results["results"]["local"]["acc,none"] == pytest.approx(sum(right) / 5)
    if method == "full":
        assert results["results"]["local"]["acc,none"] == 0.6
        assert losses(results) == [pytest.approx(row, abs=1e-4) for row in (-logits.log_softmax(-1)).tolist()]


def test_the_own_class_of_visual_entailment_needs_no_argument(local_task, entailment_checkpoint, tmp_path):
    stock, own = entailment_checkpoint("vilt"), tmp_path / "own"
    ViltTokenDropForVisualEntailment.from_pretrained(stock).save_pretrained(own)
    ViltProcessor.from_pretrained(stock).save_pretrained(own)
    run = local_task("tokendrop_snli_ve", entailment_rows(), ENTAILMENT)
    with_argument = run("vilt_full", pretrained=stock, head="visual_entailment", limit=2)
    assert losses(run("vilt_full", pretrained=own, limit=2)) == losses(with_argument)


@pytest.mark.parametrize("model", MODELS)
def test_nlvr2_runs(local_task, reasoning_checkpoint, model):
    architecture, method = model.split("_")
    path, images = reasoning_checkpoint(architecture), pictures(6)
    pairs = [images[number : number + 2] for number in range(5)]
    logits = stock_logits(path, architecture, "two_images", SENTENCES, pairs)
    assert len(logits.argmax(-1).unique()) == 2
    rows = reasoning_rows(labels_for(logits.argmax(-1), ("False", "True")))
    run = local_task("tokendrop_nlvr2", rows, REASONING)
    results, alone = (run(model, pretrained=path, batch_size=size) for size in (5, 1))
    assert losses(results) == [pytest.approx(row, abs=1e-4) for row in losses(alone)]
    right = [str(row[1] < row[0]) == document["label"] for row, document in zip(losses(results), rows, strict=True)]
    assert results["results"]["local"]["acc,none"] == pytest.approx(sum(right) / 5)
    cost = results["throughput"]
    if method == "full":
        assert results["results"]["local"]["acc,none"] == 0.6
        assert losses(results) == [pytest.approx(row, abs=1e-4) for row in (-logits.log_softmax(-1)).tolist()]
        assert cost["avg_visual_tokens"] == cost["avg_full_visual_tokens"]
    else:
        assert cost["avg_visual_tokens"] < cost["avg_full_visual_tokens"]


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("tokendrop_snli_ve", "image, hypothesis, label"),
        ("tokendrop_nlvr2", "left_image, right_image, sentence, label"),
    ],
)
def test_without_a_data_set_the_error_says_how_to_name_one(task, columns):
    manager = TaskManager("ERROR", include_path=str(TASKS), include_defaults=False)
    [path] = TASKS.glob(f"*/{task}.yaml")
    with pytest.raises(ValueError, match=rf"{task} needs a data set.*include: {path}.*--include_path.*{columns}"):
        manager.load_task_or_group(task)


def load(folder):
    return TaskManager("ERROR", include_path=str(folder), include_defaults=False).load_task_or_group("local")["local"]


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (ClassLabel(names=["True", "False"]), [1, 0, 0, 1, 1]),
        (Value("bool"), [False, True, True, False, False]),
        (Value("string"), ["False", "true ", "TRUE", "false", "False"]),
    ],
    ids=["names", "truth values", "text"],
)
def test_labels_in_every_form(local_task, tmp_path, features, labels):
    local_task("tokendrop_nlvr2", reasoning_rows(labels), {**REASONING, "label": features})
    task = load(tmp_path)
    assert [task.doc_to_target(document) for document in task.eval_docs_no_media] == [
        "false", "true", "true", "false", "false"
    ]  # fmt: skip
    assert "left_image" in task.test_docs().column_names


def test_wrong_data_are_clear_errors(local_task, tmp_path):
    local_task("tokendrop_snli_ve", entailment_rows(["-"] * 5), {**ENTAILMENT, "label": Value("string")})
    with pytest.raises(ValueError, match=r"labels '-'; allowed.*contradiction, neutral, entailment"):
        load(tmp_path)
    local_task("tokendrop_snli_ve", entailment_rows([-1] * 5), ENTAILMENT)
    with pytest.raises(ValueError, match="labels '-1'; allowed"):
        load(tmp_path)
    local_task("tokendrop_nlvr2", entailment_rows(), ENTAILMENT)
    with pytest.raises(
        ValueError, match=r"no column left_image, right_image, sentence; it has image, hypothesis, label"
    ):
        load(tmp_path)
    local_task("tokendrop_snli_ve", entailment_rows(), ENTAILMENT, split="dev")
    with pytest.raises(ValueError, match=r"test_split is 'test', and parquet has dev"):
        load(tmp_path)
    local_task("tokendrop_snli_ve", entailment_rows(), ENTAILMENT, split="dev", test_split="dev")
    assert len(load(tmp_path).test_docs()) == 5

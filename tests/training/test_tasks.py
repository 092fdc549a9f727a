"""Each task from its rows to scores, loss and accuracy, and training on stored data."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, load_dataset
from sizes import one_fast
from transformers import PreTrainedConfig

from lmms_tokendrop.evaluation.encoder_engine import EncoderEngine
from lmms_tokendrop.evaluation.heads import HEADS, choose_head
from lmms_tokendrop.training.model_classes import trainable
from lmms_tokendrop.training.run import LOG, prepare
from lmms_tokendrop.training.tasks import TASKS
from lmms_tokendrop.training.texts import answer_scores

STORED = ("vqa", "snli-ve", "nlvr2", "retrieval")


def stored(task: str, data_files: dict[str, str], **changes) -> dict:
    """Changes of the options for a run on the stored data of a task."""
    extra = {"negatives": 3} if task == "retrieval" else {}
    return {"task": task, "data": data_files[task], **extra, **changes}


def batch_of(run) -> dict[str, torch.Tensor]:
    return next(iter(run.trainer.get_train_dataloader()))


def rewritten(file: str, folder, change) -> str:
    """A copy of a data file whose rows were changed."""
    data = load_dataset("parquet", data_files=file, split="train").map(change, with_indices=True)
    data.to_parquet(folder / "changed.parquet")
    return str(folder / "changed.parquet")


def test_soft_scores_of_answers():
    counts = {"red": 1, "blue": 2, "2": 3, "yes": 4}
    answers = [answer for answer, count in counts.items() for _ in range(count)]
    assert answer_scores(answers) == {"red": 0.3, "blue": 0.6, "2": 0.9, "yes": 1.0}
    assert answer_scores([{"answer": "Two", "answer_id": 1}] * 2 + ["a red."]) == {"2": 0.6, "red": 0.3}
    assert answer_scores("Light blue.") == {"light blue": 1.0}


@pytest.mark.parametrize("architecture", one_fast(trainable()))
@pytest.mark.parametrize("task", STORED)
def test_every_task_is_distilled_with_a_divergence_above_zero(
    task, architecture, options, checkpoint, data_files, tmp_path
):
    changes = {"teacher": checkpoint(task, 1, architecture), "architecture": architecture, "epochs": 1}
    given = options(**stored(task, data_files), **changes, max_steps=None)
    results = prepare(given, tmp_path).train()
    assert results["steps"] == 2
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert all(line["kl_loss"] > 1e-4 for line in lines)
    assert all(line["loss"] == pytest.approx(line["task_loss"] + line["kl_loss"], rel=1e-4) for line in lines)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert HEADS[choose_head(saved["architectures"], None)].training == task


@pytest.mark.parametrize("architecture", trainable())
def test_dynamicvit_has_its_losses_for_each_of_two_images(architecture, options, checkpoint, data_files, tmp_path):
    changes = {"architecture": architecture, "method": "dynamicvit", "teacher": checkpoint("nlvr2", 1, architecture)}
    run = prepare(options(**stored("nlvr2", data_files), **changes), tmp_path)
    inputs = batch_of(run)
    targets = inputs.pop("labels")
    model = run.trainer.model.train()
    torch.manual_seed(5)
    parts = run.trainer.loss_parts(model, inputs, targets)
    torch.manual_seed(5)
    reports = model(**inputs).report
    ratios = [model.base_model.token_reducer.ratio_loss(report) for report in reports]
    assert len(ratios) == 2
    assert parts["ratio"].item() == pytest.approx(sum(ratios).item() / 2, rel=1e-5)
    assert parts["tokens"] > 0
    assert parts["kl"] > 0


def test_retrieval_is_distilled_over_the_candidates_of_an_image(options, checkpoint, data_files, tmp_path):
    run = prepare(options(**stored("retrieval", data_files), teacher=checkpoint("retrieval", seed=1)), tmp_path)
    inputs = batch_of(run)
    targets = inputs.pop("labels")
    assert inputs["input_ids"].shape[0] == inputs["pixel_values"].shape[0] == 4 * (1 + 3)
    assert torch.equal(targets, torch.zeros(4, dtype=torch.long))
    parts = run.trainer.loss_parts(run.trainer.model.train(), inputs, targets)
    with torch.no_grad():
        ours = run.trainer.model(**inputs).logits.view(4, 4)
        theirs = run.trainer.teacher(**inputs).logits.view(4, 4)
    kl = (theirs.softmax(-1) * (theirs.log_softmax(-1) - ours.log_softmax(-1))).sum() / 4
    assert parts["kl"].item() == pytest.approx(kl.item(), rel=1e-4)
    assert parts["kl"] > 1e-4
    assert parts["task"].item() == pytest.approx(-ours.log_softmax(-1)[:, 0].mean().item(), rel=1e-5)


def test_retrieval_draws_captions_of_other_images_anew_in_every_epoch(options, data_files, tmp_path):
    run = prepare(options(**stored("retrieval", data_files)), tmp_path)
    examples = run.trainer.train_dataset
    drawn = []
    for examples.epoch in range(3):
        _, example = examples[2]
        numbers = [int(text.split()[-1]) for text in example.texts]
        assert numbers[0] == 2
        assert len(set(numbers)) == 4
        drawn.append(tuple(example.texts))
    assert len(set(drawn)) == 3
    examples.epoch = 0
    assert tuple(examples[2][1].texts) == drawn[0]


def test_two_images_are_stacked_left_first(options, data_files, tmp_path):
    run = prepare(options(**stored("nlvr2", data_files), batch_size=8), tmp_path)
    batch = batch_of(run)
    assert batch["pixel_values"].shape[:2] == (8, 2)
    data = load_dataset("parquet", data_files=data_files["nlvr2"], split="train")
    process = run.processor.image_processor
    for row, index in enumerate(batch["sample_seeds"].tolist()):
        for place, column in enumerate(("left_image", "right_image")):
            expected = process(data[index][column], return_tensors="pt")["pixel_values"][0]
            assert torch.equal(batch["pixel_values"][row, place], expected)
        assert batch["labels"][row] == (data[index]["label"] == "True")


@pytest.mark.parametrize(("names", "true"), [(("True", "False"), 0), (("false", "true"), 1)])
def test_the_numbers_of_nlvr2_s_labels_are_the_checkpoint_s(names, true, options):
    task = TASKS["nlvr2"](PreTrainedConfig(id2label=dict(enumerate(names))), options())
    assert {label: int(task.target(label)) for label in ("True", "1", "False", "0")} == {
        "True": true,
        "1": true,
        "False": 1 - true,
        "0": 1 - true,
    }


def test_nlvr2_needs_its_own_labels(options):
    with pytest.raises(ValueError, match=r"its labels are \['maybe', 'true'\]; nlvr2 needs \['False', 'True'\]"):
        TASKS["nlvr2"](PreTrainedConfig(id2label={0: "maybe", 1: "True"}), options())


def test_vqa_targets_and_their_accuracy(options, data_files, tmp_path):
    run = prepare(options(**stored("vqa", data_files), batch_size=8), tmp_path)
    batch = batch_of(run)
    order = batch["sample_seeds"].tolist()
    scores = [0.0, 0.3, 0.6, 0.9, 1.0, 1.0, 1.0, 1.0]
    red = run.trainer.model.config.label2id["red"]
    assert batch["labels"][:, red].tolist() == pytest.approx([scores[index] for index in order])
    assert batch["labels"].sum().item() == pytest.approx(sum(scores))
    logits = torch.zeros(8, 33)
    logits[:, red] = 1
    assert run.trainer.task.accuracy(logits, batch["labels"]).mean().item() == pytest.approx(sum(scores) / 8)


def test_cross_entropy_and_accuracy_of_labels(options, checkpoint, data_files, tmp_path):
    task = prepare(options(**stored("snli-ve", data_files)), tmp_path).trainer.task
    scores, targets = torch.tensor([[0.0, 0.0, math.log(2)], [math.log(6), 0.0, 0.0]]), torch.tensor([2, 1])
    assert task.loss(scores, targets).item() == pytest.approx((math.log(2) + math.log(8)) / 2)
    assert task.accuracy(scores, targets).tolist() == [1, 0]


def test_evaluation_keeps_the_best_checkpoint(options, data_files, tmp_path):
    given = options(
        **stored("snli-ve", data_files), eval_data=data_files["snli-ve"], eval_every=2, max_steps=5, learning_rate=1e-2
    )
    results = prepare(given, tmp_path).train()
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    accuracies = {line["step"]: line["eval_accuracy"] for line in lines if "eval_accuracy" in line}
    assert list(accuracies) == [2, 4, 5]
    assert accuracies[results["best_step"]] == max(accuracies.values()) == results["evaluation"]["eval_accuracy"]
    assert {line["eval_rows"] for line in lines if "eval_rows" in line} == {8}


def test_patience_ends_a_run_that_gets_no_better(options, data_files, tmp_path):
    given = options(
        **stored("vqa", data_files),
        eval_data=data_files["vqa"],
        eval_every=1,
        patience=2,
        max_steps=20,
        learning_rate=0.0,
    )
    assert prepare(given, tmp_path).train()["steps"] == 3


def test_class_labels_are_read_by_name(options, data_files, tmp_path):
    data = load_dataset("parquet", data_files=data_files["snli-ve"], split="train")
    data = data.cast_column("label", ClassLabel(names=["entailment", "neutral", "contradiction"]))
    DatasetDict({"train": data}).save_to_disk(tmp_path / "saved")
    batch = batch_of(prepare(options("snli-ve", data=str(tmp_path / "saved"), batch_size=8), tmp_path / "run"))
    assert [index % 3 for index in batch["sample_seeds"].tolist()] == batch["labels"].tolist()


def test_images_named_by_file(options, data_files, tmp_path):
    data = load_dataset("parquet", data_files=data_files["snli-ve"], split="train")
    rows = []
    for number, row in enumerate(data):
        row["image"].save(tmp_path / f"{number}.png")
        rows.append({"picture": f"{number}.png", "hypothesis": row["hypothesis"], "label": row["label"]})
    Dataset.from_list(rows).to_json(tmp_path / "rows.jsonl")
    named = {"data": str(tmp_path / "rows.jsonl"), "columns": {"image": "picture"}}
    run = prepare(options("snli-ve", **named, image_root=str(tmp_path), batch_size=8), tmp_path / "run")
    stock = prepare(options(**stored("snli-ve", data_files), batch_size=8), tmp_path / "stock")
    assert torch.equal(batch_of(run)["pixel_values"], batch_of(stock)["pixel_values"])
    with pytest.raises(ValueError, match=r"there is no file '0\.png'; name the folder with image_root"):
        prepare(options("snli-ve", **named), tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "no_such_folder"}, "data='no_such_folder' cannot be read"),
        ({"columns": {"question": "text"}}, "columns: unknown 'question'; allowed: image, text, label"),
        ({"columns": {"text": "premise"}}, "has no column 'premise'; it has image, hypothesis, label"),
        ({"columns": {"image": "label"}}, r"there is no file 'contradiction'"),
        ({"eval_every": 1}, "eval_data: .* has no split for evaluation; name other data"),
        ({"split": "train"}, "is a file, which has neither splits nor configurations"),
        ({"image_root": "no_such_folder"}, "image_root='no_such_folder': there is no such folder"),
        ({"image_root": "."}, "column 'image' holds images, not names of files"),
    ],
)
def test_wrong_data(changes, message, options, data_files, tmp_path):
    with pytest.raises(ValueError, match=message):
        prepare(options(**{**stored("snli-ve", data_files), **changes}), tmp_path)


@pytest.mark.parametrize(
    ("task", "label", "message"),
    [
        ("snli-ve", "1", "row 5: label='1'; allowed: 'contradiction'"),
        ("nlvr2", "maybe", "row 5: label='maybe'; allowed: 'false', 'true'"),
    ],
)
def test_unknown_labels(task, label, message, options, data_files, tmp_path):
    file = rewritten(data_files[task], tmp_path, lambda row, at: {"label": label if at == 5 else row["label"]})
    with pytest.raises(ValueError, match=message):
        prepare(options(task, data=file), tmp_path / "run")


def test_answers_of_which_none_is_a_label(options, data_files, tmp_path):
    file = rewritten(data_files["vqa"], tmp_path, lambda row, at: {"answers": [{"answer": "a fish"}]})
    with pytest.raises(ValueError, match=r"to 8 questions, such as \['fish'\], is one of the model's 33 labels"):
        prepare(options("vqa", data=file), tmp_path / "run")


def test_questions_without_a_label_are_counted(options, data_files, tmp_path, caplog):
    prepare(options(**stored("vqa", data_files)), tmp_path / "some")
    assert "1 of 8 questions looked at have no answer among the model's labels" in caplog.text
    caplog.clear()
    prepare(options(), tmp_path / "none")
    assert "questions looked at" not in caplog.text


def test_too_few_images_for_the_negatives(options, data_files, tmp_path):
    with pytest.raises(ValueError, match="negatives=8; the data has 8 images"):
        prepare(options(**stored("retrieval", data_files, negatives=8)), tmp_path)


def test_other_labels_than_those_of_the_task(options, checkpoint, data_files, tmp_path):
    with pytest.raises(ValueError, match="snli-ve needs"):
        TASKS["snli-ve"](prepare(options(), tmp_path).trainer.model.config, options())


def test_long_texts_are_cut_off(options, data_files, tmp_path, caplog):
    file = rewritten(data_files["snli-ve"], tmp_path, lambda row, at: {"hypothesis": "red " * 60})
    batches = list(prepare(options("snli-ve", data=file), tmp_path / "run").trainer.get_train_dataloader())
    assert all(batch["input_ids"].shape == (4, 40) and batch["attention_mask"].all() for batch in batches)
    assert caplog.text.count("texts of more than 40 tokens are cut off, the first is 'red red") == 1


def test_square_images(options, data_files, tmp_path):
    run = prepare(options(**stored("snli-ve", data_files), square_images=True), tmp_path)
    batch = batch_of(run)
    assert batch["pixel_values"].shape == (4, 3, 32, 32)
    data = load_dataset("parquet", data_files=data_files["snli-ve"], split="train")
    squared = EncoderEngine(run.trainer.model, run.processor).squared(data[int(batch["sample_seeds"][0])]["image"])
    expected = run.processor.image_processor(squared, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(batch["pixel_values"][0], expected)


def test_augmented_images_depend_on_epoch_and_index_only(options, data_files, tmp_path):
    run = prepare(options(**stored("nlvr2", data_files), rand_augment=True), tmp_path)
    examples = run.trainer.train_dataset
    first = [np.asarray(image) for image in examples[2][1].images]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again = [np.asarray(image) for image in examples[2][1].images]
    assert torch.equal(torch.get_rng_state(), state)
    plain = [np.asarray(image) for image in run.trainer.task.example(examples.rows, 2, np.random.default_rng(0)).images]
    examples.epoch = 1
    later = [np.asarray(image) for image in examples[2][1].images]
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(first, plain, strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(first, later, strict=True))


def test_evaluation_images_are_not_augmented(options, data_files, tmp_path):
    given = options(**stored("vqa", data_files), rand_augment=True, eval_data=data_files["vqa"], eval_every=1)
    trainer = prepare(given, tmp_path).trainer
    plain = trainer.task.example(trainer.eval_dataset.rows, 1, np.random.default_rng(0)).images[0]
    assert np.array_equal(np.asarray(trainer.eval_dataset[1][1].images[0]), np.asarray(plain))

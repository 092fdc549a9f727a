"""Data, folders and files that cannot be used are one line that names them, the row and what is allowed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from datasets import load_dataset
from sizes import one_fast
from tiny_models import tiny_image
from typer.testing import CliRunner

from lmms_tokendrop.cli import app
from lmms_tokendrop.training.run import RESULTS


@pytest.fixture
def refused(checkpoint, tmp_path):
    """Return ``refused(data, *options, task="vqa") -> str``: the only line that the command gives, after `Error: `."""

    def run(data: str | Path, *options: str, task: str = "vqa") -> str:
        output = tmp_path / "run"
        given = ("--output", str(output), "--task", task, "--pretrained", checkpoint(task), "--data", str(data))
        short = ("--max-steps", "4", "--batch-size", "2", "--cpu")
        result = CliRunner().invoke(app, ["train", *given, *short, *options], catch_exceptions=False)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        assert not (output / RESULTS).exists()
        return result.stderr.removeprefix("Error: ")

    return run


@pytest.fixture
def rows(tmp_path):
    """Return ``rows(changes, base=None) -> Path``: four JSON lines with pictures by name, the third one changed."""

    def write(changes: dict, base: dict | None = None) -> Path:
        base = {"question": "what colour is it ?", "answer": "red", **(base or {})}
        lines = []
        for number in range(4):
            picture = tmp_path / f"{number}.png"
            tiny_image(40, 32, seed=number).save(picture)
            lines.append({"image": str(picture), **base, **(changes if number == 2 else {})})
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return file

    return write


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b"", "the file is empty"),
        ("rows.json", b"\n\n", "has no rows"),
        ("rows.jsonl", b'{"a": "x"}\n{"a": "y"}\n{"a": "z\n', "line 3 is not JSON"),
        ("rows.jsonl", b'{"a": "x"}\n[1]\n', "line 2 holds a JSON list; allowed: an object"),
        ("rows.json", b'[{"a": 1}, {"a"', "line 1 column"),
        ("rows.csv", b"", "the file is empty"),
        ("rows.csv", b"image,question,answer\n", "has no rows"),
        ("rows.csv", b"a,b\n1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3"),
        ("rows.csv", b"a,b\n1,caf\xe9\n", "can't decode byte 0xe9"),
        ("rows.parquet", b"", "the file is empty"),
        ("rows.parquet", b"no parquet" * 9, "this is not a parquet file"),
        ("rows.txt", b"text", "allowed files: .parquet, .json, .jsonl, .csv"),
    ],
)
def test_files_that_are_no_data(name, content, message, refused, tmp_path):
    file = tmp_path / name
    file.write_bytes(content)
    line = refused(file)
    assert line.startswith(f"data={str(file)!r}")
    assert message in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--split", "test"), 'Unknown split "test"'),
        (("--data-config", "large"), "'large' not found"),
        (("--eval-every", "2"), 'Unknown split "validation"'),
    ],
)
def test_folders_without_the_split_or_the_configuration(options, message, refused, data_files, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(data_files["vqa"], folder / "train.parquet")
    line = refused(folder, *options)
    assert line.startswith(f"data={str(folder)!r} cannot be read: ")
    assert message in line


@pytest.mark.parametrize("name", ["state.json", "dataset_dict.json"])
def test_saved_data_whose_description_is_broken(name, refused, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / name).write_text("{")
    assert refused(tmp_path / "saved").startswith(f"data={str(tmp_path / 'saved')!r} cannot be read: ")


def test_evaluation_data_is_called_so(refused, data_files, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("{")
    line = refused(data_files["vqa"], "--eval-data", str(file), "--eval-every", "2")
    assert line.startswith(f"eval_data={str(file)!r} cannot be read: line 1 is not JSON")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "column 'image' has no image"),
        ({"image": "gone.png"}, "there is no file 'gone.png'; name the folder with image_root"),
        ({"question": None}, "question=None; allowed: a text"),
        ({"question": 3}, "question=3; allowed: a text"),
        ({"answer": None}, "answers=None; allowed: a text, or a list of texts or of dicts with a text 'answer'"),
        ({"answer": 2}, "answers=2; allowed: a text, or a list"),
        ({"answer": True}, "answers=True; allowed: a text, or a list"),
        ({"answer": []}, "answers=[]; allowed: a text, or a list"),
        ({"answer": ["red", 2]}, "answers=['red', 2]; allowed: a text, or a list"),
        ({"answer": [{"answer": None}]}, "answers=[{'answer': None}]; allowed: a text, or a list"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(changes, message, refused, rows):
    file = rows(changes)
    line = refused(file)
    assert line.startswith(f"data={str(file)!r}, row 2: ")
    assert message in line


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("snli-ve", {"hypothesis": None}, "text=None; allowed: a text"),
        ("snli-ve", {"label": None}, "label=None; allowed: 'contradiction', 'neutral', 'entailment'"),
        ("nlvr2", {"label": 1.5}, "label=1.5; allowed: 'false', 'true', '0', '1'"),
        ("retrieval", {"caption": []}, "captions=[]; allowed: a text, or a list of texts"),
        ("retrieval", {"caption": [None]}, "captions=[None]; allowed: a text, or a list of texts"),
    ],
)
def test_rows_of_every_task_are_named(task, changes, message, refused, rows, tmp_path):
    pictures = {name: str(tmp_path / "1.png") for name in ("left_image", "right_image")}
    base = {"hypothesis": "a red circle", "sentence": "two", "label": "neutral", "caption": ["a", "b"], **pictures}
    line = refused(rows(changes, {**base, "label": "true"} if task == "nlvr2" else base), task=task)
    assert ", row 2: " in line
    assert message in line


@pytest.mark.parametrize("numbers", [True, False])
def test_a_column_of_integer_answers_is_refused(numbers, refused, rows):
    line = refused(rows({"answer": 2}, {"answer": 2} if numbers else {}))
    assert re.search(rf"row {0 if numbers else 2}: answers=2; allowed: a text", line)


@pytest.mark.parametrize("workers", one_fast(("0", "1")))
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no picture", "is of no format that Pillow reads"), (None, "its image cannot be read: image file is truncated")],
)
def test_a_corrupt_picture_names_its_row_when_it_is_read(content, message, workers, refused, rows, tmp_path):
    file = rows({})
    picture = tmp_path / "2.png"
    picture.write_bytes(content or picture.read_bytes()[:-40])
    line = refused(file, "--workers", workers)
    assert line.startswith(f"data={str(file)!r}, row 2: ")
    assert message in line


def test_embedded_pictures_that_are_missing_are_named(refused, data_files, tmp_path):
    data = load_dataset("parquet", data_files=data_files["vqa"], split="train")
    changed = data.map(lambda row, at: {"image": None if at == 5 else row["image"]}, with_indices=True)
    changed.to_parquet(tmp_path / "missing.parquet")
    assert "missing.parquet', row 5: column 'image' has no image" in refused(tmp_path / "missing.parquet")


def test_a_column_of_another_kind_is_refused(refused, rows):
    assert "column 'number' holds Value('int64'); allowed: images, or names of files" in refused(
        rows({}, {"number": 3}), "--columns", "image=number"
    )


@pytest.mark.parametrize("place", ["run", "run/below"])
def test_an_output_that_is_a_file_is_refused(place, checkpoint, tmp_path):
    (tmp_path / "run").write_text("mine")
    given = ("--pretrained", checkpoint(), "--data", "pocket_scenes", "--max-steps", "1", "--cpu")
    result = CliRunner().invoke(app, ["train", "--output", str(tmp_path / place), *given], catch_exceptions=False)
    assert result.exit_code == 1
    expected = f"Error: output={str(tmp_path / place)!r}: {str(tmp_path / 'run')!r} is a file; name a folder\n"
    assert result.stderr == expected
    assert (tmp_path / "run").read_text() == "mine"

"""Every `bash` block of the README and of `docs`, pasted in order into a fresh shell.

The shell is in a copy of the clone whose `.venv` is this environment. Names of the Hub are folders there, and so is
what a reader has to supply: names in capitals. `SHORTER` says which commands are changed so that they end soon.
docs/hub.md is run by tests/hub/test_hub_page.py, against a hub.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from documents import ACTIVATE, PAGES, ROOT, blocks, paste
from local_data import named, pictures
from public_meter import LABELS, public_weights
from tiny_meter import tiny_meter_tokenizer

from lmms_tokendrop import pocket_path
from lmms_tokendrop.modeling.core.fusion_heads import ENTAILMENT_LABELS

SHORTER = {
    r"lmms-eval --model": "lmms-eval --limit 4 --model",  # a limit of the command's own comes later and holds
    r"lmms-tokendrop demo(?= --|$)": "lmms-tokendrop demo --limit 4",
    r"--limit (0|200|2000)\b": "",
    r"--budgets (\d+%)[\d%,]*": r"--budgets \1",
    r"--out model_cards/results/compare": "--out out/compare",  # runs of all documents are there
    r"--task pocket_scenes,easy_vqa": "--task pocket_scenes",
    r"lmms-tokendrop compare": "lmms-tokendrop compare --limit 4 --seeds 0 --methods uniform",
    r"lmms-tokendrop calibrate": "lmms-tokendrop calibrate --limit 4",
    r"--max-steps 400": "--max-steps 2",
    r"--recipe [\w-]+": r"\g<0> --image-size 96",  # the bundled model's
    r"--repeats \d": "--repeats 1",
    r"plan_real_models.py": "plan_real_models.py llava-1.5-7b",
    r"lmms-tokendrop bench --shape (8x4096|meter) ([^\n]*\\\n)*[^\n]*\n": "",  # as the one before it
    r"python scripts/pocket_experiments.py (vilt --runs \S+|meter .*)\n": "",  # trains; beside it the same is timed
    r"(--shape \d+)x\d+ --tower \d+x\d+ --images \w+": r"\1x64 --tower 3x64 --images 336x336 --repeats 1",
    r"--shape vilt": "--shape vilt --batch-size 1 --methods full --parts throughput",
    r"--methods (stock|mustdrop,)[\w,:=-]+|--parts throughput,[\w,]+|--batch-size 16 |--max-batch-size 40 ": "",
    r"--seconds \d+": "--seconds 0",
    r"--speed \d": "--speed 0.01",
    r"choose_scene.py docs/scene.png": "choose_scene.py docs/scene.png --questions 12",
    r"python scripts/measure_budgets.py (pocket_scenes|easy_vqa|pocket_scenes_validation|easy_vqa_validation)\n": "",
    r"measure_budgets.py (\w+)": r"measure_budgets.py \1 --rows full --questions 4 --output \1.json",
    r"^mypy$": "mypy --version",  # a step of its own in .ci/run
    r"python -m pytest( -n 2)?": "python -m pytest --collect-only tests/test_docs.py",
}
"""Patterns in commands, and what stands there in this test."""

QUICK = ("README.md",)
COPIED = ("docs", "model_cards", "scripts", "tests", "README.md", "CONTRIBUTING.md", "pyproject.toml")
"""What commands write to; the rest of the clone is there as links."""


def short(page: str, commands: str) -> str:
    """What is run of a page's commands; the documents are rendered once, at the end of the longest page."""
    for pattern, replacement in SHORTER.items():
        commands = re.sub(pattern, replacement, commands, flags=re.MULTILINE)
    render = "python scripts/render_docs.py\n"
    return commands.replace(render, "") + (render if page == "results.md" else "")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder that looks like the clone."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name in COPIED:
            copy = shutil.copytree if path.is_dir() else shutil.copyfile
            copy(path, folder / path.name)
        elif not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def write_rows(path: Path, rows: list[dict], **features) -> None:
    from datasets import Dataset, Features, Image, Value

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: Value("string") for name in rows[0] if name not in ("image", *features)}
    Dataset.from_list(rows, features=Features({"image": Image(), **columns, **features})).to_parquet(path)


def write_questions(path: Path) -> None:
    """Write data in the form of VQAv2."""
    from datasets import List, Value

    texts = ["what color is the cross?", "what shape is red?", "is there a ring?", "how many are there?"]
    rows = [
        {"image": image, "question": text, "multiple_choice_answer": "red", "answers": [{"answer": "red"}] * 10}
        for image, text in zip(pictures(4), texts, strict=True)
    ]
    write_rows(path, rows, answers=List({"answer": Value("string")}))


def supply(folder: Path, vilt_for_entailment: Path) -> None:
    """Put what the Hub and the reader have where the commands look for it."""
    for name in ("dandelin/vilt-b32-finetuned-vqa", "dandelin/vilt-b32-mlm", "TEACHER"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(pocket_path("vilt", "none"))
    (folder / "MODEL").symlink_to(vilt_for_entailment)
    tiny_meter_tokenizer().save_pretrained(folder / "FacebookAI" / "roberta-base")
    torch.save({"state_dict": public_weights("vqav2", pairs=6)}, folder / "CHECKPOINT.ckpt")
    (folder / "answers.json").write_text(json.dumps([f"answer {number}" for number in range(LABELS)]))
    write_questions(folder / "lmms-lab-encoder" / "VQAv2" / "validation.parquet")


def supply_data(folder: Path, page: str) -> None:
    """Write the data set that a page calls DATA."""
    if page == "training.md":
        write_questions(folder / "DATA" / "train.parquet")
    if page == "lmms-eval.md":
        rows = [{"image": image, "hypothesis": "a red ring", "label": "neutral"} for image in pictures(4)]
        write_rows(folder / "DATA" / "test.parquet", rows)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name, path in PAGES.items()
        if name != "hub.md" and blocks(path.read_text(), "bash")
    ],
)
def test_the_commands_of_a_page_run_in_order(page, clone, tiny_vilt_checkpoint):
    supply(clone, tiny_vilt_checkpoint(**named(ENTAILMENT_LABELS)))
    supply_data(clone, page)
    commands = blocks(PAGES[page].read_text(), "bash")
    given = [] if ACTIVATE in commands else [ACTIVATE]
    printed = paste(short(page, "".join([*given, *commands])), clone)
    for shown in blocks(PAGES[page].read_text(), "text"):
        assert {shape(line) for line in shown.splitlines()} <= {"...", *map(shape, printed.splitlines())}


def shape(line: str) -> str:
    """A line of a table without its numbers and the width of its columns, which differ from machine to machine."""
    return re.sub(r"[\d.]+(?=\s*\|)|[ -]", "", line)

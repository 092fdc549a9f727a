import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmms_tokendrop.benchmark.comparison import DEMO_RUNS, Run, measure, measurement, to_json
from lmms_tokendrop.catalogue import variants
from lmms_tokendrop.cli import app
from lmms_tokendrop.evaluation.tasks_path import tasks_path

ROOT = Path(__file__).resolve().parent.parent


PATCHES = 180
"""Visual tokens of a picture of the bundled task for the tiny model, without the 12 newlines."""


def invoke(*arguments: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments, catch_exceptions=False)


def test_list_shows_every_variant_in_80_columns():
    output = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["list"]).output
    assert max(map(len, output.splitlines())) <= 80
    words = output.split()
    for entry in variants():
        for text in (entry.model_id, entry.method, entry.pretrained or "none: name one", entry.description):
            assert set(text.split()) <= set(words)


def listed(*arguments: str) -> list[str]:
    return [entry["model_id"] for entry in json.loads(invoke("list", "--json", *arguments).output)]


def test_list_can_be_read_by_programs_and_filtered():
    assert json.loads(invoke("list", "--json").output) == [asdict(entry) for entry in variants()]
    assert listed("--architecture", "llava_next") == [entry.model_id for entry in variants(architecture="llava_next")]
    assert listed("--method", "pumer") == ["vilt_pumer", "meter_pumer"]
    assert listed("--method", "pumer", "--architecture", "meter") == ["meter_pumer"]


def one_line(*arguments: str) -> str:
    """What a command prints that fails with one line."""
    result = invoke(*arguments)
    assert result.exit_code == 1
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.output
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--method", "tomee"], "method='tomee'; allowed: none, mustdrop, fastv, "),
        (["list", "--architecture", "clip"], "architecture='clip'; allowed: llava_next, llava, vilt, meter"),
        (["list", "--architecture", "vilt", "--method", "mustdrop"], "method='mustdrop'; allowed: none, pumer, tome,"),
        (["demo", "--task", "no_task"], "task='no_task'; allowed: easy_vqa, easy_vqa_validation, pocket_scenes,"),
        (["demo", "--task", "pocket_scenes_choice"], "task='pocket_scenes_choice'; allowed: easy_vqa, easy_vqa_val"),
        (["demo", "--limit", "-1"], "limit=-1; allowed: 1 or more, or all"),
        (["demo", "--batch-size", "0"], "batch_size must be a positive integer or 'auto', not '0'"),
        (["demo", "--device", "cuda:99"], "device='cuda:99'; this machine has cpu"),
        (["demo", "--pretrained", "no_such_checkpoint", "--limit", "1"], "no_such_checkpoint"),
        (["demo", "--pretrained", str(ROOT / "tests")], "is a checkpoint of None; allowed: one of llava_next"),
        (["demo", "--output", str(ROOT)], f"Is a directory: '{ROOT}'"),
        (
            ["calibrate", "--budget", "9", "--task", "no_task"],
            "task='no_task'; allowed: easy_vqa, easy_vqa_validation,",
        ),
        (["calibrate", "--budget", "9", "--limit", "0"], "limit=0; allowed: 1 or more"),
        (["calibrate", "--budget", "nan", "--limit", "1"], "budget=nan; allowed: a finite number above 0"),
        (["calibrate", "--budget", "9", "--limit", "1", "--tolerance", "-1"], "tolerance=-1; allowed: a finite number"),
        (["calibrate", "--budget", "9", "--batch-size", "many"], "batch_size must be a positive integer or 'auto'"),
        (["calibrate", "--budget", "9", "--device", "tpu"], "device='tpu'; this machine has cpu"),
        (["calibrate", "--budget", "9", "--include-path", "no_folder"], "include_path='no_folder'; allowed: a folder"),
        (["calibrate", "--budget", "9", "--counter", "both", "--limit", "1"], "counter='both'; allowed: "),
        (["calibrate", "--budget", "9", "--key-ratio", "2", "--limit", "1"], "key_ratio=2"),
        (["compare", "--out", str(ROOT / "README.md")], "README.md' is a file; name a folder"),
        (["compare", "--task", "no_task"], "task='no_task'; allowed: easy_vqa, easy_vqa_validation,"),
        (
            ["compare", "--task", "mme_group", "--include-path", "no_folder"],
            "include_path='no_folder'; allowed: a fold",
        ),
        (["compare", "--limit", "-1"], "limit=-1; allowed: 1 or more, or 0 for all"),
        (["compare", "--methods", "tomee"], "methods: 'tomee'; allowed for llava_next: none, mustdrop,"),
        (["compare", "--model-args", "dtyp=float16"], "unknown model argument 'dtyp'"),
        (
            ["compare", "--pretrained", str(ROOT / "tests")],
            "is a checkpoint of None; allowed: one of llava_next, llava",
        ),
        (["compare", "--processes", "0"], "processes=0; allowed: 1 or more"),
    ],
    ids=lambda value: "_".join(value).replace("-", "")[:60] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_that_names_what_is_allowed(arguments, message):
    assert message in one_line(*arguments)


def test_a_checkpoint_of_another_architecture_is_named(tiny_vilt_checkpoint):
    line = one_line("demo", "--limit", "1", "--pretrained", str(tiny_vilt_checkpoint()))
    assert line.endswith("is a checkpoint of vilt; allowed: one of llava_next")


def test_tasks_path_prints_a_folder_with_tasks():
    assert invoke("tasks-path").output.strip() == str(ROOT / "tasks")


def test_tasks_path_prefers_the_installed_folder_and_says_when_there_is_none(tmp_path):
    package = tmp_path / "lmms_tokendrop"
    for folder in (tmp_path / "tasks" / "a", package / "tasks" / "a"):
        with pytest.raises(FileNotFoundError, match="no tasks in"):
            tasks_path(tmp_path / "elsewhere" / "lmms_tokendrop")
        folder.mkdir(parents=True)
        (folder / "a.yaml").write_text("task: a\n")
        assert tasks_path(package) == folder.parent


def test_demo_compares_the_variants_on_the_bundled_task(tiny_checkpoint, tmp_path):
    output = tmp_path / "folder" / "measurements.json"
    result = invoke("demo", "--limit", "3", "--pretrained", str(tiny_checkpoint("llama")), "--output", str(output))
    assert result.exit_code == 0
    rows = json.loads(output.read_text())
    assert [(row["model_id"], row["budget"]) for row in rows] == [(run.model_id, run.budget) for run in DEMO_RUNS]
    assert all(row["samples"] == 3 for row in rows)
    full, *reduced = rows
    assert full["visual_tokens"] == full["full_visual_tokens"]
    assert full["difference"] == 0
    for row, run in zip(reduced, DEMO_RUNS[1:], strict=True):
        assert row["visual_tokens"] == pytest.approx(run.model_args["keep_ratio"] * PATCHES, abs=1)
        assert row["kv_bytes"] < full["kv_bytes"]
    for run in DEMO_RUNS:
        assert run.model_id in result.output
    assert "KV kB" in result.output
    assert f" {full['kv_bytes'] / 1000:.0f} " in result.output


def test_one_bar_counts_the_questions_of_all_runs(tiny_checkpoint):
    calls = []
    measure(
        DEMO_RUNS[:2],
        task="pocket_scenes",
        pretrained=str(tiny_checkpoint("llama")),
        limit=3,
        progress=lambda *call: calls.append(call),
    )
    assert [done for _, done, _ in calls] == [1, 2, 3, 4, 5, 6]
    assert {total for *_, total in calls} == {6}
    assert [calls[0][0], calls[-1][0]] == ["llava_next_full all", "llava_next_mustdrop 50%"]


@pytest.mark.slow
def test_the_demo_shows_one_bar_and_no_chatter(tiny_checkpoint):
    command = [sys.executable, "-m", "lmms_tokendrop.cli", "demo", "--limit", "2"]
    result = subprocess.run(
        [*command, "--pretrained", str(tiny_checkpoint("llama"))], capture_output=True, text=True, check=True
    )
    [bar] = [line for line in result.stderr.splitlines() if "/14" in line]
    assert bar.startswith("llava_next_random 11%")
    assert "14/14" in bar
    assert not [line for line in result.stderr.splitlines() if "it/s" in line or "INFO" in line]


def test_measurements_of_one_question_are_json():
    cost = {"avg_visual_tokens": 9, "avg_full_visual_tokens": 9, "avg_kv_bytes": 1, "avg_seconds": 1, "avg_n": 1}
    row = measurement(Run("llava_next_full"), {0: 1.0}, {0: 1.0}, cost)
    [read] = json.loads(to_json([row]), parse_constant=lambda name: pytest.fail(name))
    assert (read["accuracy"], read["accuracy_stderr"], read["cost_samples"]) == (1.0, None, 1)

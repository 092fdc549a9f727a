"""Model cards: rendered from results files, golden, valid, and honest about what they lack."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from lmms_tokendrop.cli import app
from lmms_tokendrop.hub.card import standing_cards, template_path, variant_card
from lmms_tokendrop.hub.manifest import CARD, Manifest
from lmms_tokendrop.hub.picture import PICTURE

CARDS = Path(__file__).resolve().parents[2] / "model_cards"
GOLDEN = Path(__file__).parent / "golden_card.md"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPEED = {
    "visual_tokens": 100,
    "text_tokens": 10,
    "kept": 20,
    "drop_after_layer": 0,
    "layers": 2,
    "hidden_size": 64,
    "dtype": "float32",
    "threads": 1,
    "machine": "a test's machine",
    "repeats": 3,
    "stock_seconds": 2.0,
    "stock_range": [1.5, 2.5],
    "reduced_seconds": 1.0,
    "reduced_range": [0.5, 1.5],
    "speed_up": 2.0,
    "macs_speed_up": 2.5,
    "macs_speed_up_full_attention": 3.0,
    "quotient": 0.8,
}
REDUCED, FULL = "b_results.json", "a_results.json"


@pytest.fixture
def folder(tmp_path) -> Path:
    """An exported folder, as far as a card reads it."""
    folder = tmp_path / "exported"
    folder.mkdir()
    config = {
        "architectures": ["LlavaNextTokenDropForConditionalGeneration"],
        "token_reduction": {"method": "mustdrop", "keep_ratio": 0.25},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / PICTURE).touch()
    Manifest(
        package_version="1.2.3",
        variant="llava_next_mustdrop",
        form="config",
        base_model="owner/base",
        base_revision=COMMIT,
        license="llama2",
        base_reduction={"method": "mustdrop"},
        stages=["vision, layer 0, after block", "prefill, layer 2, after block"],
        example_tokens={"full": [192], "layers": [[180, 180, 24, 24]]},
        self_check="weights",
    ).write(folder)
    return folder


def run_file(model: str, model_args: str, tasks: dict[str, float], **config) -> dict:
    """A results file as lmms-eval writes it, as far as a card reads it."""
    return {
        "results": {
            task: {"alias": task, "score,none": value, "score_stderr,none": 0.01} for task, value in tasks.items()
        },
        "configs": {task: {"dataset_path": "owner/questions" if task == "gqa" else "parquet"} for task in tasks},
        "n-samples": {task: {"original": 100, "effective": 100} for task in tasks},
        "config": {"model": model, "model_args": model_args, "limit": None, **config},
        "throughput": {"avg_visual_tokens": 48.25, "avg_full_visual_tokens": 192.0, "avg_kv_bytes": 605000.0},
    }


@pytest.fixture
def results(tmp_path) -> Path:
    """Results of both models, of other settings, and of a benchmark."""
    runs = {
        FULL: run_file("llava_next_full", "pretrained=owner/base", {"gqa": 0.5}),
        REDUCED: run_file("llava_next_mustdrop", "pretrained=owner/base,keep_ratio=0.25", {"gqa": 0.375}),
        "c_results.json": run_file("llava_next_mustdrop", "pretrained=owner/base,keep_ratio=0.5", {"gqa": 0.9}),
        "d_results.json": run_file("llava_next_mustdrop", "pretrained=owner/base", {"gqa": 0.9}),
        "e_results.json": run_file("llava_next_mustdrop", "pretrained=other/base,keep_ratio=0.25", {"gqa": 0.9}),
        "f_results.json": run_file("llava_next_random", "pretrained=owner/base,keep_ratio=0.25", {"gqa": 0.9}),
        "g_results.json": run_file(
            "llava_next_mustdrop", "pretrained=owner/base,keep_ratio=0.25,revision=main", {"gqa": 0.9}
        ),
        "h_results.json": run_file(
            "llava_next_mustdrop", "pretrained=you/exported", {"pope": 0.75, "own_task": 0.25}, limit=100.0
        ),
    }
    folder = tmp_path / "results"
    (folder / "runs").mkdir(parents=True)
    for name, run in runs.items():
        (folder / "runs" / name).write_text(json.dumps(run))
    (folder / "prefill_speed.json").write_text(json.dumps(SPEED))
    return folder


def rendered(folder: Path, results: Path) -> str:
    command = ["card", str(folder), "you/exported", "--results", str(results)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return (folder / CARD).read_text()


def row(card: str, task: str) -> list[str]:
    [line] = [line for line in card.splitlines() if line.startswith(f"| `{task}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_card_equals_the_golden_one(folder, results):
    assert rendered(folder, results) == GOLDEN.read_text()


def test_the_hub_accepts_a_card_and_reads_its_results(hub, folder, results):
    rendered(folder, results)
    card = ModelCard.load(folder / CARD)
    hub.requests.clear()
    card.validate()
    assert hub.requests == ["POST /api/validate-yaml"]
    assert (card.data.base_model, card.data.license, card.data.pipeline_tag) == (
        "owner/base",
        "llama2",
        "image-text-to-text",
    )
    found = {(result.dataset_name, result.dataset_type, result.metric_value) for result in card.data.eval_results}
    assert found == {("gqa", "owner/questions", 0.375), ("pope", "pope", 0.75), ("own_task", "own_task", 0.25)}


def test_only_results_of_this_model_with_these_options_count(folder, results):
    cells = row(rendered(folder, results), "gqa")
    assert cells[2:] == ["100", "0.500 ± 0.010", "0.375 ± 0.010", "-0.125", "48.2 of 192.0", "605"]


def test_costs_of_several_tasks_in_a_run_and_limits_are_not_passed_off(folder, results):
    cells = row(rendered(folder, results), "pope")
    assert cells[2:] == ["100 (the first)", "not measured", "0.750 ± 0.010", *["not measured"] * 3]


@pytest.mark.parametrize(
    ("missing", "cells"),
    [
        (FULL, ["100", "not measured", "0.375 ± 0.010", "not measured", "48.2 of 192.0", "605"]),
        (REDUCED, ["100", "0.500 ± 0.010", *["not measured"] * 4]),
    ],
)
def test_without_a_result_its_cells_say_not_measured(folder, results, missing, cells):
    (results / "runs" / missing).unlink()
    assert row(rendered(folder, results), "gqa")[2:] == cells


def test_without_a_benchmark_time_is_not_measured(folder, results):
    (results / "prefill_speed.json").unlink()
    assert re.search(r"### MACs and time\n\n.*:\n\nnot measured\n", rendered(folder, results))


def test_without_any_result_nothing_is_measured(folder, tmp_path):
    card = rendered(folder, tmp_path)
    assert row(card, "gqa")[2:] == ["not measured"] * 6
    assert "eval_results" not in card
    assert "model-index" not in card


def test_the_commands_name_the_version_that_is_pushed(folder):
    assert CliRunner().invoke(app, ["card", str(folder), "you/exported", "--tag", "second"]).exit_code == 0
    card = (folder / CARD).read_text()
    assert card.count('"second"') == 2
    assert "pretrained=you/exported,revision=second" in card


def test_a_folder_of_results_that_is_not_there_is_an_error(folder, tmp_path):
    done = CliRunner().invoke(app, ["card", str(folder), "you/exported", "--results", str(tmp_path / "absent")])
    assert (done.exit_code, "is no folder" in done.output) == (1, True)


@pytest.mark.parametrize(("name", "card"), standing_cards(CARDS / "results").items())
def test_cards_in_the_source_tree_are_fresh(name, card):
    assert (CARDS / name).read_text() == str(card), "run scripts/render_readme.py"


def test_cards_of_public_variants_say_what_an_export_will_fill_in():
    card = str(variant_card("vilt_pumer"))
    assert "| its revision | resolved at export |" in card
    assert row(card, "tokendrop_vqav2")[2:] == ["not measured"] * 6


def test_the_template_of_an_installed_package_comes_first(tmp_path):
    package = tmp_path / "lmms_tokendrop"
    assert template_path(package) == tmp_path / "model_cards" / "variant.md.jinja"
    (package / "model_cards").mkdir(parents=True)
    (package / "model_cards" / "variant.md.jinja").touch()
    assert template_path(package) == package / "model_cards" / "variant.md.jinja"

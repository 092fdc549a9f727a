"""Model cards: rendered from results files, golden, valid, and honest about what they lack."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from lmms_tokendrop.benchmark.encoder_variants import ARCHITECTURES as ENCODERS
from lmms_tokendrop.cli import app
from lmms_tokendrop.evaluation.tasks_path import tasks_path
from lmms_tokendrop.hub.architectures import ARCHITECTURES
from lmms_tokendrop.hub.card import standing_cards, template_path, variant_card
from lmms_tokendrop.hub.manifest import CARD, Manifest
from lmms_tokendrop.hub.picture import PICTURE
from lmms_tokendrop.pocket.registry import POCKET_MODELS

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
OTHERS = [
    ("llava_next_mustdrop", f"pretrained=owner/base,revision={COMMIT},keep_ratio=0.5"),
    ("llava_next_mustdrop", f"pretrained=owner/base,revision={COMMIT}"),
    ("llava_next_random", f"pretrained=owner/base,revision={COMMIT},keep_ratio=0.25"),
    ("llava_next_mustdrop", f"pretrained=other/base,revision={COMMIT},keep_ratio=0.25"),
    ("llava_next_mustdrop", "pretrained=base,keep_ratio=0.25"),
    ("llava_next_mustdrop", "pretrained=owner/base,revision=main,keep_ratio=0.25"),
    ("llava_next_mustdrop", "pretrained=owner/base,keep_ratio=0.25"),
    ("llava_next_mustdrop", "pretrained=you/exported"),
    ("llava_next_mustdrop", "pretrained=you/exported,revision=v1.2.2"),
    ("llava_next_full", "pretrained=owner/base"),
]
"""Runs of other models, other options, other versions, and of a version that nobody knows."""


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
        bundled=False,
        license="llama2",
        base_reduction={"method": "mustdrop"},
        tuned=False,
        stages=["vision, layer 0, after block", "prefill, layer 2, after block"],
        example_tokens={"full": [192], "layers": [[180, 180, 24, 24]]},
        self_check="weights",
    ).write(folder)
    return folder


def run_file(model: str, model_args: str, tasks: dict[str, float], *, seconds: float = 0.25, **config) -> dict:
    """A results file as lmms-eval writes it, as far as a card reads it; tasks have 100 questions, or more of them."""
    original = 100 if config.get("limit") is None else 400
    return {
        "results": {
            task: {"alias": task, "score,none": value, "score_stderr,none": 0.01} for task, value in tasks.items()
        },
        "configs": {task: {"dataset_path": "owner/questions" if task == "gqa" else "parquet"} for task in tasks},
        "n-samples": {task: {"original": original, "effective": 100} for task in tasks},
        "config": {"model": model, "model_args": model_args, "limit": None, "device": "cpu", **config},
        "throughput": {
            "avg_visual_tokens": 48.25,
            "avg_full_visual_tokens": 192.0,
            "avg_kv_bytes": 605000.0,
            "avg_seconds": seconds,
        },
    }


@pytest.fixture
def results(tmp_path) -> Path:
    """Results of both models, of other settings, and of a benchmark."""
    base = f"pretrained=owner/base,revision={COMMIT}"
    runs = {
        FULL: run_file("llava_next_full", base, {"gqa": 0.5}, seconds=0.5),
        REDUCED: run_file("llava_next_mustdrop", f"{base},keep_ratio=0.25", {"gqa": 0.375}),
        "h_results.json": run_file(
            "llava_next_mustdrop",
            "pretrained=you/exported,revision=v1.2.3",
            {"pope": 0.75, "own_task": 0.25},
            limit=100.0,
        ),
        **{
            f"other_{number}_results.json": run_file(model, model_args, {"gqa": 0.9})
            for number, (model, model_args) in enumerate(OTHERS)
        },
        "shifted_results.json": run_file("llava_next_mustdrop", f"{base},keep_ratio=0.25", {"gqa": 0.9}, offset=50),
    }
    folder = tmp_path / "results"
    (folder / "runs").mkdir(parents=True)
    for name, run in runs.items():
        (folder / "runs" / name).write_text(json.dumps(run))
    (folder / "prefill_speed.json").write_text(json.dumps(SPEED))
    return folder


def changed(folder: Path, **values) -> None:
    replace(Manifest.read(folder), **values).write(folder)


def rendered(folder: Path, results: Path, *more: str) -> str:
    command = ["card", str(folder), "you/exported", "--results", str(results), *more]
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
    [found] = card.data.eval_results  # the other two are of the first 100 questions
    assert (found.dataset_name, found.dataset_type, found.metric_value) == ("gqa", "owner/questions", 0.375)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("license", "my own", "license"),
        ("license", "other", "license_name"),
        ("base_model", "a folder", "base_model"),
        ("pipeline_tag", "magic", "pipeline_tag"),
        ("model_name", "", "model-index"),
    ],
)
def test_the_hub_refuses_a_wrong_card(hub, folder, results, name, value, message):
    rendered(folder, results)
    card = ModelCard.load(folder / CARD)
    setattr(card.data, name, value)
    with pytest.raises(ValueError, match=message):
        card.validate()


def test_a_licence_that_is_no_common_one_gets_a_name(hub, folder):
    changed(folder, license="other")
    assert CliRunner().invoke(app, ["card", str(folder), "you/exported"]).exit_code == 0
    card = ModelCard.load(folder / CARD)
    card.validate()
    assert card.data.license_name == "that-of-the-base-model"


def test_only_results_of_this_model_with_these_options_count(folder, results):
    cells = row(rendered(folder, results), "gqa")
    seconds = "0.500 (cpu) / 0.250 (cpu)"
    assert cells[2:] == ["100", "0.500 ± 0.010", "0.375 ± 0.010", "-0.125", "48.2 of 192.0", "605", seconds]


@pytest.mark.parametrize("limited", [REDUCED, FULL])
def test_no_difference_is_taken_between_different_questions(folder, results, limited):
    path = results / "runs" / limited
    run = json.loads(path.read_text())
    run["n-samples"]["gqa"] = {"original": 2000, "effective": 100}
    run["config"]["limit"] = 100
    path.write_text(json.dumps(run))
    cells = row(rendered(folder, results), "gqa")
    assert (cells[2], cells[5]) == ("100 and 100 (the first)", "not measured")


def test_groups_of_tasks_have_no_row_and_their_tasks_do(folder, results):
    path = results / "runs" / REDUCED
    run = json.loads(path.read_text())
    run["results"]["a_group"] = {"alias": "a_group", "score,none": 0.375}
    path.write_text(json.dumps(run))
    card = rendered(folder, results)
    assert "a_group" not in card
    assert row(card, "gqa")[4] == "0.375 ± 0.010"
    assert row(card, "gqa")[6] == "48.2 of 192.0"


def test_results_of_a_base_folder_count_if_it_is_that_folder(folder, results, tmp_path, monkeypatch):
    changed(folder, base_model="base", base_revision=None, form="full")
    monkeypatch.chdir(tmp_path)
    for number, place in enumerate(("mine/base", "other/base")):
        Path(place).mkdir(parents=True)
        run = run_file("llava_next_mustdrop", f"pretrained={place},keep_ratio=0.25", {"gqa": 0.1 + number})
        (results / "runs" / f"z_{number}_results.json").write_text(json.dumps(run))
    assert row(rendered(folder, results), "gqa")[4] == "not measured"
    assert row(rendered(folder, results, "--base", str(tmp_path / "mine" / "base")), "gqa")[4] == "0.100 ± 0.010"
    refused = CliRunner().invoke(app, ["card", str(folder), "you/exported", "--base", "mine"])
    assert (refused.exit_code, "allowed: the folder 'base'" in refused.output) == (1, True)


def test_a_base_on_the_hub_is_no_folder(folder):
    refused = CliRunner().invoke(app, ["card", str(folder), "you/exported", "--base", "base"])
    assert (refused.exit_code, "the base is no folder" in refused.output) == (1, True)


def test_costs_of_several_tasks_in_a_run_and_limits_are_not_passed_off(folder, results):
    cells = row(rendered(folder, results), "pope")
    assert cells[2:] == ["100 (the first)", "not measured", "0.750 ± 0.010", *["not measured"] * 4]


@pytest.mark.parametrize(
    ("missing", "cells"),
    [
        (
            FULL,
            [
                "100",
                "not measured",
                "0.375 ± 0.010",
                "not measured",
                "48.2 of 192.0",
                "605",
                "not measured / 0.250 (cpu)",
            ],
        ),
        (REDUCED, ["100", "0.500 ± 0.010", *["not measured"] * 4, "0.500 (cpu) / not measured"]),
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
    assert row(card, "gqa")[2:] == ["not measured"] * 7
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
    assert row(card, "tokendrop_vqav2")[2:] == ["not measured"] * 7


@pytest.mark.parametrize("name", ["llava_next_random", "llava_next_full", "vilt_cls_attention"])
def test_time_of_another_method_is_not_this_one_s(results, name):
    assert re.search(r"### MACs and time\n\n.*:\n\nnot measured\n", str(variant_card(name, results)))


@pytest.mark.parametrize(("name", "encoder"), ENCODERS.items())
def test_methods_with_a_benchmark_are_those_that_are_measured(name, encoder):
    methods = {entry.token_reduction["method"] for entry in encoder.variants if entry.token_reduction is not None}
    assert ARCHITECTURES[name].benchmarks == dict.fromkeys(methods, f"throughput-{name}")


@pytest.mark.parametrize("card", standing_cards(CARDS / "results").values(), ids=lambda card: card.data.model_name)
def test_the_evaluation_s_command_finds_its_tasks(card):
    command = re.search(r"^lmms-eval .*?(?=\n```)", str(card), re.DOTALL | re.MULTILINE)[0]
    tasks = re.search(r"--tasks (\S+)", command)[1].split(",")
    own = {path.stem for path in tasks_path().glob("*/*.yaml")} & set(tasks)
    assert bool(own) == any(task.startswith(("pocket", "tokendrop")) for task in tasks)
    assert ('--include_path "$(lmms-tokendrop tasks-path)"' in command) == bool(own)


def test_every_bundled_model_and_every_reduced_variant_on_the_hub_has_a_card():
    names = set(standing_cards(CARDS / "results"))
    assert {"pocket_llava_next_mustdrop.md", "pocket_meter_pumer.md", "pocket_vilt_dynamicvit.md"} <= names
    assert {"llava_next_mustdrop.md", "llava_next_random.md", "vilt_pumer.md", "vilt_tome.md"} <= names
    assert len([name for name in names if name.startswith("pocket_")]) == len(set(POCKET_MODELS.values()))


@pytest.mark.parametrize(
    ("name", "model", "trained", "limited"),
    [
        ("vilt_pumer", "vilt_pumer", "fine-tuned with this method", False),
        ("vilt_dynamicvit", "vilt_dynamicvit", "fine-tuned with this method", False),
        ("vilt_tome", "vilt", "trained without a reduction", True),
    ],
)
def test_cards_of_bundled_models_say_what_they_are(name, model, trained, limited):
    card = variant_card(name, pocket=True)
    assert f"| base model | `{model}`, bundled with lmms_tokendrop, {trained} |" in str(card)
    assert ("trained without this reduction" in str(card)) == limited
    assert "| licence of the weights | apache-2.0 |" in str(card)
    assert (card.data.license, card.data.base_model) == ("apache-2.0", None)


def test_the_template_of_an_installed_package_comes_first(tmp_path):
    package = tmp_path / "lmms_tokendrop"
    assert template_path(package) == tmp_path / "model_cards" / "variant.md.jinja"
    (package / "model_cards").mkdir(parents=True)
    (package / "model_cards" / "variant.md.jinja").touch()
    assert template_path(package) == package / "model_cards" / "variant.md.jinja"

"""Model cards: rendered from results files, golden, valid, and honest about what they lack."""

import json
import re
from pathlib import Path

import pytest
from card_files import FULL, REDUCED, changed, rendered, row, run_file
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from lmms_tokendrop.bench.encoder_variants import ENCODERS
from lmms_tokendrop.catalogue import architecture, variants
from lmms_tokendrop.cli import app
from lmms_tokendrop.evaluation.tasks_path import tasks_path
from lmms_tokendrop.hub.card import standing_cards, variant_card
from lmms_tokendrop.hub.card_check import TEMPLATE
from lmms_tokendrop.hub.folder import CARD
from lmms_tokendrop.hub.shipped import shipped

CARDS = Path(__file__).resolve().parents[2] / "model_cards"
GOLDEN = Path(__file__).parent / "golden_card.md"


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
    (results / "speed_32x512.json").unlink()
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
    assert (CARDS / name).read_text() == str(card), "run scripts/render_docs.py"


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
    assert architecture(name).benchmarks == dict.fromkeys(methods, f"throughput-{name}")


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
    assert len([name for name in names if name.startswith("pocket_")]) == len(
        {entry.pocket for entry in variants() if entry.pocket is not None}
    )


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
    assert shipped(TEMPLATE, package) == tmp_path / "model_cards" / "variant.md.jinja"
    (package / "model_cards").mkdir(parents=True)
    (package / "model_cards" / "variant.md.jinja").touch()
    assert shipped(TEMPLATE, package) == package / "model_cards" / "variant.md.jinja"

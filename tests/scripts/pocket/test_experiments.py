"""Tables of experiments name what can be run."""

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from pocket_experiments import macs, right_by_type

from lmms_tokendrop.modeling.methods.available import reductions
from pocket.experiments import EXPERIMENTS, FULL, experiments, tables_of
from pocket.measuring import pocket_items
from pocket.recipes import SETTINGS

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "model_cards" / "results"
TASK = ROOT / "tasks" / "pocket_scenes" / "pocket_scenes.parquet"


@pytest.mark.parametrize("architecture", EXPERIMENTS)
def test_every_row_is_a_valid_reduction(architecture):
    for entry in experiments(architecture).values():
        options = reductions(architecture).from_dict({"method": entry.method, **entry.reduction})
        assert options.method == entry.method


@pytest.mark.parametrize("architecture", EXPERIMENTS)
def test_a_label_stands_for_one_row(architecture):
    for table in EXPERIMENTS[architecture].values():
        assert all(entry == experiments(architecture)[entry.label] for entry in table)


@pytest.mark.parametrize("architecture", EXPERIMENTS)
def test_rows_of_a_table_differ(architecture):
    assert experiments(architecture)["full"] == FULL
    for table in EXPERIMENTS[architecture].values():
        settings = [(entry.method, entry.reduction, entry.steps, entry.distilled, entry.seed) for entry in table]
        assert all(settings.count(setting) == 1 for setting in settings)


@pytest.mark.parametrize("architecture", EXPERIMENTS)
def test_results_files_list_the_tables(architecture):
    measured = json.loads((RESULTS / f"pocket_{architecture}.json").read_text())
    assert measured["tables"] == tables_of(architecture)


def test_bundled_students_are_rows():
    rows = [
        f"{architecture}_{entry.method}"
        for architecture in EXPERIMENTS
        for entry in experiments(architecture).values()
        if entry.is_bundled(architecture)
    ]
    assert sorted(rows) == sorted(SETTINGS)


@pytest.mark.parametrize("architecture", EXPERIMENTS)
def test_other_methods_cost_what_pumer_costs(architecture):
    rows = experiments(architecture)
    wanted = macs(architecture, rows["PuMer"])
    for label in ("ToMe", "DynamicViT"):
        assert macs(architecture, rows[label]) == pytest.approx(wanted, rel=0.03)


def test_right_answers_are_counted_by_the_type_of_the_question():
    types = ["order", "ground", "ground", "order"]
    found = right_by_type(types, {"0": 1.0, "1": 0.0, "2": 0.0, "3": 1.0})
    assert found == {"ground": {"right": 0.0, "questions": 2}, "order": {"right": 2.0, "questions": 2}}


def test_types_are_those_of_the_questions_that_lmms_eval_asks():
    asked = pyarrow.parquet.read_table(TASK).to_pydict()
    items = pocket_items()
    assert [item.type for item in items] == asked["type"]
    assert [item.text for item in items] == asked["question"]

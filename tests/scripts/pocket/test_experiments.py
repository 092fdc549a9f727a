"""Tables of experiments name what can be run."""

import json
from pathlib import Path

import pytest

from lmms_tokendrop.modeling.methods.available import reductions
from pocket.experiments import EXPERIMENTS, FULL, experiments, tables_of

RESULTS = Path(__file__).resolve().parents[3] / "model_cards" / "results"


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
        settings = [(entry.method, entry.reduction, entry.trained, entry.distilled, entry.seed) for entry in table]
        assert all(settings.count(setting) == 1 for setting in settings)


@pytest.mark.parametrize("architecture", EXPERIMENTS)
def test_results_files_list_the_tables(architecture):
    measured = json.loads((RESULTS / f"pocket_{architecture}.json").read_text())
    assert measured["tables"] == tables_of(architecture)

"""Published figures stand beside those planned or measured here."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import typer

from lmms_tokendrop.cli import app
from lmms_tokendrop.markdown import NOT_MEASURED
from lmms_tokendrop.results.planned import figures, planned_table
from lmms_tokendrop.results.published import published_costs, published_table
from lmms_tokendrop.results.tables import REAL_MODELS

RESULTS = Path(__file__).resolve().parents[2] / "model_cards" / "results"

WHOLE = {"input": 100.0, "release": 100.0, "macs": 4e12, "kv_bytes": 80_000_000}
COST = {"input": 30.0, "release": 20.0, "macs": 1e12, "kv_bytes": 10_000_000}
PLANNED = {
    "small": {
        "patches": 100,
        "unreduced": WHOLE,
        "stock": {**WHOLE, "input": 104.0},
        "rows": [
            {"method": "mustdrop", "budget": 20, "counter": "release", "costs": COST},
            {"method": "fastv", "budget": 20, "counter": "input", "not_reachable": "the smallest is 30"},
        ],
    }
}


def claim(published: float, figure: str, **what) -> dict:
    ours = {"model": "small", "method": "mustdrop", "budget": 20, "counter": "release", "figure": figure, **what}
    return {"claim": figure, "published": published, "unit": "%", "source": "S", "convention": "C", "ours": ours}


PUBLISHED = {
    "costs": [
        claim(80.5, "tokens_saved"),
        claim(70.0, "macs_saved"),
        claim(50.0, "macs_left"),
        claim(9, "kv", budget=5),
    ],
    "accuracy": {
        "small": [
            {
                "source": "S",
                "convention": "C",
                "columns": ["GQA", "POPE"],
                "rows": [
                    {"method": "MustDrop", "ours": "mustdrop", "tokens": 20, "values": {"GQA": 57.3}},
                    {"method": "Other", "ours": None, "tokens": 20, "values": {"POPE": 80.0}},
                ],
            }
        ]
    },
}


@pytest.fixture
def results(tmp_path) -> Path:
    (tmp_path / "planned_costs.json").write_text(json.dumps(PLANNED))
    (tmp_path / "published.json").write_text(json.dumps(PUBLISHED))
    return tmp_path


def cells(table: str, *start: str) -> list[str]:
    [line] = [line for line in table.splitlines() if line.startswith("| " + " | ".join(start))]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_figures_by_hand():
    assert figures(COST, WHOLE) == {
        "tokens_saved": pytest.approx(80),
        "received_saved": pytest.approx(70),
        "macs_left": 25,
        "macs_saved": 75,
        "kv": 10,
        "kv_saved": 70,
        "kv_by_average": 16,
        "kv_saved_by_average": 64,
    }


def test_planned_rows_and_what_cannot_be_reached(results):
    table = planned_table("small")(results)
    assert cells(table, "20", "release")[2:] == ["`mustdrop`", "30.0", "20.0", "1.00", "25.0 %", "10.0", "12.5 %"]
    assert cells(table, "20", "input")[2:4] == ["`fastv`", "not reachable"]
    assert cells(table, "all", "", "unreduced, with newlines")[3] == "104.0"


def test_published_costs_agree_are_near_or_differ(results):
    table = published_costs(results)
    assert cells(table, "tokens_saved")[1:4] == ["80.5 %", "80.0 %", "agrees"]
    assert cells(table, "macs_saved")[1:4] == [
        "70.0 %",
        "75.0 %",
        "near",
    ]


def test_a_cell_is_not_measured_until_the_model_was_run(results):
    table = published_table("small")(results)
    assert cells(table, "20", "MustDrop") == ["20", "MustDrop", "57.3", "", NOT_MEASURED]
    run = {"label": "mustdrop", "budget": "20", "counter": "release", "seed": None, "setting": {}}
    cost = dict.fromkeys(
        ("visual_tokens", "visual_tokens_release", "full_visual_tokens", "decoder_macs", "kv_bytes"), 1.0
    )
    done = {"metric": "exact_match", "value": 0.5, "documents": 2, "scores": [1.0, 0.0], "cost": cost}
    folder = results / "compare_small" / "gqa"
    folder.mkdir(parents=True)
    (folder / "mustdrop.json").write_text(json.dumps({**run, "result": done}))
    table = published_table("small")(results)
    assert cells(table, "20", "MustDrop")[-1] == "GQA 50.0"
    assert cells(table, "20", "Other")[-1] == NOT_MEASURED


@pytest.mark.parametrize("model", ["llava-1.5-7b", "llava-v1.6-vicuna-7b"])
def test_the_command_under_a_table_is_one_that_is_taken(model):
    *_, line = published_table(model)(RESULTS).splitlines()
    program, name, *arguments = shlex.split(line.strip("`"))
    command = typer.main.get_command(app).commands[name]
    given = command.make_context(name, arguments).params
    assert program == "lmms-tokendrop"
    assert given["pretrained"] == f"llava-hf/{model}-hf"
    assert "mustdrop" in given["methods"].split(",")


def test_every_published_cost_is_planned():
    assert NOT_MEASURED not in published_costs(RESULTS)
    planned = json.loads((RESULTS / "planned_costs.json").read_text())
    assert tuple(planned) == REAL_MODELS

"""The cards of the pocket encoders say what their results files say."""

import json
from pathlib import Path

import pytest

from pocket.encoder_card import MODELS, render_card
from pocket.experiments import EXPERIMENTS

CARDS = Path(__file__).resolve().parents[3] / "model_cards"


@pytest.mark.parametrize("architecture", MODELS)
def test_card_is_rendered_from_the_results(architecture):
    card = (CARDS / f"pocket_{architecture}.md").read_text()
    assert card == render_card(architecture, CARDS / "results")
    for row in ("chance", "blind", "PuMer", "random", "Attention guidance"):
        assert row in card


def test_a_row_without_result_is_not_measured(tmp_path):
    measured = json.loads((CARDS / "results" / "pocket_vilt.json").read_text())
    measured["rows"] = {"full": measured["rows"]["full"], "PuMer": measured["rows"]["PuMer"]}
    (tmp_path / "pocket_vilt.json").write_text(json.dumps(measured))
    card = render_card("vilt", tmp_path)
    for entry in EXPERIMENTS["vilt"]["locations"]:
        assert f"| {entry.label} | not measured |" in card
    assert "| PuMer | not measured" not in card

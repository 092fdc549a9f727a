"""The card says what the results file says."""

import json
from pathlib import Path

from pocket.card import write_card

CARDS = Path(__file__).resolve().parents[3] / "model_cards"


def test_card_is_rendered_from_the_results(tmp_path):
    results = json.loads((CARDS / "results" / "pocket_llava_next.json").read_text())
    write_card(results, tmp_path / "card.md")
    assert (tmp_path / "card.md").read_text() == (CARDS / "pocket_llava_next.md").read_text()


def test_card_names_the_rows_that_matter():
    text = (CARDS / "pocket_llava_next.md").read_text()
    for row in ("chance", "blind", "full", "random, 11 % kept", "Attention guidance"):
        assert row in text


def test_card_says_that_easy_vqa_was_trained_on():
    card = (CARDS / "pocket_llava_next.md").read_text()
    assert "on the training half of the public easy-VQA set" in card
    assert "test questions are **in-distribution**" in card

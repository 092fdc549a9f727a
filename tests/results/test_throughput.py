"""The tables of throughput, memory and training steps, from a results file."""

import json

import pytest

from lmms_tokendrop.results.measured import measured_table
from lmms_tokendrop.results.throughput import throughput_table

ONE = {"median": 1.0, "low": 0.9, "high": 1.1}
CONDITIONS = {
    "model": "ViLT-B/32",
    "image_size": 384,
    "text_tokens": 32,
    "dtype": "float32",
    "machine": "x86_64 CPU",
    "threads": 2,
}
THROUGHPUT = {
    "name": "pumer-vqav2",
    "batch_size": 40,
    "examples_per_second": {"median": 9.5, "low": 9.0, "high": 9.9},
    "speed_up_over_stock": {"median": 1.9, "low": 1.85, "high": 2.0},
    "speed_up_over_full": {"median": 1.8, "low": 1.75, "high": 1.85},
    "macs_speed_up": 1.833,
    "quotient": 0.982,
    "paper": "1.76",
}
MEMORY = {
    "name": "pumer-vqav2",
    "mode": "grad",
    "batch_size": 8,
    "before": 1_300_000_000,
    "peak": 1_790_000_000,
    "change_of_added": -0.442,
    "change_of_peak": -0.179,
    "paper": "-45 to -51 %, over tasks",
}
STEP = {
    "name": "pumer-vqav2",
    "batch_size": 8,
    "step_seconds": {"median": 2.0, "low": 1.9, "high": 2.2},
    "teacher_seconds": ONE,
    "speed_up": {"median": 1.7, "low": 1.6, "high": 1.8},
    "speed_up_with_teacher": {"median": 1.5, "low": 1.4, "high": 1.6},
}


@pytest.fixture
def table(tmp_path):
    def render(**parts) -> str:
        (tmp_path / "results.json").write_text(json.dumps(CONDITIONS | parts))
        return measured_table("results.json", throughput_table)(tmp_path)

    return render


def test_every_part_shows_its_figures_beside_the_papers(table):
    text = table(throughput=[THROUGHPUT], memory=[MEMORY], training_step=[STEP])
    assert text.startswith("ViLT-B/32, 384 px, 32 text tokens, float32, x86_64 CPU, 2 threads.")
    for row in (
        "| `pumer-vqav2` | 40 | 9.50 (9.00 to 9.90) | 1.90 (1.85 to 2.00) | 1.80 (1.75 to 1.85) | 1.83 | 0.98 | 1.76 |",
        "| `pumer-vqav2` | grad | 8 | 490 | -44 % | 1790 | -18 % | -45 to -51 %, over tasks |",
        "| `pumer-vqav2` | 8 | 2.00 (1.90 to 2.20) | 1.00 (0.90 to 1.10) | 1.70 (1.60 to 1.80) | 1.50 (1.40 to 1.60) |",
    ):
        assert row in text


def test_what_the_paper_does_not_state_and_what_was_not_measured_says_so(table):
    row = {key: value for key, value in THROUGHPUT.items() if key != "speed_up_over_stock"} | {"paper": ""}
    text = table(throughput=[row], memory=[MEMORY | {"mode": "inference"}])
    assert "9.50 (9.00 to 9.90) | not measured | 1.80" in text
    assert "| 0.98 | not stated |" in text
    assert "| -18 % | not stated |" in text
    assert text.endswith("Training step: not measured")

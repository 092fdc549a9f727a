"""The GPU script: its rows fit their time, all of them run, and a dry run is shown as no measurement."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpu.schedule import BUILD, rows
from gpu.sizes import METHODS, real, tiny
from lmms_tokendrop.markdown import NOT_MEASURED
from lmms_tokendrop.results.gpu import GPU_TABLES

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "measure_gpu.py"
WITHOUT = """
import runpy, sys
for name in ("lmms_eval", "datasets", "psutil"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
sys.argv = ["measure_gpu.py", "--dry-run", "--output", sys.argv[2]]
runpy.run_path(sys.path[0] + "/measure_gpu.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory) -> Path:
    """Where nothing is installed but torch, transformers and what these need."""
    path = tmp_path_factory.mktemp("dry") / "gpu.json"
    command = [sys.executable, "-c", WITHOUT, str(SCRIPT.parent), str(path)]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert "on an H100, by arithmetic; nothing here was measured" in finished.stdout
    return path


def test_all_rows_fit_420_seconds_of_an_h100_also_with_a_flash_kernel():
    planned = list(rows(real(), ("sdpa", "flash_attention_2")))
    assert BUILD + sum(row.seconds for row in planned) <= 420
    batch_1 = [(row.method, row.budget) for row in planned if (row.kind, row.attention) == ("decoder", "sdpa")]
    assert batch_1 == [("full", None), *((method, budget) for budget in (320, 640, 160) for method in METHODS)]


def test_a_dry_run_measures_every_row(dry_run):
    found = json.loads(dry_run.read_text())
    planned = list(rows(tiny(), ("sdpa",)))
    assert [(row["kind"], row["method"], row["budget"]) for row in found["rows"]] == [
        (row.kind, row.method, row.budget) for row in planned
    ]
    assert not [row for row in found["rows"] if "left_out" in row]
    decoders = [row for row in found["rows"] if row["kind"] == "decoder"]
    assert {row["budget"]: round(row["visual_tokens"]) for row in decoders} == {None: 192, 48: 48, 96: 96, 36: 36}
    assert all(
        row["same_tokens"] and not row["largest_difference"] for row in found["rows"] if row["kind"] == "agreement"
    )
    assert {row["batch_size"] for row in found["rows"] if row["kind"] == "largest"} == {2}


def test_tables_are_of_measurements_alone(dry_run, tmp_path):
    for table in GPU_TABLES.values():
        assert table(tmp_path) == table(dry_run.parent) == NOT_MEASURED
    found = json.loads(dry_run.read_text())
    (tmp_path / "gpu.json").write_text(json.dumps({**found, "dry_run": False}))
    decoder, encoders, checks = (table(tmp_path) for table in GPU_TABLES.values())
    assert len(decoder.splitlines()) == 4 + sum(row["kind"] in ("decoder", "largest") for row in found["rows"])
    assert len(encoders.splitlines()) == 4 + sum("examples_per_second" in row for row in found["rows"])
    assert "| `mustdrop` | 48 | 0.0e+00 | yes | not measured | not measured |" in checks


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [SCRIPT.name])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("Error: this machine has no GPU that torch sees")

"""The method of `docs/design.md`, as somebody else's package: evaluated by lmms-eval, and exported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_package import METHOD, write_plugin
from tiny_tasks import DOCUMENTS, write_tasks
from typer.testing import CliRunner

from lmms_tokendrop.catalogue import registry
from lmms_tokendrop.cli import app

COMMAND = "from lmms_tokendrop.cli import app; app()"


def run(plugin: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    """Run Python in a fresh process in which the package is installed."""
    environment = {**os.environ, "COLUMNS": "300", "PYTHONPATH": str(plugin), **variables}
    return subprocess.run(
        [sys.executable, *command], env=environment, check=False, capture_output=True, text=True, timeout=200
    )


def exporting(base: Path, folder: Path) -> list[str]:
    """Arguments of the command that exports the method."""
    arguments = ["export", "llava_next_centre", str(folder), "--base", str(base), "--form", "full"]
    return [*arguments, "--token-reduction", '{"keep_ratio": 0.7}']


def test_lmms_eval_runs_the_method(tiny_checkpoint, tmp_path):
    tasks = write_tasks(tmp_path / "tasks", DOCUMENTS[:2])
    arguments = ["--model", "llava_next_centre", "--model_args", f"pretrained={tiny_checkpoint()},keep_ratio=0.7"]
    arguments += ["--tasks", "tiny_generate", "--include_path", str(tasks), "--device", "cpu"]
    finished = run(
        write_plugin(tmp_path / "installed"),
        *("-m", "lmms_eval", *arguments, "--output_path", str(tmp_path / "results")),
        HF_DATASETS_CACHE=str(tmp_path / "datasets"),
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    [path] = tmp_path.rglob("*_results.json")
    costs = json.loads(path.read_text())["throughput"]
    assert costs["avg_visual_tokens"] == pytest.approx(0.7 * costs["avg_full_visual_tokens"], rel=0.2)
    assert costs["avg_visual_tokens"] < costs["avg_full_visual_tokens"]


def test_an_export_carries_the_method_and_computes_the_same_without_both_packages(tiny_checkpoint, tmp_path):
    """The self-check compares with the package's own model in an interpreter without it."""
    folder = tmp_path / "exported"
    finished = run(write_plugin(tmp_path / "installed"), "-c", COMMAND, *exporting(tiny_checkpoint(), folder))
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert "self-check in a fresh interpreter: passed (weights)" in finished.stdout
    text = (folder / "centre_drop_reducer.py").read_text()
    assert "from .decoder_options import BudgetOptions\nfrom .reducer import Context, Stage, TokenReducer" in text
    available = (folder / "available.py").read_text()
    assert 'REDUCTIONS = Reductions({"none": NoReduction, "centre": CentreDrop})' in available
    assert not any("centre_drop." in path.read_text() for path in folder.glob("*.py"))


@pytest.mark.parametrize(
    ("module", "first", "message"),
    [
        ("reads_numpy", "import numpy", "reads_numpy.py imports numpy; allowed: the standard library, torch, "),
        (
            "reads_itself",
            "from centre_drop import CENTRE",
            "reads_itself.py imports centre_drop; allowed: the standard ",
        ),
        ("reads_more", "from .scores import score", "scores.py is imported, and there is no such file in "),
        ("uniform", "", "uniform.py is also a file of lmms_tokendrop.modeling; give it another name"),
    ],
)
def test_what_an_export_can_t_carry_is_one_line(tiny_checkpoint, tmp_path, monkeypatch, module, first, message):
    plugin = write_plugin(tmp_path / "installed", module, f"{first}\n{METHOD}")
    (plugin / "centre_drop" / "scores.py").write_text("score = None\n")
    monkeypatch.syspath_prepend(plugin)
    for name in ("_architectures", "_methods"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    monkeypatch.setattr(registry, "_plugins_are_loaded", False)
    for name in ("centre_drop", f"centre_drop.{module}"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    arguments = exporting(tiny_checkpoint(), tmp_path / "exported")
    finished = CliRunner(env={"COLUMNS": "300"}).invoke(app, arguments, catch_exceptions=False)
    assert finished.exit_code == 1
    [line] = [line for line in finished.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert not (tmp_path / "exported").exists()

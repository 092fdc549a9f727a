"""The README's commands for the hub, run as they stand against a hub on this machine."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest
from huggingface_hub.cli import hf
from lmms_results import evaluator
from transformers import AutoConfig
from typer.testing import CliRunner

from lmms_tokendrop.cli import app
from lmms_tokendrop.evaluation.manifests import variant
from lmms_tokendrop.evaluation.tasks_path import tasks_path
from lmms_tokendrop.hub import fresh_check

# huggingface_hub hands files to its HTTP library in a way that the library deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
SECTION = re.search(r"## On the model hub\n(.*?)\n## ", README, re.DOTALL)[1]
COMMANDS, PYTHON, EVALUATION = (block for block in re.findall(r"```\w*\n(.*?)```", SECTION, re.DOTALL))


@pytest.fixture(scope="module")
def pushed(hub, base_folder, tmp_path_factory):
    """Run the commands, with a small model in the place of the variant's checkpoint."""
    base = base_folder("llava_next", "mustdrop")
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    hub.create(variant("llava_next_mustdrop").pretrained, {**files, "README.md": b"---\nlicense: llama2\n---\n"})
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("readme")
        patch.chdir(folder)
        (folder / "out").mkdir()
        for line in COMMANDS.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "lmms-tokendrop"
            result = CliRunner().invoke(app, arguments, catch_exceptions=False)
            assert result.exit_code == 0, result.output
    return hub


def test_the_commands_push_a_repository(pushed):
    repository = pushed.repositories["you/llava-next-mustdrop"]
    assert repository.private
    assert list(repository.tags) == re.findall(r'"revision": "(.*?)"', PYTHON)
    assert b"not measured" in pushed.files("you/llava-next-mustdrop")["README.md"]
    assert "model.safetensors" not in pushed.files("you/llava-next-mustdrop")


def test_the_python_example_and_stock_lmms_eval_run_without_the_package(pushed, tmp_path):
    command = EVALUATION.replace("\\\n", "").replace("$(lmms-tokendrop tasks-path)", str(tasks_path()))
    program, *arguments = shlex.split(command)
    assert program == "lmms-eval"
    code = f"""
import runpy, sys
sys.path.append({str(Path(fresh_check.__file__).parent)!r})
import fresh_check
sys.path.pop()
blocker = fresh_check.Blocker()
sys.meta_path.insert(0, blocker)
{PYTHON}
blocker.check()
print(type(model).__name__, model.config.token_reduction, type(processor).__name__)
sys.argv[0] = "lmms_eval"
runpy.run_module("lmms_eval", run_name="__main__")
"""
    finished = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments, "--verbosity", "DEBUG"],
        env={**os.environ, "HF_HOME": str(tmp_path / "stranger"), "HF_DATASETS_CACHE": str(tmp_path / "datasets")},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.startswith("LlavaNextTokenDropForConditionalGeneration {'method': 'mustdrop', ")
    shown = re.search(r"\|pocket_scenes\s*\|.*\|accuracy\s*\|[^|\d]*\|\s*([\d.]+)", finished.stdout)
    run = evaluator(tasks_path())
    plugin = run("llava_next_mustdrop", "pocket_scenes", limit=8, pretrained="you/llava-next-mustdrop")
    assert float(shown[1]) == pytest.approx(plugin["results"]["pocket_scenes"]["accuracy,none"], abs=1e-4)


def test_a_pinned_download_is_a_folder_that_loads(pushed, tmp_path, monkeypatch):
    program, *arguments = shlex.split(re.search(r"`(hf download .*?)`", SECTION)[1])
    monkeypatch.chdir(tmp_path)
    assert program == "hf"
    done = click.testing.CliRunner().invoke(hf.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    folder = re.search(r"`pretrained=(\w+)`", SECTION)[1]
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert (type(config).model_type, config.token_reduction["method"]) == ("llava_next_tokendrop", "mustdrop")

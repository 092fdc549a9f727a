"""The commands and examples of docs/hub.md, in order, against a hub on this machine."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ACTIVATE, PAGES, blocks, paste
from lmms_results import answers, evaluator

from lmms_tokendrop.catalogue import variant
from lmms_tokendrop.evaluation.tasks_path import tasks_path
from lmms_tokendrop.hub import fresh_check

pytestmark = pytest.mark.slow

TEXT = PAGES["hub.md"].read_text()
COMMANDS, (PYTHON,) = "".join(blocks(TEXT, "bash")), blocks(TEXT, "python")
SHORT = COMMANDS.replace("lmms-eval --model", "lmms-eval --limit 8 --model")
REPOSITORY = "you/llava-next-mustdrop"
CLIENT = ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET")


@pytest.fixture(scope="module")
def pasted(hub, base_folder, tmp_path_factory):
    """Return the folder of a shell into which all commands were pasted, with 8 questions in each run.

    On the hub a small model has the place of the variant's checkpoint.
    """
    files = {path.name: path.read_bytes() for path in base_folder("llava_next", "mustdrop").iterdir()}
    hub.create(variant("llava_next_mustdrop").pretrained, {**files, "README.md": b"---\nlicense: llama2\n---\n"})
    folder = tmp_path_factory.mktemp("hub_page")
    (folder / ".venv").symlink_to(sys.prefix)
    paste(ACTIVATE + SHORT, folder, **{name: os.environ[name] for name in CLIENT})
    return folder


def test_the_commands_push_a_repository_with_a_card_of_what_was_measured(pasted, hub):
    repository = hub.repositories[REPOSITORY]
    assert repository.private
    assert list(repository.tags) == re.findall(r'"revision": "(.*?)"', PYTHON)
    assert "model.safetensors" in hub.files(REPOSITORY)
    assert "model.safetensors" not in {path.name for path in (pasted / "mustdrop-7b").iterdir()}
    [row] = re.findall(r"^\| `pocket_scenes` .*$", hub.files(REPOSITORY)["README.md"].decode(), re.MULTILINE)
    assert re.match(r"\| `pocket_scenes` \| accuracy \| 8.* \| [\d.]+ .*\| [\d.]+ .*\| ", row)


def test_the_example_and_stock_lmms_eval_run_without_the_package(pasted, tmp_path):
    [command] = re.findall(r"^lmms-eval --model huggingface(?:.*\\\n)*.*$", COMMANDS, re.MULTILINE)
    command = command.replace("\\\n", "").replace("$(lmms-tokendrop tasks-path)", str(tasks_path()))
    _, *arguments = shlex.split(command)
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
        [sys.executable, "-P", "-c", code, *arguments, "--log_samples", "--output_path", str(tmp_path / "out")],
        env={**os.environ, "HF_HOME": str(tmp_path / "stranger"), "HF_DATASETS_CACHE": str(tmp_path / "datasets")},
        cwd=pasted,
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.startswith("LlavaNextTokenDropForConditionalGeneration {'method': 'mustdrop', ")
    [samples] = (tmp_path / "out").rglob("*_samples_pocket_scenes.jsonl")
    stock = {"samples": {"pocket_scenes": [json.loads(line) for line in samples.read_text().splitlines()]}}
    run = evaluator(tasks_path())
    plugin = run("llava_next_mustdrop", "pocket_scenes", limit=8, pretrained=REPOSITORY, dtype="bfloat16")
    assert answers(stock, "pocket_scenes") == [text for [text] in answers(plugin, "pocket_scenes")]

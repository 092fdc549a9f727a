"""The commands as users type them: one process, and two under accelerate."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from lmms_results import counts

TASKS = "tiny_generate,tiny_choice"
ONE_PROCESS = ["-m", "lmms_eval"]
LAUNCHER = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
"""With ``ACCELERATE_USE_CPU`` set, the launcher for several GPUs starts processes on the CPU."""


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_command(launcher: list[str], checkpoint: Path, task_folder: Path, folder: Path) -> dict:
    """Run lmms-eval's command line and return its results with the samples of each task."""
    command = [sys.executable, *launcher, "--model", "llava_next_mustdrop", "--device", "cpu", "--verbosity", "DEBUG"]
    command += ["--model_args", f"pretrained={checkpoint},keep_ratio=0.4,layers=0+1", "--tasks", TASKS]
    command += ["--include_path", str(task_folder), "--batch_size", "2", "--output_path", str(folder), "--log_samples"]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "datasets"), "ACCELERATE_USE_CPU": "true"}
    finished = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, cwd=folder, timeout=200
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    [path] = folder.rglob("*_results.json")
    results = json.loads(path.read_text())
    results["ranks"] = sorted(set(re.findall(r"Running on rank (\d)", finished.stdout + finished.stderr)))
    results["samples"] = {
        task: [json.loads(line) for line in next(folder.rglob(f"*_samples_{task}.jsonl")).read_text().splitlines()]
        for task in TASKS.split(",")
    }
    return results


@pytest.fixture(scope="module")
def one_process(tiny_checkpoint, task_folder, tmp_path_factory) -> dict:
    return run_command(ONE_PROCESS, tiny_checkpoint("llama"), task_folder, tmp_path_factory.mktemp("one"))


def test_the_command_line_writes_results(one_process, evaluate, tiny_checkpoint):
    options = {"pretrained": tiny_checkpoint("llama"), "keep_ratio": 0.4, "layers": "0+1"}
    expected = evaluate("llava_next_mustdrop", TASKS.split(","), batch_size=2, **options)
    assert counts(one_process) == pytest.approx(counts(expected))
    assert one_process["results"]["tiny_choice"]["acc,none"] == expected["results"]["tiny_choice"]["acc,none"]
    assert one_process["results"]["tiny_generate"]["score,none"] == expected["results"]["tiny_generate"]["score,none"]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(one_process, tiny_checkpoint, task_folder, tmp_path):
    launcher = [*LAUNCHER, "--main_process_port", str(free_port()), *ONE_PROCESS]
    results = run_command(launcher, tiny_checkpoint("llama"), task_folder, tmp_path)
    assert (one_process["ranks"], results["ranks"]) == (["0"], ["0", "1"])
    assert counts(results) == pytest.approx(counts(one_process))
    assert results["throughput"]["total_gen_tokens"] == one_process["throughput"]["total_gen_tokens"]
    for task in TASKS.split(","):
        given, expected = (
            {row["doc_id"]: row["filtered_resps"] for row in run["samples"][task]} for run in (results, one_process)
        )
        assert given.keys() == expected.keys() == set(range(7))
        if task == "tiny_generate":
            assert given == expected
        else:
            for number, row in given.items():
                assert [loss for loss, _ in row] == pytest.approx([loss for loss, _ in expected[number]], abs=1e-4)

"""Runs are done once, whatever ends them in between, and one that fails ends no other."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from lmms_results import evaluator

from lmms_tokendrop.compare import launch, worker
from lmms_tokendrop.compare.calibrating import Calibration
from lmms_tokendrop.compare.evaluating import Result
from lmms_tokendrop.compare.files import unfinished
from lmms_tokendrop.compare.launch import Machine, do_runs, held, time_runs
from lmms_tokendrop.compare.plan import planned
from lmms_tokendrop.compare.runs import Run, Setting

pytestmark = pytest.mark.usefixtures("datasets_cache")

METHODS = ("fastv:K=3", "random", "uniform")


class Killed(BaseException):
    """As a signal ends a process: nothing catches it."""


@pytest.fixture
def setting(tiny_checkpoint) -> Setting:
    return Setting("llava_next", str(tiny_checkpoint("llama")), 3, None, {})


@pytest.fixture
def machine(task_folder) -> Machine:
    return Machine(batch_size="2", device="cpu", include_path=task_folder, offline=True)


@pytest.fixture
def runs(setting) -> list[Run]:
    return planned(setting, ["tiny_generate"], METHODS, ["40%"], "input", [0, 1])


@pytest.fixture
def here(monkeypatch):
    """Make results up, in this process; return what was started, and a dict of what is to end it."""
    started: list[str] = []
    ends: dict[str, BaseException] = {}

    def evaluated(setting, run, **options) -> Result:
        started.append(run.name)
        if run.name in ends:
            raise ends.pop(run.name)
        return Result("score", 1.0, 1, ["red"], [1], {}, {"kv_bytes": 1.0}, seconds=0.5)

    monkeypatch.setattr(worker, "evaluated", evaluated)
    in_this_process(monkeypatch)
    return started, ends


def in_this_process(monkeypatch) -> None:
    """Do a job in this process, with the end that another process would have."""

    def start(folder: Path, machine: Machine, tell: Callable[[str], None]) -> int:
        monkeypatch.setattr(worker, "print", lambda line, **_: tell(line), raising=False)
        try:
            worker.main(folder)
        except (SystemExit, OSError, RuntimeError, TypeError):
            return 1
        return 0

    monkeypatch.setattr(launch, "start", start)


def contents(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*/*.json")}


def test_a_run_is_what_lmms_eval_gives(setting, machine, runs, task_folder, tmp_path, monkeypatch):
    in_this_process(monkeypatch)
    told: list[str] = []
    do_runs(tmp_path, setting, runs, machine, told.append)
    found = contents(tmp_path)
    assert found.keys() == {"full", "fastv_K=3-40pct-input", "uniform-40pct-input"} | {
        f"random-40pct-input-seed_{seed}" for seed in (0, 1)
    }
    expected = evaluator(task_folder)(
        "llava_next_random",
        "tiny_generate",
        batch_size=2,
        limit=3,
        keep_ratio=0.4,
        seed=1,
        pretrained=setting.pretrained,
    )
    run = found["random-40pct-input-seed_1"]
    samples = sorted(expected["samples"]["tiny_generate"], key=lambda sample: sample["doc_id"])
    assert run["result"]["answers"] == [sample["filtered_resps"][0] for sample in samples]
    assert run["result"]["scores"] == [sample["score"] for sample in samples]
    assert run["result"]["value"] == expected["results"]["tiny_generate"]["score,none"]
    for name, value in run["result"]["cost"].items():
        assert value == pytest.approx(expected["throughput"][f"avg_{name}"])
    layers = run["result"]["visual_tokens_per_layer"]
    assert sum(layers) / len(layers) == pytest.approx(run["result"]["cost"]["visual_tokens"])
    assert run["result"]["reduction"].items() >= {"method": "random", "keep_ratio": 0.4, "newlines": "drop"}.items()
    assert run["versions"].keys() >= {"lmms-tokendrop", "torch", "transformers", "lmms-eval"}
    assert "not_reachable" in found["fastv_K=3-40pct-input"]
    assert len(told) == len(runs) == 5
    [reason] = [line for line in told if "fastv" in line]
    assert reason.startswith("tiny_generate, fastv:K=3, 40%, input: not reachable: keep_ratio: an average of")


def test_a_comparison_goes_on_where_it_was_killed(setting, machine, runs, here, tmp_path):
    started, ends = here
    ends["tiny_generate, random, 40%, input, seed 1"] = Killed()
    with pytest.raises(Killed), held(tmp_path):
        do_runs(tmp_path, setting, runs, machine, print)
    before = contents(tmp_path)
    assert before.keys() == {"full", "fastv_K=3-40pct-input", "random-40pct-input-seed_0"}
    (tmp_path / "tiny_generate" / "uniform-40pct-input.1.part").write_text("{")
    started.clear()
    with held(tmp_path):
        assert not list(tmp_path.rglob("*.part"))
        do_runs(tmp_path, setting, runs, machine, print)
    assert started == ["tiny_generate, random, 40%, input, seed 1", "tiny_generate, uniform, 40%, input"]
    assert contents(tmp_path).items() >= before.items()
    started.clear()
    do_runs(tmp_path, setting, runs, machine, print)
    assert started == []


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (RuntimeError("no memory\nleft"), "failed: RuntimeError: no memory left"),
        (TypeError("a fault of the package"), "failed: its process ended with status 1, see compare.log"),
    ],
)
def test_a_run_that_fails_ends_no_other_and_is_tried_again(setting, machine, runs, here, tmp_path, end, reason):
    started, ends = here
    runs = [run for run in runs if run.label in ("full", "random")]
    name = "tiny_generate, random, 40%, input, seed 0"
    ends[name] = end
    told: list[str] = []
    calls: list[tuple] = []
    do_runs(tmp_path, setting, runs, machine, told.append, lambda *call: calls.append(call))
    assert told[1] == f"{name}: {reason}"
    assert calls == [("runs", done, 3) for done in (1, 2, 3)]
    assert sorted("result" in run for run in contents(tmp_path).values()) == [False, True, True]
    started.clear()
    do_runs(tmp_path, setting, runs, machine, told.append)
    assert started == [name]
    assert all("result" in run for run in contents(tmp_path).values())


def test_without_the_unreduced_model_there_is_no_comparison(setting, machine, runs, here, tmp_path):
    here[1]["tiny_generate, full"] = OSError("no such checkpoint")
    with pytest.raises(ValueError, match="full: OSError: no such checkpoint; there is nothing to compare with"):
        do_runs(tmp_path, setting, runs, machine, print)


def test_processes_that_do_not_come_to_a_run_are_an_error(setting, machine, runs, monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "start", lambda folder, machine, tell: 1)
    with pytest.raises(OSError, match=r"no run was started; the reason is in .*compare\.log"):
        do_runs(tmp_path, setting, runs, machine, print)


def test_processes_that_leave_a_run_out_are_an_error(setting, machine, runs, monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "start", lambda folder, machine, tell: 0)
    with pytest.raises(OSError, match="tiny_generate, full: its process ended without a result"):
        do_runs(tmp_path, setting, runs, machine, print)


def test_files_of_another_setting_are_not_mixed(setting, machine, runs, here, tmp_path):
    do_runs(tmp_path, setting, runs[:1], machine, print)
    other = Setting(**{**vars(setting), "limit": 4})
    with pytest.raises(ValueError, match=r"full\.json was run with limit=3, not 4; name another folder"):
        do_runs(tmp_path, other, runs[:1], machine, print)


def test_one_comparison_at_a_time_writes_to_a_folder(tmp_path):
    with held(tmp_path), pytest.raises(ValueError, match="another comparison writes there"), held(tmp_path):
        pytest.fail("held twice")


def test_the_value_that_is_found_is_run_and_kept(setting, machine, here, tmp_path, monkeypatch):
    found = Calibration("global_threshold", 0.01, 24.9, 25.0, "tiny_generate_validation", 100)
    monkeypatch.setattr(worker, "calibrated", lambda *_: found)
    given, original = [], worker.evaluated

    def evaluated(setting, run, **options) -> Result:
        given.append(run.options)
        return original(setting, run, **options)

    monkeypatch.setattr(worker, "evaluated", evaluated)
    monkeypatch.setattr(worker, "ROUNDS", 1)
    method = "mustdrop:global_threshold=calibrated"
    runs = planned(setting, ["tiny_generate"], [method], ["25"], "input", [0])
    do_runs(tmp_path, setting, runs, machine, print)
    time_runs(tmp_path, setting, runs, machine, print)
    assert given == [{}, {"global_threshold": 0.01}] * 2
    assert contents(tmp_path)["mustdrop_global_threshold=calibrated-25-input"]["calibration"] == asdict(found)
    assert unfinished(tmp_path, setting, runs) == []


def test_time_is_measured_in_rounds_and_goes_on_where_it_ended(setting, machine, runs, here, tmp_path, monkeypatch):
    started, ends = here
    for module in (worker, launch):
        monkeypatch.setattr(module, "ROUNDS", 2)
    runs = [run for run in runs if run.label in ("full", "uniform")]
    do_runs(tmp_path, setting, runs, machine, print)
    counts = contents(tmp_path)["full"]["result"]
    started.clear()
    calls: list[tuple] = []
    time_runs(tmp_path, setting, runs[:1], machine, print)
    time_runs(tmp_path, setting, runs, machine, print, lambda *call: calls.append(call))
    assert calls == [("timed runs", 3, 4), ("timed runs", 4, 4)]
    assert started == [f"tiny_generate, {name}" for name in ["full"] * 2 + ["uniform, 40%, input"] * 2]
    found = contents(tmp_path)
    assert all(len(run["seconds"]) == 2 and min(run["seconds"]) > 0 for run in found.values())
    assert found["full"]["result"] == counts
    ends["tiny_generate, full"] = RuntimeError()
    (tmp_path / "tiny_generate" / "full.json").write_text(json.dumps({**found["full"], "seconds": [1.0]}))
    with pytest.raises(OSError, match=r"the time was not measured to the end; the reason is in .*compare\.log"):
        time_runs(tmp_path, setting, runs, machine, print)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"processes": 0}, "processes=0; allowed: 1 or more"),
        ({"batch_size": "0"}, "batch_size must be a positive integer or 'auto', not '0'"),
        ({"device": "tpu"}, "device='tpu'; this machine has cpu"),
    ],
)
def test_a_machine_that_can_not_be_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Machine(**given)


@pytest.mark.slow
def test_a_kill_leaves_no_process_behind_and_the_next_command_goes_on(setting, machine, runs, here, tmp_path):
    command = [sys.executable, "-m", "lmms_tokendrop.cli", "compare", "--pretrained", setting.pretrained]
    command += ["--task", "tiny_generate", "--include-path", str(machine.include_path), "--methods", ",".join(METHODS)]
    command += ["--budgets", "40%", "--seeds", "0,1", "--limit", "3", "--out", str(tmp_path), "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline().startswith("tiny_generate, full: ")
        others = psutil.Process(first.pid).children(recursive=True)
        first.kill()
    assert others
    assert psutil.wait_procs(others, timeout=30)[1] == []
    before = contents(tmp_path)
    with held(tmp_path):
        do_runs(tmp_path, setting, runs, machine, print)
    started, _ = here
    assert len(started) == len(runs) - len(before) > 0
    assert contents(tmp_path).items() >= before.items()


@pytest.mark.slow
def test_two_processes_give_what_one_gives(setting, machine, runs, tmp_path, monkeypatch):
    runs = [run for run in runs if run.label in ("full", "uniform")]
    with monkeypatch.context() as patched:
        in_this_process(patched)
        do_runs(tmp_path / "one", setting, runs, machine, print)
    do_runs(tmp_path / "two", setting, runs, replace(machine, processes=2), print)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")

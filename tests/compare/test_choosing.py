"""Of several candidates the best at each budget is run, chosen on the documents of the validation task."""

import json
from pathlib import Path

import pytest

from lmms_tokendrop.compare.choosing import DOCUMENTS, Choice
from lmms_tokendrop.compare.files import write_run
from lmms_tokendrop.compare.runs import Setting
from lmms_tokendrop.markdown import NOT_MEASURED
from lmms_tokendrop.results.compositions import compositions_table

SETTING = Setting("llava_next", "pocket", 2000, None, {})
FIRST, SECOND = "composed:features=divprune:decoder=fastv", "composed:vision=scope:decoder=mustdrop"
COST = dict.fromkeys(("visual_tokens", "visual_tokens_release", "full_visual_tokens", "decoder_macs", "kv_bytes"), 1.0)


def result(*scores: float) -> dict:
    value = sum(scores) / len(scores)
    return {"metric": "accuracy", "value": value, "documents": len(scores), "scores": list(scores), "cost": COST}


def choice(*candidates: str, tasks=("scenes",)) -> Choice:
    return Choice(SETTING, tasks, candidates, ["25%", "11%"], "input", [0, 1])


def write_trials(folder: Path, of: Choice, scores: dict[tuple[str, str | None], tuple[float, ...]]) -> None:
    for run in of.trials():
        write_run(folder, of.trial_setting, run, result=result(*scores.get((run.label, run.budget), (0, 0, 0, 1))))


def test_candidates_are_tried_on_the_first_documents_of_the_validation():
    tried = choice(FIRST, "random")
    assert tried.trial_setting.limit == DOCUMENTS
    assert {run.task for run in tried.trials()} == {"scenes_validation"}
    assert [run.label for run in tried.trials()] == ["full", FIRST, "random", "random", FIRST, "random", "random"]


def test_the_best_of_each_budget_is_run_on_the_task_and_the_first_of_equals(tmp_path):
    tried = choice(FIRST, SECOND)
    write_trials(tmp_path, tried, {(FIRST, "25%"): (1, 1, 0, 0), (SECOND, "25%"): (1, 1, 1, 0)})
    assert [(run.task, run.label, run.budget) for run in tried.winners(tmp_path)] == [
        ("scenes", SECOND, "25%"),
        ("scenes", FIRST, "11%"),
    ]


def test_a_budget_that_none_reaches_has_no_winner(tmp_path):
    tried = choice("pyramiddrop")
    for run in tried.trials():
        ending = {"not_reachable": "too few"} if run.budget == "11%" else {"result": result(1, 0)}
        write_run(tmp_path, tried.trial_setting, run, **ending)
    assert [run.budget for run in tried.winners(tmp_path)] == ["25%"]


@pytest.mark.parametrize("candidate", ["vision_tome", "fastv:R=0.5", "sparsevlm:rank_ratio=calibrated"])
def test_a_candidate_without_a_budget_is_refused(candidate):
    with pytest.raises(ValueError, match=f"^candidates: '{candidate}'; allowed: methods with a count budget"):
        choice(candidate)


def test_the_table_sets_the_chosen_composition_beside_the_best_single_method(tmp_path):
    assert compositions_table(tmp_path) == NOT_MEASURED
    folder = tmp_path / "compositions"
    trials = {(FIRST, "25%"): (1, 1, 1, 1), ("divprune", "25%"): (1, 1, 0, 1), ("uniform", "25%"): (1, 0, 0, 1)}
    write_trials(folder, choice(FIRST, SECOND, "uniform", "divprune"), trials)
    for run in choice(FIRST, "uniform", "divprune").winners(folder):
        write_run(folder, SETTING, run, result=result(1, 0, 0, 0))
    own = {"label": "uniform", "budget": "25%", "counter": "input", "setting": json.loads(json.dumps(vars(SETTING)))}
    (tmp_path / "compare" / "scenes").mkdir(parents=True)
    (tmp_path / "compare" / "scenes" / "uniform.json").write_text(json.dumps({**own, "result": result(1, 1, 0, 0)}))
    quarter, ninth = compositions_table(tmp_path).splitlines()[2:]
    cells = [cell.strip() for cell in quarter.strip("|").split("|")]
    assert cells == [
        "`scenes`",
        "25%, input",
        f"`{FIRST}`",
        "100.0 ± 0.0",
        "`divprune` 75.0 ± 25.0",
        "+25.0 ± 25.0",
        "25.0 ± 25.0",
        "`uniform` 50.0 ± 28.9",
        "-25.0 ± 25.0",
    ]
    assert ninth.endswith(f"| {NOT_MEASURED} |  |  |")

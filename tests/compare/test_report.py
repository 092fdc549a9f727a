"""Tables, plots and the page have the numbers of the runs' files."""

import json
from pathlib import Path

import pytest

from lmms_tokendrop.benchmark.report import TABLES
from lmms_tokendrop.compare.evaluating import result_of
from lmms_tokendrop.evaluation.cost import COUNTS
from lmms_tokendrop.markdown import NOT_MEASURED
from lmms_tokendrop.report.comparisons import CACHE, MACS, TIME, TOKENS, layer_pictures, score_picture
from lmms_tokendrop.report.drawing import drawn
from lmms_tokendrop.results.compared import read_rows
from lmms_tokendrop.results.compared_table import task_table

COST = {"visual_tokens_release": 40.0, "full_visual_tokens": 192.0, "decoder_macs": 5e8, "kv_bytes": 2e6}


def result(*scores: float, tokens: float = 48.0, value: float | None = None) -> dict:
    return {
        "metric": "accuracy",
        "value": sum(scores) / len(scores) if value is None else value,
        "documents": len(scores),
        "scores": list(scores) if value is None else None,
        "cost": {"visual_tokens": tokens, **COST},
    }


def write(folder: Path, name: str, label: str, budget: str | None = None, seed: int | None = None, **ending) -> None:
    counter = None if budget is None else "input"
    run = {"label": label, "budget": budget, "counter": counter, "seed": seed, "setting": {"pretrained": "pocket"}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({**run, **ending}))


@pytest.fixture
def scenes(tmp_path) -> Path:
    """Four documents, of which MustDrop loses one and random, over two seeds, three."""
    folder = tmp_path / "compare" / "scenes"
    write(folder, "full", "full", result=result(1, 1, 1, 1, tokens=192.0), seconds=[0.03, 0.01, 0.02])
    write(folder, "mustdrop", "mustdrop", "25%", result=result(1, 1, 0, 1), seconds=[0.01])
    write(folder, "random-0", "random", "25%", 0, result=result(1, 0, 0, 0))
    write(folder, "random-1", "random", "25%", 1, result=result(0, 0, 0, 1), seconds=[0.01])
    write(folder, "more", "mustdrop", "50%", result=result(1, 1, 1, 1, tokens=90.0))
    write(folder, "fastv", "fastv", "5%", not_reachable="the smallest reachable average is 12.00")
    write(folder, "tome", "vision_tome", result=result(1, 1, 0, 0, tokens=12.0))
    write(folder, "broken", "uniform", "25%", failed="RuntimeError: no memory")
    return folder


def row(table: str, *start: str) -> list[str]:
    [line] = [line for line in table.splitlines() if line.startswith("| " + " | ".join(start))]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_differences_are_paired_and_random_is_the_mean_of_its_seeds(scenes):
    table = task_table(read_rows(scenes))
    assert table.startswith("4 documents, 192.0 visual tokens each. `random`: mean of 2 seeds.")
    assert row(table, "all", "`full`")[2:] == ["100.0 ± 0.0", "", "", "192.0", "40.0", "0.500", "2000", "20"]
    # Of MustDrop 1, 1, 0, 1: deviations 1/4, 1/4, -3/4, 1/4; error sqrt(3/4 / 3 / 4).
    mustdrop = row(table, "25%, input", "`mustdrop`")
    assert mustdrop[2:] == ["75.0 ± 25.0", "-25.0 ± 25.0", "", "48.0", "40.0", "0.500", "2000", "10"]
    # Of random 1/2, 0, 0, 1/2; MustDrop minus it 1/2, 1, 0, 1/2.
    random = row(table, "25%, input", "`random`")
    assert random[2:5] == ["25.0 ± 14.4", "-75.0 ± 14.4", "+50.0 ± 20.4"]
    assert random[-1] == NOT_MEASURED


def test_rows_are_in_the_order_of_budgets_and_methods_and_what_is_missing_says_why(scenes):
    table = task_table(read_rows(scenes))
    cells = [line.split(" | ")[:3] for line in table.splitlines() if line.startswith("| ")][2:]
    assert [(budget.removeprefix("| "), method.strip("`"), score[:13]) for budget, method, score in cells] == [
        ("all", "full", "100.0 ± 0.0"),
        ("50%, input", "mustdrop", "100.0 ± 0.0"),
        ("25%, input", "mustdrop", "75.0 ± 25.0"),
        ("25%, input", "random", "25.0 ± 14.4"),
        ("25%, input", "uniform", "failed"),
        ("5%, input", "fastv", "not reachable"),
        ("own setting", "vision_tome", "50.0 ± 28.9"),
    ]
    assert table.endswith(
        "- `uniform`, 25%, input: failed: RuntimeError: no memory\n"
        "- `fastv`, 5%, input: not reachable: the smallest reachable average is 12.00"
    )


def test_methods_in_settings_of_their_own_are_compared_with_the_unreduced_model_only(tmp_path):
    write(tmp_path, "full", "full", result=result(1, 1))
    write(tmp_path, "pumer", "pumer", result=result(1, 0, tokens=70.0))
    write(tmp_path, "tome", "tome", result=result(0, 0, tokens=90.0))
    table = task_table(read_rows(tmp_path))
    assert row(table, "own setting", "`tome`")[2:5] == ["0.0 ± 0.0", "-100.0 ± 0.0", ""]


def test_a_score_that_is_no_mean_over_documents_has_no_error(tmp_path):
    write(tmp_path, "full", "full", result=result(0, 0, value=1501.5))
    write(tmp_path, "uniform", "uniform", "25%", result=result(0, 0, value=1400.0))
    table = task_table(read_rows(tmp_path))
    assert "| accuracy |" in table
    assert row(table, "25%, input", "`uniform`")[2:4] == ["1400.0", "-101.5"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"setting": {"pretrained": "other"}}, r"setting=.*other.*another file of the folder has .*pocket"),
        ({"result": result(1, 1, 1)}, "documents=3, and another file of the folder has 4"),
        ({"result": {"value": 1}}, "KeyError"),
    ],
)
def test_files_that_can_not_be_compared_are_named(scenes, changed, message):
    path = scenes / "tome.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(ValueError, match=rf"tome\.json is no run of this comparison .*{message}"):
        read_rows(scenes)


def test_the_picture_has_a_line_for_each_method_and_no_panel_without_numbers(scenes):
    picture = score_picture("scenes", read_rows(scenes))
    assert [panel.across for panel in picture.panels] == [TOKENS, MACS, CACHE, TIME]
    figure = drawn([picture])
    tokens, *_, time = figure.axes
    lines = {container.get_label(): container.lines[0] for container in tokens.containers}
    assert lines.keys() == {"mustdrop", "random", "vision_tome"}
    assert lines["mustdrop"].get_xydata().tolist() == [[48.0, 75.0], [90.0, 100.0]]
    assert lines["vision_tome"].get_linestyle() == "None"
    assert [container.get_label() for container in time.containers] == ["mustdrop"]
    for path in scenes.glob("*.json"):
        path.write_text(
            json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "seconds"})
        )
    assert [panel.across for panel in score_picture("scenes", read_rows(scenes)).panels] == [TOKENS, MACS, CACHE]


def test_tokens_of_each_layer_are_a_picture_for_each_budget_where_runs_have_them(scenes):
    for name, layers in {"full": [192, 192], "mustdrop": [60, 36], "more": [120, 60]}.items():
        path = scenes / f"{name}.json"
        run = json.loads(path.read_text())
        run["result"]["visual_tokens_per_layer"] = layers
        path.write_text(json.dumps(run))
    half, quarter = layer_pictures("scenes", read_rows(scenes))
    assert (half.title, quarter.title) == (
        "scenes, 50%, input: tokens in each layer",
        "scenes, 25%, input: tokens in each layer",
    )
    drawing = drawn([quarter]).axes[0]
    lines = {container.get_label(): container.lines[0].get_xydata().tolist() for container in drawing.containers}
    assert lines == {"full": [[0, 192], [1, 192]], "mustdrop": [[0, 60], [1, 36]]}


def test_documents_show_what_was_compared_and_nothing_before(scenes, tmp_path):
    assert TABLES["compared"](tmp_path / "empty") == ""
    shown = TABLES["compared"](tmp_path)
    assert shown.startswith("![Scores of the methods against their costs](compared.png)\n\n`scenes`:\n\n4 documents")
    assert task_table(read_rows(scenes)) in shown


def lmms_results(value: object, scores: list, metrics: tuple[str, ...] = ("accuracy",)) -> dict:
    samples = [{"doc_id": number, "filtered_resps": ["red"], "accuracy": score} for number, score in enumerate(scores)]
    return {
        "results": {"scenes": {"alias": "scenes", "accuracy,none": value, "accuracy_stderr,none": "N/A"}},
        "configs": {"scenes": {"metric_list": [{"metric": name} for name in metrics]}},
        "samples": {"scenes": samples[::-1]},
        "reduction": {"method": "uniform"},
        "visual_tokens_per_layer": [9.0, 3.0],
        "throughput": {f"avg_{name}": 1.0 for name in (*COUNTS, "seconds")},
    }


@pytest.mark.parametrize(
    ("value", "scores", "kept"),
    [
        (0.5, [1.0, 0.0], [1, 0]),
        (0.5, [True, False], [1, 0]),
        (0.25, [{"score": 0.5, "category": "a"}, {"score": 0.0}], [0.5, 0]),
        (0.9, [1.0, 0.0], None),
        (0.5, ["a", "b"], None),
    ],
)
def test_scores_of_documents_are_kept_where_their_mean_is_the_reported_one(value, scores, kept):
    found = result_of(lmms_results(value, scores), "scenes", None)
    assert (found.metric, found.value, found.scores) == ("accuracy", value, kept)
    assert found.visual_tokens_per_layer == [9.0, 3.0]
    assert (found.answers, found.reduction) == (["red", "red"], {"method": "uniform"})


@pytest.mark.parametrize(("metric", "value"), [("bleu", 0.5), (None, None), (None, float("nan")), (None, "N/A")])
def test_a_metric_without_a_number_is_refused(metric, value):
    with pytest.raises(ValueError, match=r"metric='\w+' of scenes is .*, no number; its metrics: accuracy"):
        result_of(lmms_results(value, [1, 0]), "scenes", metric)


def test_answers_that_are_missing_are_an_error():
    results = lmms_results(0.5, [1, 0])
    results["samples"]["scenes"] = results["samples"]["scenes"][:1]
    with pytest.raises(ValueError, match=r"scenes: the results have documents \[1\]"):
        result_of(results, "scenes", None)

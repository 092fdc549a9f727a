"""Tables and plot of equal budgets have the numbers of the results file."""

import json
from pathlib import Path

import pytest

from lmms_tokendrop.benchmark.budget_rows import ROWS
from lmms_tokendrop.markdown import NOT_MEASURED
from lmms_tokendrop.report.budgets import ablation_picture, budget_picture
from lmms_tokendrop.report.drawing import drawn
from lmms_tokendrop.results.budget_names import RATIOS, SEEDS, row_name
from lmms_tokendrop.results.budgets import ablation_table, budget_table

RESULTS = Path(__file__).resolve().parents[2] / "model_cards" / "results"


def run(scores: str, tokens: float = 48.0, **more):
    return {
        "scores": scores,
        "visual_tokens": tokens,
        "visual_tokens_release": tokens - 8,
        "full_visual_tokens": 192.0,
        "kv_bytes": 2000.0,
        **more,
    }


FOUND = {
    "full": run("1111", 192.0, seconds=0.02),
    "mustdrop, input, 25%": run("1101", seconds=0.01),
    "random, input, 25%, seed 0": run("1000"),
    "random, input, 25%, seed 1": run("0001"),
    "mustdrop, release, 5%": {"not_reachable": "the smallest reachable average is 12.00"},
    "mustdrop, input, 25%, key_ratio 0": run("1001"),
}


@pytest.fixture
def results(tmp_path):
    (tmp_path / "budgets_pocket_scenes.json").write_text(json.dumps(FOUND))
    return tmp_path


def row(table: str, start: str) -> list[str]:
    [line] = [line for line in table.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_differences_are_paired_and_random_is_the_mean_of_its_seeds(results):
    table = budget_table("pocket_scenes")(results)
    assert table.startswith("4 questions, 192 visual tokens; random: mean of 2 seeds.")
    mustdrop = row(table, "| input | 25% | mustdrop")
    assert mustdrop[3:6] == ["75.0 ± 25.0", "-25.0 ± 25.0", ""]
    assert mustdrop[6:] == ["48.0", "40.0", "2", "10"]
    # Questions' scores of random are 0.5, 0, 0, 0.5; MustDrop minus them 0.5, 1, 0, 0.5.
    random = row(table, "| input | 25% | random")
    assert random[3:6] == ["25.0 ± 14.4", "-75.0 ± 14.4", "+50.0 ± 20.4"]
    assert random[9] == NOT_MEASURED


def test_what_was_not_run_and_what_cannot_be_reached_say_so(results):
    table = budget_table("pocket_scenes")(results)
    assert row(table, "| input | 50% | mustdrop")[3] == NOT_MEASURED
    assert row(table, "| release | 5% | mustdrop")[3] == "not reachable"


def test_an_ablation_is_the_change_from_the_defaults(results):
    table = ablation_table("pocket_scenes")(results)
    assert row(table, "| key_ratio 0 ")[1:] == ["50.0 ± 28.9", "-25.0 ± 25.0", NOT_MEASURED, ""]


def test_an_ablation_over_fewer_questions_compares_with_the_defaults_on_these(tmp_path):
    (tmp_path / "budgets_pocket_scenes.json").write_text(
        json.dumps({**FOUND, "mustdrop, input, 25%, key_ratio 0": run("100")})
    )
    table = ablation_table("pocket_scenes")(tmp_path)
    assert table.startswith("3 questions")
    assert row(table, "| defaults ")[1] == "66.7 ± 33.3"
    assert row(table, "| key_ratio 0 ")[1:3] == ["33.3 ± 33.3", "-33.3 ± 33.3"]


def test_a_file_that_is_not_there_is_not_measured(tmp_path):
    assert budget_table("easy_vqa")(tmp_path) == NOT_MEASURED


@pytest.mark.parametrize("task", ROWS)
def test_every_row_has_a_name_of_its_own(task):
    names = [entry.name for entry in ROWS[task]]
    assert len(set(names)) == len(names)


def test_the_picture_has_a_line_for_each_method_and_the_unreduced_model_as_a_level():
    figure = drawn([budget_picture("scenes", FOUND)])
    tokens, _, time = figure.axes
    lines = {container.get_label(): container for container in tokens.containers}
    assert lines.keys() == {"mustdrop", "random"}
    assert lines["mustdrop"].lines[0].get_xydata().tolist() == [[48.0, pytest.approx(75)]]
    (bars,) = lines["random"].lines[2]
    half = 100 * 0.25 / 3**0.5
    assert bars.get_segments()[0].tolist() == [[48.0, pytest.approx(25 - half)], [48.0, pytest.approx(25 + half)]]
    assert tokens.lines[-1].get_ydata() == pytest.approx([100, 100])
    assert [container.get_label() for container in time.containers] == ["mustdrop"]


def test_the_picture_of_options_has_a_bar_for_each_that_was_run():
    found = {**FOUND, "mustdrop, input, 25%, key_ratio 0": run("1100")}
    panel = drawn([ablation_picture("options", found, ["key_ratio 0"])]).axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["defaults", "key_ratio 0"]
    assert [bar.get_width() for bar in panel.patches] == pytest.approx([75, 50])


def shared_rows():
    """Names of rows of this script, and the files of a comparison's runs of the same."""
    yield "full", "full.json"
    for ratio in RATIOS:
        end = f"{100 * ratio:.0f}pct-input"
        for method in ("mustdrop", "uniform"):
            yield row_name(method, "input", ratio), f"{method}-{end}.json"
        for seed in SEEDS:
            yield row_name("random", "input", ratio, f"seed {seed}"), f"random-{end}-seed_{seed}.json"


@pytest.mark.parametrize("task", ["pocket_scenes", "easy_vqa"])
def test_rows_that_a_comparison_has_too_are_the_same_question_by_question(task):
    found = json.loads((RESULTS / f"budgets_{task}.json").read_text())
    for name, file in shared_rows():
        compared = json.loads((RESULTS / "compare" / task / file).read_text())["result"]
        assert "".join(map(str, compared["scores"])) == found[name]["scores"], name
        for cost in ("visual_tokens", "visual_tokens_release", "kv_bytes"):
            assert compared["cost"][cost] == pytest.approx(found[name][cost], rel=1e-9), (name, cost)

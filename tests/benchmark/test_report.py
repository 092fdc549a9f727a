"""Tables come from registries and results files; a missing file says so."""

import json

import pytest

from lmms_tokendrop.benchmark.report import TABLES, render_blocks
from lmms_tokendrop.evaluation.manifests import VARIANTS
from lmms_tokendrop.markdown import NOT_MEASURED, markdown_table
from lmms_tokendrop.modeling.token_reducer import FUSION_PRESETS, PRESETS

ROW = {
    "model_id": "llava_next_full",
    "budget": "all",
    "samples": 10,
    "accuracy": 0.5,
    "accuracy_stderr": 0.1,
    "difference": 0.0,
    "difference_stderr": 0.0,
    "visual_tokens": 192.0,
    "full_visual_tokens": 192.0,
    "kv_bytes": 2048.0,
    "seconds": 0.025,
}


def test_markdown_table():
    assert markdown_table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize("name", ["pocket-scenes", "easy-vqa", "prefill", "throughput-vilt", "throughput-meter"])
def test_a_missing_results_file_is_not_measured(name, tmp_path):
    assert TABLES[name](tmp_path) == NOT_MEASURED


def test_a_comparison_shows_accuracy_with_its_standard_error_and_the_cost(tmp_path):
    reduced = ROW | {"model_id": "llava_next_mustdrop", "budget": "25%", "difference": -0.02, "visual_tokens": 48.0}
    (tmp_path / "pocket_scenes_comparison.json").write_text(json.dumps([ROW, reduced]))
    table = TABLES["pocket-scenes"](tmp_path)
    assert table.startswith("10 questions.")
    assert "| `llava_next_full` | all | 50.0 ± 10.0 |  | 192.0 of 192 | 2 | 25 |" in table
    assert "| `llava_next_mustdrop` | 25% | 50.0 ± 10.0 | -2.0 ± 0.0 | 48.0 of 192 | 2 | 25 |" in table


def test_blocks_are_filled_and_the_rest_is_left(tmp_path):
    text = "before\n<!-- table: prefill -->\nold\n<!-- end -->\nafter"
    assert render_blocks(text, tmp_path) == f"before\n<!-- table: prefill -->\n{NOT_MEASURED}\n<!-- end -->\nafter"


def test_an_unknown_block_raises(tmp_path):
    with pytest.raises(KeyError, match="nonsense"):
        render_blocks("<!-- table: nonsense -->\n<!-- end -->", tmp_path)


def test_tables_of_registries_have_a_row_per_entry(tmp_path):
    assert TABLES["variants"](tmp_path).count("\n") == 1 + len(VARIANTS)
    assert TABLES["presets"](tmp_path).count("\n") == 1 + len(PRESETS)
    assert TABLES["fusion-presets"](tmp_path).count("\n") == 1 + len(FUSION_PRESETS)


@pytest.mark.parametrize(
    ("table", "file"),
    [
        ("pocket-scenes", "pocket_scenes_comparison"),
        ("easy-vqa", "easy_vqa_comparison"),
        ("prefill", "prefill_speed"),
        ("throughput-vilt", "throughput_vilt"),
        ("pocket-vilt-methods", "pocket_vilt"),
    ],
)
@pytest.mark.parametrize(
    ("content", "reason"), [("{", "is not JSON"), ('"text"', "is not what"), ('[{"rows": 1}]', "is not what")]
)
def test_a_results_file_of_something_else_is_named(tmp_path, table, file, content, reason):
    (tmp_path / f"{file}.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{file}\.json {reason}"):
        TABLES[table](tmp_path)


def test_text_of_a_results_file_stays_in_its_cell_and_its_numbers_are_short(tmp_path):
    row = ROW | {"model_id": "a`|\n# b", "budget": "<b>|", "seconds": 1e300}
    (tmp_path / "pocket_scenes_comparison.json").write_text(json.dumps([row]))
    table = TABLES["pocket-scenes"](tmp_path)
    assert table.endswith(r"| a\`\| \# b | \<b\>\| | 50.0 ± 10.0 |  | 192.0 of 192 | 2 | 1.000e+303 |")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "0.5"])
def test_a_value_that_is_no_number_is_refused_with_its_file(tmp_path, value):
    (tmp_path / "pocket_scenes_comparison.json").write_text(json.dumps([ROW | {"seconds": value}]))
    with pytest.raises(ValueError, match=r"pocket_scenes_comparison\.json is not what"):
        TABLES["pocket-scenes"](tmp_path)

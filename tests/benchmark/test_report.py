"""Tables come from registries and results files; a missing file says so."""

import json

import pytest

from lmms_tokendrop.benchmark.markdown import NOT_MEASURED, markdown_table
from lmms_tokendrop.benchmark.report import TABLES, render_blocks
from lmms_tokendrop.evaluation.manifests import VARIANTS
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

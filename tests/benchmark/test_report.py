"""Tables come from registries and results files; a missing file says so."""

import json

import pytest
from card_files import SPEED

from lmms_tokendrop.benchmark.report import TABLES, fill_documents, render_blocks
from lmms_tokendrop.catalogue import variants
from lmms_tokendrop.markdown import NOT_MEASURED, markdown_table
from lmms_tokendrop.modeling.methods.available import reductions


def test_markdown_table():
    assert markdown_table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize("name", ["pocket-scenes", "easy-vqa", "speed-32x512", "throughput-vilt", "throughput-meter"])
def test_a_missing_results_file_is_not_measured(name, tmp_path):
    assert TABLES[name](tmp_path) == NOT_MEASURED


def test_blocks_are_filled_and_the_rest_is_left(tmp_path):
    text = "before\n<!-- table: speed-32x512 -->\nold\n<!-- end -->\nafter"
    assert render_blocks(text, tmp_path) == f"before\n<!-- table: speed-32x512 -->\n{NOT_MEASURED}\n<!-- end -->\nafter"


def test_a_block_that_no_table_has_is_named_and_nothing_is_written(tmp_path):
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text("<!-- table: speed-32x512 -->\n<!-- end -->\n")
    bad.write_text("<!-- table: nonsense -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match=r"bad\.md: table: 'nonsense'; allowed: variants, "):
        fill_documents(tmp_path, [good, bad])
    assert NOT_MEASURED not in good.read_text()
    fill_documents(tmp_path, [good])
    assert good.read_text() == f"<!-- table: speed-32x512 -->\n{NOT_MEASURED}\n<!-- end -->\n"


def test_tables_of_registries_have_a_row_per_entry(tmp_path):
    assert TABLES["variants"](tmp_path).count("\n") == 1 + len(variants())
    for table, architecture in (("presets", "llava_next"), ("fusion-presets", "vilt"), ("meter-presets", "meter")):
        options = [reducer.Options for reducer in reductions(architecture).reducers.values()]
        assert TABLES[table](tmp_path).count("\n") == 1 + sum(len(kind.presets) for kind in options)


@pytest.mark.parametrize(
    ("table", "file"),
    [
        ("pocket-scenes", "budgets_pocket_scenes"),
        ("easy-vqa", "budgets_easy_vqa"),
        ("speed-32x512", "speed_32x512"),
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
    speed = SPEED | {"machine": "<b>|\n# b", "text_tokens": 1e300}
    (tmp_path / "speed_32x512.json").write_text(json.dumps(speed))
    table = TABLES["speed-32x512"](tmp_path)
    assert r"\<b\>| \# b" in table.splitlines()[0]
    assert " 1.000e+300 text tokens" in table


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "0.5"])
def test_a_value_that_is_no_number_is_refused_with_its_file(tmp_path, value):
    (tmp_path / "speed_32x512.json").write_text(json.dumps(SPEED | {"threads": value}))
    with pytest.raises(ValueError, match=r"speed_32x512\.json is not what"):
        TABLES["speed-32x512"](tmp_path)

"""The README's tables are fresh, its example runs, its picture is there."""

import re
from pathlib import Path

from lmms_tokendrop.benchmark.report import render_blocks
from lmms_tokendrop.modeling.transformers_compat import cache_of

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_tables_are_those_of_the_registries_and_results_files():
    assert render_blocks(README, ROOT / "model_cards" / "results") == README


def test_the_python_example_runs_and_meets_its_budget(capsys):
    example = re.search(r"## In Python\n.*?```python\n(.*?)```", README, re.DOTALL)[1]
    names: dict = {}
    exec(example, names)
    (average,) = cache_of(names["out"]).report().average_visual_tokens
    assert abs(average - 48) < 1
    assert names["question"].text in capsys.readouterr().out


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []

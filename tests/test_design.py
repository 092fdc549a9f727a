"""The page about the design: its pictures, and the files that it names. Its example is run by test_plugin.py."""

import re
from textwrap import indent

import pytest
from documents import PAGES, ROOT
from draw_design import arrows, drawn, rooms

DESIGN = PAGES["design.md"].read_text()
FILES = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("[!.]*/**/*.py")}
THEIRS = {"centre_drop/centre_drop_reducer.py", "centre_drop/__init__.py"}
"""Files of the example."""


def test_the_pictures_are_those_of_the_imports():
    assert DESIGN.count("```mermaid") == 2
    assert drawn(DESIGN) == DESIGN


def test_the_example_of_an_architecture_is_llava_as_it_is():
    section = DESIGN.split("## Add an architecture")[1].split("\n## ")[0]
    model, entry = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    package = ROOT / "lmms_tokendrop"
    assert (package / "modeling/architectures/modeling_llava_tokendrop.py").read_text().endswith(model)
    assert indent(entry.rstrip(), "    ") in (package / "catalogue/architectures.py").read_text()


@pytest.mark.parametrize("page", ["design.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(page):
    named = set(re.findall(r"`([\w/]+\.py)`", PAGES[page].read_text())) - THEIRS
    assert named
    for name in named:
        assert any(f"/{file}".endswith(f"/{name}") for file in FILES), name


def test_a_picture_shows_rooms_and_leaves_out_what_other_arrows_imply(tmp_path):
    files = {
        "top/a.py": "from house.middle.b import x\nfrom ..low.c import y\nimport torch",
        "middle/b.py": "def f():\n    import house.low.c",
        "low/c.py": "import house\nfrom . import d",
        "low/d.py": "from house.beside import z",
    }
    for name, text in files.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    found = rooms(tmp_path / "house")
    assert found == {"low": set(), "middle": {"low"}, "top": {"low", "middle"}}
    assert arrows(found) == [("middle", "low"), ("top", "middle")]

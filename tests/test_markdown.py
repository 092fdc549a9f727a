"""Text, names and numbers from elsewhere read as they are wherever Markdown is rendered."""

import pytest
from markdown_it import MarkdownIt

from lmms_tokendrop.json_files import read_json, read_json_object
from lmms_tokendrop.markdown import code, escaped, markdown_table, number

HOSTILE = [
    "<script>alert(1)</script>",
    "a | b",
    "one\n\n# two",
    "`code`",
    "![picture](https://elsewhere.example/p.png)",
    "[link](javascript:alert(1))",
    "**bold** _slanted_ ~~gone~~",
    "- item",
    "1. item",
    "# heading",
    "---",
    "===",
    "&lt;b&gt;",
    "back\\slash \\| pipe",
    "\\",
    "x86_64",
    "www.elsewhere.example and https://elsewhere.example",
]
PARSER = MarkdownIt("gfm-like", {"linkify": False})


def plain(text: str) -> str:
    return " ".join(text.split())


def shown(tokens) -> list[str]:
    """Content of every inline block, which has to be plain text."""
    blocks = [token.children for token in tokens if token.type == "inline"]
    assert all(child.type in ("text", "text_special", "code_inline") for children in blocks for child in children)
    return ["".join(child.content for child in children) for children in blocks]


@pytest.mark.parametrize("render", [escaped, code])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_reads_as_it_is_in_a_paragraph_a_list_and_a_table(render, text):
    for before, kinds in (("", ["paragraph"]), ("- ", ["bullet_list", "list_item", "paragraph"])):
        tokens = PARSER.parse(before + render(text))
        assert [token.type.removesuffix("_open") for token in tokens if token.nesting == 1] == kinds
        assert shown(tokens) == [plain(text)]
    table = PARSER.parse(markdown_table(("a", "b"), [(render(text), "c")]))
    assert shown(table) == ["a", "b", plain(text), "c"]


def test_what_cannot_be_printed_is_replaced():
    assert escaped("a\x00b\u202ec") == "a\ufffdb\ufffdc"
    assert escaped("https://elsewhere.example") == r"https\://elsewhere.example"


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.375, ".3f", "0.375"),
        (1e308, ".3f", "1.000e+308"),
        (-1e308, "+.1f", "-1.000e+308"),
        (10**300, "d", "1.000e+300"),
        (999_999_999, ",d", "999,999,999"),
    ],
)
def test_numbers_are_short(value, form, text):
    assert number(value, form) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None, True, 10**400])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError, match="is no finite number"):
        number(value)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b""])
def test_a_file_that_is_not_json_is_named(tmp_path, content):
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"some\.json is not JSON"):
        read_json(path)


def test_a_file_that_holds_no_object_is_named(tmp_path):
    (tmp_path / "some.json").write_text("[]")
    with pytest.raises(ValueError, match=r"some\.json holds a JSON list"):
        read_json_object(tmp_path / "some.json")

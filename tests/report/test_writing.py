"""A report of results files: what it has of each kind, and what it refuses."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from card_files import SPEED
from typer.testing import CliRunner

from lmms_tokendrop.benchmark.comparison import Measurement, to_json
from lmms_tokendrop.cli import app
from lmms_tokendrop.report.kinds import KINDS, read_sections
from lmms_tokendrop.report.writing import PAGE, PICTURES, TEXT, write_report

RESULTS = Path(__file__).resolve().parents[2] / "model_cards" / "results"
DEMO = [
    Measurement("llava_next_full", "all", 4, 4, 1.0, 0.0, 0.0, 0.0, 192.0, 192.0, 3.8e6, 0.04),
    Measurement("llava_next_mustdrop", "25%", 4, 4, 0.75, 0.25, -0.25, 0.25, 45.0, 192.0, 9e5, 0.02),
]
SECONDS = {"median": 0.25, "low": 0.25, "high": 0.5}
GPU = {
    "dry_run": False,
    "machine": {"machine": "a card", "torch": "2", "transformers": "5"},
    "dtype": "bfloat16",
    "rows": [
        {
            "kind": "decoder",
            "method": "fastv",
            "budget": 320,
            "attention": "sdpa",
            "batch_size": 1,
            **dict.fromkeys(("vision_seconds", "first_token_seconds", "token_seconds"), SECONDS),
            "visual_tokens": 320.0,
            "peak_bytes": 15e9,
            "kv_bytes": 168e6,
        },
        {"kind": "decoder", "method": "dart", "budget": 320, "attention": "sdpa", "left_out": "7 s, 3 s left"},
    ],
}
MADE = {"gpu.json": json.dumps(GPU), "speed_32x512.json": json.dumps(SPEED), "demo.json": to_json(DEMO)}
"""Files that the repository has none of."""

SHOWN = {
    "lmms-tokendrop demo": (
        "demo.json",
        "| `llava_next_mustdrop` | 25% | 75.0 ± 25.0 | -25.0 ± 25.0 | 45.0 | 900 | 20 |",
    ),
    "lmms-tokendrop compare": ("compare/pocket_scenes/full.json", "| all | `full` | 92.1 ± 0.6 |"),
    "measure_budgets.py": ("budgets_pocket_scenes.json", "| decode alone | 89.4 ± 1.0 |"),
    "pocket_experiments.py": ("pocket_vilt.json", "| PuMer | 84.5 ± 0.8 |"),
    "measure_pocket_llava_next.py": ("pocket_llava_next.json", "| digit_by_color_shape | 268 | 100.0 | 1.1 |"),
    "lmms-tokendrop bench": ("speed_32x512.json", "| prefill | 96x96 | `mustdrop` | 1000.0 (500.0 to 1500.0) |"),
    "lmms-tokendrop bench, of encoders": ("throughput_vilt.json", "| `pumer-vqav2` | grad | 8 | 489 |"),
    "measure_gpu.py": (
        "gpu.json",
        f"| `fastv` | 320 | `sdpa` | 1 | 320.0 {'| 250.0 (250.0 to 500.0) ' * 3}| 15.00 | 168.0 |",
    ),
    "plan_real_models.py": ("planned_costs.json", "| 64 | release | `mustdrop` |"),
    "published.json": ("published.json", "planned here"),
}
"""Of each kind a file of the repository, or of this test, and what a report of it has."""


def copied(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name in MADE:
        path.write_text(MADE[name])
    else:
        shutil.copyfile(RESULTS / name, path)
    return path


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_every_kind_of_file_is_shown(kind, tmp_path):
    name, line = SHOWN[kind]
    copied(tmp_path, name)
    sections = read_sections(tmp_path)
    assert any(line in section.text for section in sections)
    assert {section.source.rstrip("/") for section in sections} <= {name, str(Path(name).parent)}


class Fetched(HTMLParser):
    """What a page would fetch, and the text of its pictures."""

    def __init__(self, page: str):
        super().__init__()
        self.pictures: dict[str, str] = {}
        self.others: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "img":
            self.pictures[given["alt"]] = given.pop("src")
        self.others += [value for name, value in given.items() if name in ("src", "href", "srcset", "data", "action")]


def test_the_page_has_everything_in_itself_and_the_same_as_the_markdown(tmp_path):
    copied(tmp_path / "results", "throughput_vilt.json")
    copied(tmp_path / "results", "speed_32x512.json")
    text = write_report(read_sections(tmp_path / "results"), tmp_path / "out", "Speed & <memory>")
    assert (tmp_path / "out" / TEXT).read_text() == text
    assert text.startswith(
        "# Speed \\& \\<memory\\>\n\n## Speed of parts, speed_32x512\n\nFrom `speed_32x512.json`.\n\n!["
    )
    page = (tmp_path / "out" / PAGE).read_text()
    assert "<h1>Speed &amp; &lt;memory&gt;</h1>" in page
    found = Fetched(page)
    assert {link[0] for link in found.others} == {"#"}
    assert not re.search(r"url\((?!#)|@import|<script", unquote(page))
    shown = re.findall(rf"!\[(.*)\]\(({PICTURES}/.*)\)", text)
    assert [alternative.replace("\\", "") for alternative, _ in shown] == list(found.pictures)
    for (_, file), address in zip(shown, found.pictures.values(), strict=True):
        assert unquote(address.removeprefix("data:image/svg+xml,")) == (tmp_path / "out" / file).read_text()
    assert page.count("<table ") == page.count('<div class="scroll"') == text.count("| --- |\n")


def test_pictures_of_an_earlier_report_are_gone(tmp_path):
    file = copied(tmp_path, "throughput_vilt.json")
    write_report(read_sections(tmp_path), tmp_path, "Speed")
    file.rename(tmp_path / "throughput_again.json")
    write_report(read_sections(tmp_path), tmp_path, "Speed")
    assert all("again" in path.name for path in (tmp_path / PICTURES).iterdir())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.json", "{", "broken.json is not JSON"),
        ("other.json", '{"a": 1}', "other.json is no results file that is known; allowed: those of lmms-tokendrop com"),
        ("list.json", "[]", "list.json is no results file that is known"),
        (
            "budgets_x.json",
            '{"full": {"scores": "11"}, "uniform, input, 5%": {}}',
            "budgets_x.json is not what the mea",
        ),
        ("compare/x/full.json", '{"label": 1, "budget": 1, "counter": 1, "setting": 1}', "full.json is no run of this"),
    ],
)
def test_a_file_that_can_not_be_shown_is_named_in_one_line(tmp_path, name, content, message):
    copied(tmp_path, "speed_32x512.json")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    result = invoke(tmp_path)
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message in line
    assert not (tmp_path / PAGE).exists()


@pytest.mark.parametrize(
    ("name", "number", "named"),
    [
        ("compare/pocket_scenes/full.json", "3789", "compare/pocket_scenes: nan is no"),
        ("pocket_vilt.json", "145.0", "vilt.json"),
    ],
)
def test_what_is_no_number_is_refused_by_file(tmp_path, name, number, named):
    path = copied(tmp_path, name)
    path.write_text(re.sub(rf"{number}[\d.]*", "NaN", path.read_text()))
    with pytest.raises(ValueError, match=named):
        read_sections(tmp_path)


def test_other_mistakes_are_one_line_too(tmp_path):
    for arguments, message in {
        (tmp_path / "none",): "none'; allowed: a folder of results files",
        (tmp_path,): "no results; allowed: a folder with JSON files of lmms-tokendrop compare, ",
        (RESULTS, "--out", RESULTS / "published.json"): "is a file; name a folder",
        (RESULTS, "--fill", tmp_path / "none.md"): "No such file or directory",
        (RESULTS, "--fill", tmp_path / "none.md", "--title", "A"): "title: has no effect with fill",
    }.items():
        result = invoke(*arguments)
        assert (result.exit_code, message in result.stderr) == (1, True), result.stderr


def test_the_command_says_what_it_wrote_and_leaves_out_its_own_files(tmp_path):
    path = copied(tmp_path, "speed_32x512.json")
    (tmp_path / ".job.json").write_text("{")
    assert invoke(tmp_path).stdout.split() == [str(tmp_path / TEXT), str(tmp_path / PAGE)]
    first = (tmp_path / TEXT).read_text()
    assert invoke(tmp_path, "--title", "Mine").exit_code == 0
    assert (tmp_path / TEXT).read_text().splitlines()[0] == "# Mine"
    assert (tmp_path / TEXT).read_text().splitlines()[1:] == first.splitlines()[1:]
    assert path.exists()


def test_tables_of_a_document_are_filled(tmp_path):
    copied(tmp_path, "speed_32x512.json")
    document = tmp_path / "page.md"
    document.write_text("# Mine\n\n<!-- table: speed-32x512 -->\nold\n<!-- end -->\n")
    assert invoke(tmp_path, "--fill", document).output.split() == [str(document)]
    text = document.read_text()
    assert "| prefill | 96x96 | `mustdrop` | 1000.0 (500.0 to 1500.0) |" in text
    assert "old" not in text
    assert not (tmp_path / PAGE).exists()

"""Cards take nothing on trust: text stays text, a file of something else is named, and what does not count says why."""

import json
import re
from pathlib import Path

import pytest
from card_files import COMMIT, FULL, OTHERS, REDUCED, changed, rendered, row
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from lmms_tokendrop import TokenReductionConfig
from lmms_tokendrop.cli import app
from lmms_tokendrop.hub.card_check import check_card
from lmms_tokendrop.hub.folder import CARD, MANIFEST
from lmms_tokendrop.modeling.core.decoder_options import FORMAT

HOSTILE = "a|b`\n\n# heading\n---\nlicense: mit\n\n<script>alert(1)</script> ![x](https://elsewhere.example)"


def command(folder: Path, *arguments: str):
    return CliRunner().invoke(app, ["card", str(folder), "you/exported", *arguments], catch_exceptions=False)


def refused(folder: Path, *arguments: str) -> str:
    done = command(folder, *arguments)
    assert done.exit_code == 1
    [line] = done.output.splitlines()
    return line


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def structure(card: ModelCard) -> list[str]:
    """Everything that a reader of the Markdown sees beside plain text, tables apart."""
    blocks = MarkdownIt("gfm-like", {"linkify": False}).parse(card.text)
    parts = [*blocks, *(part for block in blocks for part in block.children or ())]
    plain = {"text", "text_special", "softbreak", "inline", "code_inline"}
    return [part.type for part in parts if part.type not in plain and not part.type.startswith(("t", "p"))]


def test_hostile_text_in_results_and_in_the_record_stays_text(folder, results):
    changed(folder, base_model="base", base_revision=None, form="full")
    plain = ModelCard(rendered(folder, results))
    changed(folder, base_model=HOSTILE, license=HOSTILE, stages=[HOSTILE, "second"])
    hostile = lambda run: (  # noqa: E731
        run["config"].update(device=HOSTILE),
        run.update({place: {HOSTILE: run[place].pop("own_task"), **run[place]} for place in ("configs", "n-samples")}),
        run["results"].update({HOSTILE: {f"{HOSTILE},none": 0.5}}),
    )
    edit(results / "runs" / "h_results.json", hostile)
    card = ModelCard(rendered(folder, results))
    assert structure(card) == structure(plain)
    assert card.data.license == HOSTILE
    assert "<script>" not in card.text.replace(r"\<script\>", "")


def test_large_numbers_are_short_in_text(folder, results):
    edit(results / "runs" / REDUCED, lambda run: run["results"]["gqa"].update({"score,none": 1e308}))
    edit(results / "runs" / REDUCED, lambda run: run["throughput"].update(avg_kv_bytes=1e300))
    cells = row(rendered(folder, results), "gqa")
    assert (cells[4], cells[5], cells[7]) == ("1.000e+308 ± 0.010", "+1.000e+308", "1.000e+297")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused_with_its_file(folder, results, value):
    edit(results / "runs" / REDUCED, lambda run: run["results"]["gqa"].update({"score,none": value}))
    assert f"{REDUCED} is no results file of lmms-eval (ValueError: gqa, score is {value!r}" in refused(
        folder, "--results", str(results)
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds a JSON list"),
        ("{}", "is no results file of lmms-eval (KeyError: 'config')"),
        ('{"config": {"model": "llava_next_full", "model_args": 3}}', "is no results file of lmms-eval (TypeError"),
    ],
)
def test_a_results_file_of_something_else_is_named(folder, results, content, reason):
    (results / "runs" / "z_results.json").write_text(content)
    assert f"z_results.json {reason}" in refused(folder, "--results", str(results))


def test_a_broken_benchmark_file_is_named(folder, results):
    (results / "speed_32x512.json").write_text("{}")
    assert "speed_32x512.json is not what the measurement writes" in refused(folder, "--results", str(results))


def test_every_run_that_does_not_count_says_why(folder, results):
    done = command(folder, "--results", str(results))
    reasons = dict(line.removeprefix("left out ").split(": ", 1) for line in done.output.splitlines()[:-1])
    reasons = {Path(path).name: reason for path, reason in reasons.items()}
    version = f"counted: pretrained=you/exported,revision=v1.2.3 or pretrained=owner/base,revision={COMMIT}"
    default = TokenReductionConfig.from_dict({"method": "mustdrop"}).keep_ratio
    said = [
        "keep_ratio=0.5; counted: keep_ratio=0.25",
        f"keep_ratio={default}, counter='release'; counted: keep_ratio=0.25, counter='input'",
        "model 'llava_next_random'; counted: llava_next_mustdrop and llava_next_full",
        f"pretrained=other/base,revision={COMMIT}; {version}",
        f"pretrained=base without a revision; {version}",
        f"pretrained=owner/base,revision=main; {version}",
        f"pretrained=owner/base without a revision; {version}",
        f"pretrained=you/exported without a revision; {version}",
        f"pretrained=you/exported,revision=v1.2.2; {version}",
        f"pretrained=owner/base without a revision; {version}",
    ]
    assert len(said) == len(OTHERS)
    assert reasons == {
        **{f"other_{number}_results.json": reason for number, reason in enumerate(said)},
        "shifted_results.json": "it starts at question 50",
        "h_results.json": "its costs are means over several tasks; its scores count",
    }


@pytest.mark.parametrize(
    ("base_reduction", "model_args"),
    [
        ({"method": "mustdrop"}, f"pretrained=owner/base,revision={COMMIT},keep_ratio=0.25"),
        ({"method": "mustdrop", "keep_ratio": 0.25}, f"pretrained=owner/base,revision={COMMIT}"),
    ],
    ids=["stock base", "base with options"],
)
def test_an_export_from_before_format_numbers_counts_runs_of_its_rule_only(folder, results, base_reduction, model_args):
    edit(folder / "config.json", lambda config: config["token_reduction"].pop("format"))
    changed(folder, base_reduction=base_reduction)
    for other in (results / "runs").glob("other_*"):
        other.unlink()
    edit(results / "runs" / REDUCED, lambda run: run["config"].update(model_args=model_args))
    assert row(rendered(folder, results), "gqa")[4] == "0.375 ± 0.010"
    edit(results / "runs" / REDUCED, lambda run: run["config"].update(model_args=f"{model_args},format={FORMAT}"))
    said = command(folder, "--results", str(results)).output
    assert re.search(rf"{REDUCED}: format={FORMAT}, .*newlines='drop'.*; counted: format=1, .*newlines='row'", said)


def test_a_run_with_an_option_that_the_method_has_not_says_so(folder, results):
    edit(results / "runs" / REDUCED, lambda run: run["config"].update(model_args="pretrained=owner/base,old_option=1"))
    assert (
        f"{REDUCED}: model_args: unknown model argument 'old_option'"
        in command(folder, "--results", str(results)).output
    )


@pytest.mark.parametrize(("counted", "said"), [(40.0, "40"), (None, "an unknown number of")])
def test_means_of_costs_over_a_part_of_the_questions_are_refused(folder, results, counted, said):
    edit(results / "runs" / REDUCED, lambda run: run["throughput"].update(avg_n=counted))
    if counted is None:
        edit(results / "runs" / REDUCED, lambda run: run["throughput"].pop("avg_n"))
    done = command(folder, "--results", str(results))
    assert (
        f"{REDUCED}: its costs are means over {said} samples, not over 100 questions; its scores count" in done.output
    )
    cells = row((folder / CARD).read_text(), "gqa")
    assert cells[4:] == [
        "0.375 ± 0.010",
        "-0.125",
        "not measured",
        "not measured",
        "0.500 (cpu) / not measured",
    ]


@pytest.mark.parametrize("name", [MANIFEST, "config.json"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_file_of_the_export_is_named(folder, name, content):
    (folder / name).write_text(content)
    assert f"{name} {'is not JSON' if content == '{' else 'holds a JSON list'}" in refused(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("stages", "text"), ("bundled", "yes"), ("license", ["mit"]), ("example_tokens", {"full": 1})],
)
def test_a_record_of_other_types_is_refused(folder, field, value):
    edit(folder / MANIFEST, lambda record: record.update({field: value}))
    assert field in refused(folder)


@pytest.mark.parametrize("name", [CARD, "config.json", MANIFEST, "more.txt"])
def test_no_link_of_a_folder_is_read_or_written_through(folder, tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"secret")
    before = secret.read_bytes()
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    assert f"{name}: not allowed in an exported folder" in refused(folder)
    assert secret.read_bytes() == before


@pytest.mark.parametrize("linked", [f"runs/{FULL}", "speed_32x512.json", "runs"])
def test_no_link_among_the_results_is_followed(folder, results, tmp_path, linked):
    (results / linked).rename(tmp_path / "elsewhere")
    (results / linked).symlink_to(tmp_path / "elsewhere")
    assert f"{linked} is a link" in refused(folder, "--results", str(results))


def test_a_link_to_a_folder_is_no_folder(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert "is a link; name the folder" in refused(tmp_path / "link")


@pytest.mark.parametrize(
    "tag", ["a b", "-x", "a..b", "a.lock", "v1.", "a,revision=main", "a~1", "main", COMMIT, "", "x" * 101, "ü"]
)
def test_a_tag_that_git_or_a_command_would_misread_is_refused(folder, tag):
    line = refused(folder, f"--tag={tag}")
    assert f"tag {tag!r}; allowed: " in line


@pytest.mark.parametrize("name", ["exported", "you/a/b", "you/a b", "../you", "you/a--b", "you/a..b", "you/x.git"])
def test_a_name_that_is_no_repository_is_refused(folder, name):
    done = CliRunner().invoke(app, ["card", str(folder), name])
    assert (done.exit_code, f"repository {name!r}" in done.output) == (1, True)
    assert not (folder / CARD).exists()


@pytest.mark.parametrize(
    "text", ["## More\n", "<b>bold</b>\n", "[x](https://elsewhere.example)\n", "![](/etc/x.png)\n"]
)
def test_a_card_with_more_than_its_template_is_refused(folder, results, text):
    card = ModelCard(rendered(folder, results))
    comment = card.text.strip().splitlines()[-1]
    check_card(card, comment)
    with pytest.raises(ValueError, match="its template has"):
        check_card(ModelCard(f"{card}\n{text}"), comment)

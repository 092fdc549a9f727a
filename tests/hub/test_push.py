"""Pushing: what is shown, what is done, what is refused, and what happens when the hub fails."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from card_files import with_card
from fake_hub import TOKEN
from huggingface_hub import constants
from huggingface_hub.utils import _http
from typer.testing import CliRunner

from lmms_tokendrop.cli import app
from lmms_tokendrop.hub.export import build
from lmms_tokendrop.hub.folder import CARD, MANIFEST
from lmms_tokendrop.hub.manifest import Manifest
from lmms_tokendrop.hub.push import Plan, PushError, plan, push

# huggingface_hub hands files to its HTTP library in a way that the library deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_vilt_checkpoint) -> Path:
    """A full export in several weights files, as if it was checked."""
    folder = tmp_path_factory.mktemp("exported")
    base = str(tiny_vilt_checkpoint())
    build("vilt_pumer", folder, base=base, form="full", license="mit", max_shard_size="200KB")
    Manifest.read(folder).checked("weights").write(folder)
    return folder


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "folder"))


@pytest.fixture
def quiet_hub(hub, monkeypatch):
    """The hub without faults and with an empty log; retries don't wait."""
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    hub.requests.clear()
    yield hub
    hub.faults.clear()


def planned(folder: Path, name: str, tag: str | None = None) -> Plan:
    return plan(with_card(folder, name, tag), name, tag=tag)


def invoke(*arguments: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["push", *map(str, arguments)], catch_exceptions=False)


def commits_of(hub, name: str) -> list:
    return hub.repositories[name].commits if name in hub.repositories else []


def test_without_yes_nothing_changes_and_everything_is_shown(quiet_hub, folder):
    shown = invoke(with_card(folder, "you/dry"), "you/dry")
    assert shown.exit_code == 0
    assert "dry run: new private repository, tag v" in shown.output
    for path in folder.iterdir():
        assert path.name in shown.output
        assert f"{path.stat().st_size:,}" in shown.output
    assert quiet_hub.writes() == []
    assert "you/dry" not in quiet_hub.repositories


def test_one_private_commit_a_tag_and_a_repeat_that_changes_nothing(quiet_hub, folder):
    assert "pushed to you/once" in invoke(with_card(folder, "you/once"), "you/once", "--yes").output
    repository = quiet_hub.repositories["you/once"]
    assert repository.private
    assert len(repository.commits) == 2
    assert quiet_hub.files("you/once").keys() - {".gitattributes"} == {path.name for path in folder.iterdir()}
    assert repository.tags == {f"v{Manifest.read(folder).package_version}": repository.head}
    quiet_hub.requests.clear()
    again = invoke(folder, "you/once", "--yes")
    assert (again.exit_code, "nothing to do" in again.output) == (0, True)
    assert quiet_hub.writes() == []


def test_public_if_asked(quiet_hub, folder):
    assert "new public repository" in invoke(with_card(folder, "you/open"), "you/open", "--public").output
    invoke(folder, "you/open", "--public", "--yes")
    assert not quiet_hub.repositories["you/open"].private


def test_a_new_version_needs_a_new_tag_and_commits_only_the_difference(quiet_hub, folder):
    push(folder, planned(folder, "you/versions"))
    (folder / "vocab.txt").write_text("words\n")
    Manifest.read(folder).with_files(folder).write(folder)
    with pytest.raises(PushError, match="name this version with --tag"):
        planned(folder, "you/versions")
    found = planned(folder, "you/versions", tag="v2")
    assert (set(found.added), set(found.changed), set(found.removed)) == ({"vocab.txt"}, {MANIFEST, CARD}, set())
    push(folder, found)
    (folder / "vocab.txt").unlink()
    Manifest.read(folder).with_files(folder).write(folder)
    found = planned(folder, "you/versions", tag="v3")
    assert found.removed == {"vocab.txt": 6}
    push(folder, found)
    repository = quiet_hub.repositories["you/versions"]
    assert "vocab.txt" not in quiet_hub.files("you/versions")
    assert len(repository.commits) == 4
    assert repository.tags["v2"] == repository.commits[2][0]


def test_a_connection_cut_in_the_middle_leaves_nothing_visible_and_the_repeat_completes(quiet_hub, folder):
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    quiet_hub.objects.clear()
    hashes = Manifest.read(folder).files
    weights = hashes[shards[-1].name]
    quiet_hub.fail(f"PUT /lfs/{weights}")
    with pytest.raises(PushError, match=r"Error while uploading.*push again"):
        push(folder, planned(folder, "you/cut"))
    assert quiet_hub.files("you/cut").keys() == {".gitattributes"}
    assert {hashes[shard.name] for shard in shards} - quiet_hub.objects.keys() == {weights}
    quiet_hub.faults.clear()
    quiet_hub.requests.clear()
    push(folder, planned(folder, "you/cut"))
    assert [line for line in quiet_hub.requests if line.startswith("PUT")] == [f"PUT /lfs/{weights}"]
    assert quiet_hub.files("you/cut").keys() - {".gitattributes"} == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("request_of", ["POST .*/commit/", "POST .*/tag/"])
def test_a_connection_cut_at_the_end_is_made_good_by_a_repeat(quiet_hub, folder, request_of):
    name = f"you/cut-{request_of[-4:-1]}"
    quiet_hub.fail(request_of)
    with pytest.raises(PushError, match="push again"):
        push(folder, planned(folder, name))
    quiet_hub.faults.clear()
    push(folder, planned(folder, name))
    repository = quiet_hub.repositories[name]
    assert len(repository.commits) == 2
    assert list(repository.tags.values()) == [repository.head]


@pytest.mark.parametrize(
    ("pattern", "status", "message"),
    [
        ("POST /api/repos/create", 401, "401: not logged in"),
        ("POST /api/repos/create", 403, "403: the token may not write there"),
        ("POST .*/commit/", 409, "409: the repository is being changed by somebody else"),
    ],
)
def test_refusals_of_the_hub_are_named_and_show_no_token(quiet_hub, folder, pattern, status, message, caplog):
    caplog.set_level(logging.DEBUG)
    quiet_hub.fail(pattern, status)
    refused = invoke(with_card(folder, f"you/refused-{status}"), f"you/refused-{status}", "--yes")
    assert refused.exit_code == 1
    assert message in refused.output
    assert TOKEN not in refused.output + caplog.text
    assert all(MANIFEST not in files for _, files in commits_of(quiet_hub, f"you/refused-{status}"))


def test_without_a_connection_the_commands_say_so(quiet_hub, folder, tmp_path):
    quiet_hub.fail("GET /api/models/you/far")
    command = ["export", "vilt_pumer", str(tmp_path / "out"), "--base", "you/far"]
    for refused in (
        invoke(with_card(folder, "you/far"), "you/far"),
        CliRunner().invoke(app, command, catch_exceptions=False),
    ):
        assert refused.exit_code == 1
        assert "no answer from the Hub about you/far" in refused.output
    assert not (tmp_path / "out").exists()


def test_a_stranger_is_told_to_log_in(quiet_hub, folder, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    refused = invoke(with_card(folder, "you/once"), "you/once")
    assert (refused.exit_code, "run hf auth login" in refused.output) == (1, True)


def test_a_branch_that_moved_meanwhile_is_not_overwritten(quiet_hub, folder):
    push(folder, planned(folder, "you/moved"))
    found = planned(folder, "you/moved", tag="v2")
    quiet_hub.repositories["you/moved"].commit({**quiet_hub.files("you/moved"), "notes.txt": b"by somebody else"})
    with pytest.raises(PushError, match="changed since it was compared"):
        push(folder, found)
    assert quiet_hub.files("you/moved")[CARD] != (folder / CARD).read_bytes()


def test_a_repository_of_something_else_is_left_alone(quiet_hub, folder):
    quiet_hub.create("you/other", {"thesis.txt": b"years of work"})
    with pytest.raises(PushError, match="was not made by lmms-tokendrop"):
        planned(folder, "you/other")


def test_no_push_without_a_self_check_or_after_a_change(quiet_hub, folder):
    manifest = Manifest.read(folder)
    replace(manifest, self_check=None).write(folder)
    with pytest.raises(PushError, match="not checked with weights"):
        plan(folder, "you/unchecked")
    manifest.write(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json was changed"):
        plan(folder, "you/unchecked")
    assert quiet_hub.requests == []


@pytest.mark.parametrize("license", [None, "llama2", "cc-by-nc-4.0", "other"])
def test_weights_that_may_not_be_passed_on_need_a_word(quiet_hub, folder, license):
    manifest = replace(Manifest.read(folder), license=license)
    manifest.write(folder)
    with pytest.raises(PushError, match=f"licence of the weights is {license or 'unknown'}"):
        plan(folder, "you/licensed")
    assert plan(with_card(folder, "you/licensed"), "you/licensed", redistribute=True).added
    config = json.loads((folder / "config.json").read_text())
    config["base_weights"] = {"repo_id": "you/base", "revision": "0" * 40}
    (folder / "config.json").write_text(json.dumps(config))
    replace(manifest, form="config").with_files(folder).write(folder)
    assert planned(folder, "you/licensed").added


def test_a_folder_that_cannot_be_written_is_pushed_as_it_is(quiet_hub, folder):
    with_card(folder, "you/read-only")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    folder.chmod(0o555)
    push(folder, plan(folder, "you/read-only"))
    folder.chmod(0o755)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_file_that_is_not_an_export_is_an_error_of_the_command(tmp_path):
    refused = invoke(tmp_path, "you/nothing")
    assert (refused.exit_code, "make the folder with lmms-tokendrop export" in refused.output) == (1, True)


def refusal(folder: Path, name: str, tag: str | None = None) -> str:
    refused = invoke(folder, name, *([] if tag is None else ["--tag", tag]), "--yes")
    assert refused.exit_code == 1
    [line] = refused.output.splitlines()
    return line


def test_no_push_without_a_card_for_this_repository_version_and_export(quiet_hub, folder):
    assert f"has no README.md; make it with lmms-tokendrop card {folder} you/a" in refusal(folder, "you/a")
    with_card(folder, "you/a", "first")
    command = f"make the right one with lmms-tokendrop card {folder}"
    assert f"is the card of you/a at first; {command} you/b --tag first" in refusal(folder, "you/b", "first")
    assert f"is the card of you/a at first; {command} you/a --tag second" in refusal(folder, "you/a", "second")
    version = Manifest.read(folder).package_version
    assert refusal(folder, "you/a").endswith(f"is the card of you/a at first; {command} you/a")
    (folder / "vocab.txt").write_text("words\n")
    Manifest.read(folder).with_files(folder).write(folder)
    assert "is the card of another export" in refusal(folder, "you/a", "first")
    (folder / CARD).write_text(f"# you/a v{version}\n")
    assert "was not made by lmms-tokendrop card" in refusal(folder, "you/a")
    assert quiet_hub.requests == []


def test_a_card_may_be_edited(quiet_hub, folder):
    path = with_card(folder, "you/edited") / CARD
    path.write_text(path.read_text().replace("## Limits\n", "## Limits\n\nA remark.\n"))
    push(folder, plan(folder, "you/edited"))
    assert b"A remark." in quiet_hub.files("you/edited")[CARD]


@pytest.mark.parametrize("tag", ["a b", "../x", "main", "0" * 40, "v1.lock", "a:b"])
def test_tags_and_names_that_cannot_be_are_refused_before_anything_is_asked(quiet_hub, folder, tag):
    with_card(folder, "you/named")
    assert f"tag {tag!r}; allowed: " in refusal(folder, "you/named", tag)
    assert "repository 'named'; allowed: owner/name" in refusal(folder, "named")
    assert quiet_hub.requests == []


@pytest.mark.parametrize("name", [CARD, MANIFEST, "config.json", "LICENSE", "more.txt"])
def test_the_target_of_a_link_never_leaves_the_machine(quiet_hub, folder, tmp_path, name):
    found = planned(folder, "you/linked")
    content = (folder / name).read_bytes() if (folder / name).exists() else b""
    secret = tmp_path / "secret"
    secret.write_bytes(content + b"\n")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    assert f"{name}: not allowed in an exported folder" in refusal(folder, "you/linked")
    with pytest.raises(ValueError, match="none of them a link"):
        push(folder, found)
    assert quiet_hub.writes() == []
    assert not any(secret.read_bytes() == data for data in quiet_hub.objects.values())


def test_a_linked_folder_is_refused(quiet_hub, folder, tmp_path):
    with_card(folder, "you/linked")
    (tmp_path / "link").symlink_to(folder)
    assert "is a link; name the folder that it leads to" in refusal(tmp_path / "link", "you/linked")

"""Exported folders: what is in them, what the self-check notices, what is refused."""

import json
import logging
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from keyed_weights import with_clip
from PIL import Image
from safetensors import safe_open
from transformers import AutoModelForVisualQuestionAnswering, AutoProcessor
from typer.testing import CliRunner

from lmms_tokendrop import catalogue
from lmms_tokendrop.catalogue import architecture, method, variant, variants
from lmms_tokendrop.cli import app
from lmms_tokendrop.hub import self_check as self_check_module
from lmms_tokendrop.hub.base import resolve_base, saved_reduction
from lmms_tokendrop.hub.code import (
    LIBRARIES,
    check_auto_map,
    checked_code,
    code_modules,
    model_auto_map,
    model_code,
    set_auto_maps,
)
from lmms_tokendrop.hub.export import build, export
from lmms_tokendrop.hub.folder import CARD, LICENSE, MANIFEST
from lmms_tokendrop.hub.fresh_check import check_folder
from lmms_tokendrop.hub.manifest import Manifest, read_config, sha256, verify
from lmms_tokendrop.hub.picture import PICTURE
from lmms_tokendrop.hub.self_check import SelfCheckError, self_check, write_job
from lmms_tokendrop.hub.staging import staged
from lmms_tokendrop.modeling.core.decoder_options import FORMAT
from lmms_tokendrop.modeling.core.tested_transformers import TESTED
from lmms_tokendrop.modeling.core.token_drop_config import flat_code
from lmms_tokendrop.modeling.methods.available import reductions
from lmms_tokendrop.pocket.registry import pocket_path

QUESTION_ANSWERING = "AutoModelForVisualQuestionAnswering"


@pytest.fixture(scope="module")
def built(tmp_path_factory, tiny_vilt_checkpoint):
    """PuMer in a folder, not checked yet, with what the package's class made of the example."""
    folder = tmp_path_factory.mktemp("built") / "vilt_pumer"
    folder.mkdir()
    example = build("vilt_pumer", folder, base=str(tiny_vilt_checkpoint()), form="full", max_shard_size="200KB")
    return folder, example


@pytest.fixture
def bases(tiny_llava_checkpoint, fusion_checkpoint):
    """Return ``find(architecture, head)``: an unreduced model."""

    def find(architecture: str, head: str) -> Path:
        writing = {"llava_next": pocket_path("llava_next", "mustdrop"), "llava": tiny_llava_checkpoint}
        return writing[architecture] if architecture in writing else fusion_checkpoint(architecture, head)

    return find


@pytest.fixture
def copied(built, tmp_path):
    """A copy that a test may change."""
    folder, example = built
    return Path(shutil.copytree(folder, tmp_path / folder.name)), example


def variant_code(entry) -> dict[str, str]:
    """Text of every file of an exported variant without a processor of its own."""
    family = architecture(entry.architecture)
    return model_code(code_modules([model_auto_map(family, family.heads[0])]), entry.architecture, entry.method)


@pytest.mark.parametrize("entry", variants(), ids=lambda entry: entry.model_id)
def test_an_export_has_its_own_method_and_is_flat(entry):
    code = variant_code(entry)
    assert frozenset({"torch", "transformers"}) == LIBRARIES
    assert not re.search(r"^\s*from (\.\.|lmms_tokendrop)", "".join(code.values()), re.MULTILINE)
    assert re.search(r"REDUCTIONS = (.*)", code["available.py"])[1].count(":") == len({"none", entry.method})


@pytest.mark.parametrize("entry", variants(architecture="vilt"), ids=lambda entry: entry.model_id)
def test_an_export_of_an_encoder_is_small_and_has_neither_cache_nor_generation(entry):
    code = variant_code(entry)
    assert len(code) <= 20
    assert not {"staged_cache.py", "staged_vlm.py", "decoder_run.py"} & code.keys()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("import numpy", "imports numpy"),
        ("import lmms_tokendrop", "imports lmms_tokendrop"),
        ("from ..x import y", r"imports \.\.x"),
        ("from ..folder.x import y", r"x\.py is imported, and there is no such file"),
        ("from .folder.x import y", r"imports \.folder\.x"),
        ("try:\n    import numpy\nexcept ImportError:\n    pass", "imports numpy"),
        ("if 1:\n    from numpy.linalg import norm", r"imports numpy\.linalg"),
        ("def late():\n    import numpy", "imports numpy"),
    ],
)
def test_code_that_reaches_out_is_refused(tmp_path, line, message):
    files = {name: tmp_path / f"{name}.py" for name in ("first", "second")}
    files["first"].write_text("from .second import y\n")
    files["second"].write_text(f"{line}\ny = 1\n")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        checked_code(flat_code(["first"], files))


@pytest.mark.parametrize(
    "reference",
    ["other/repository--modeling.Class", "../modeling.Class", "folder/modeling.Class", "absent.Class", None],
)
def test_references_to_classes_stay_in_the_folder(reference):
    with pytest.raises(ValueError, match=r"allowed: module\.Class"):
        check_auto_map({"AutoModel": reference}, {"modeling.py"})
    check_auto_map({"AutoModel": "modeling.Class"}, {"modeling.py"})


def test_a_full_folder_has_code_processor_and_sharded_safetensors(built, tiny_vilt_checkpoint):
    folder, _ = built
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "vilt_tokendrop"
    assert config["token_reduction"] == {"method": "pumer"}
    assert config["auto_map"]["AutoModel"] == config["auto_map"]["AutoModelForVisualQuestionAnswering"]
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    code = {path.name: path.read_text() for path in folder.glob("*.py")}
    assert code == variant_code(variant("vilt_pumer"))
    texts = "".join(path.read_text() for path in folder.glob("*.json"))
    assert str(folder) not in texts
    assert str(tiny_vilt_checkpoint()) not in texts
    assert AutoProcessor.from_pretrained(folder).tokenizer is not None
    assert (folder / LICENSE).read_text() == (Path(__file__).parents[2] / "LICENSE").read_text()
    manifest = Manifest.read(folder)
    assert manifest.self_check is None
    assert manifest.stages == [f"fusion, layer {layer}, before ffn" for layer in (0, 1, 2)]
    [layers], [full] = manifest.example_tokens["layers"], manifest.example_tokens["full"]
    assert layers[0] == full == 65
    assert layers == sorted(layers, reverse=True)
    assert Image.open(folder / PICTURE).width > Image.open(folder / PICTURE).height
    assert manifest.files["config.json"] == sha256(folder / "config.json")
    assert set(manifest.files) == {path.name for path in folder.iterdir()} - {MANIFEST}


@pytest.mark.parametrize(
    ("variant", "head", "options", "auto_classes"),
    [
        ("vilt_pumer", "two_images", None, {"AutoModel"}),
        ("vilt_smres", "retrieval", None, {"AutoModel"}),
        ("vilt_full", "question_answering", None, {"AutoModel", "AutoModelForVisualQuestionAnswering"}),
        ("meter_pumer", "entailment", None, {"AutoModel"}),
        ("meter_pumer", "two_images", None, {"AutoModel"}),
        ("meter_vision_tome", "retrieval", None, {"AutoModel"}),
        ("llava_next_mustdrop", "", {"packing": "flat"}, {"AutoModel", "AutoModelForImageTextToText"}),
        ("llava_mustdrop", "", {"keep_ratio": 0.5}, {"AutoModel", "AutoModelForImageTextToText"}),
        ("llava_fastv", "", None, {"AutoModel", "AutoModelForImageTextToText"}),
        (
            "llava_composed",
            "",
            {"vision": "mustdrop", "decoder": "fastv", "keep_ratio": 0.5},
            {"AutoModel", "AutoModelForImageTextToText"},
        ),
    ],
)
def test_every_head_and_processor_can_be_exported(bases, tmp_path, variant, head, options, auto_classes):
    folder = tmp_path / f"{variant}_{head}"
    folder.mkdir()
    base = str(bases(catalogue.variant(variant).architecture, head))
    example = build(variant, folder, base=base, form="full", token_reduction=options)
    check_folder(write_job(folder, example, tmp_path / "scratch"))
    assert verify(folder).variant == variant
    assert read_config(folder)["auto_map"].keys() == {"AutoConfig", *auto_classes}


def with_parameters(entry, base: Path, folder: Path) -> Path:
    """A base whose weights the method needs, drawn at random."""
    family = architecture(entry.architecture)
    model_class = family.load(family.model_class(family.heads[0]))
    new = (f"{model_class.base_model_prefix}.token_reducer.",)
    model = model_class.from_pretrained(base, token_reduction={"method": entry.method}, new_parameters=new)
    model.save_pretrained(shutil.copytree(base, folder))
    return folder


@pytest.mark.slow
def test_every_variant_passes_its_self_check(bases, tmp_path):
    examples = {}
    for entry in variants():
        base = Path(bases(entry.architecture, "question_answering"))
        if method(entry.method).trained:
            base = with_parameters(entry, base, tmp_path / f"base_{entry.model_id}")
        folder = tmp_path / entry.model_id
        folder.mkdir()
        width = 192 if entry.architecture == "llava_next" else 64
        required = reductions(entry.architecture).options_of(entry.method).required
        options = with_clip(dict.fromkeys(required, "clip"), tmp_path / f"clip_{width}", width)
        examples[folder] = build(entry.model_id, folder, base=str(base), form="full", token_reduction=options)
    self_check(examples)
    assert {Manifest.read(folder).self_check for folder in examples} == {"weights"}


def failing(folder: Path, example, message: str) -> None:
    with pytest.raises((ValueError, SelfCheckError), match=message):
        self_check({folder: example})
    assert Manifest.read(folder).self_check is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(1, 10)}, "logits differ"),
        ({"logits": torch.zeros(1, 9)}, "another shape"),
        ({"tokens": [[65, 65, 65, 65]]}, "tokens per layer"),
    ],
)
def test_other_outputs_fail_the_check(built, tmp_path, change, message):
    folder, example = built
    other = replace(example, outputs={**example.outputs, **change})
    with pytest.raises(ValueError, match=rf"AutoModel.from_pretrained.*{message}"):
        check_folder(write_job(folder, other, tmp_path / "scratch"))


def test_an_import_of_the_package_fails_the_self_check_even_if_it_is_caught(copied, monkeypatch):
    folder, example = copied
    code = folder / "modeling_vilt_tokendrop.py"
    code.write_text(code.read_text() + "\ntry:\n    import lmms_tokendrop\nexcept ImportError:\n    pass\n")
    Manifest.read(folder).with_files(folder).write(folder)
    failing(folder, example, "modeling_vilt_tokendrop.py is not the installed package's")
    monkeypatch.setattr(self_check_module, "verify", Manifest.read)
    failing(folder, example, "exported code imports lmms_tokendrop")


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda folder: (folder / "token_ops.py").write_text("import os\n"), "token_ops.py was changed"),
        (lambda folder: (folder / "token_ops.py").unlink(), "token_ops.py is missing"),
        (lambda folder: (folder / "more.py").write_text(""), "more.py is not a file of the export"),
        (lambda folder: (folder / "pytorch_model.bin").write_bytes(b""), "pytorch_model.bin: not allowed"),
        (lambda folder: (folder / "link.json").symlink_to("/etc/hostname"), "link.json: not allowed"),
        (lambda folder: (folder / CARD).symlink_to("/etc/hostname"), "README.md: not allowed"),
        (lambda folder: (folder / CARD).mkdir(), "README.md: not allowed"),
        (lambda folder: (folder / LICENSE).write_text("none"), "LICENSE was changed"),
        (lambda folder: (folder / MANIFEST).write_text("{"), f"{MANIFEST} is not JSON"),
        (lambda folder: (folder / "custom_generate").mkdir(), "custom_generate: not allowed"),
        (lambda folder: (folder / MANIFEST).unlink(), "lmms-tokendrop export"),
    ],
)
def test_a_tampered_folder_fails_the_self_check(copied, tamper, message):
    folder, example = copied
    tamper(folder)
    with pytest.raises(ValueError, match=message):
        self_check({folder: example})


def test_a_card_may_be_added_later(copied):
    folder, _ = copied
    before = verify(folder)
    (folder / CARD).write_text("# A card\n")
    assert verify(folder) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"auto_map": {"AutoModel": "you/other--modeling.Class"}}, "auto_map"),
        ({"base_weights": {"repo_id": "you/base", "revision": "main"}}, "does not fit the form"),
    ],
)
def test_a_configuration_that_leads_elsewhere_is_refused(copied, change, message):
    folder, _ = copied
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    Manifest.read(folder).with_files(folder).write(folder)
    with pytest.raises(ValueError, match=message):
        verify(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["you/other--code.Class", None]}}, "AutoTokenizer"),
        ("tokenizer_config.json", {"auto_map": ["you/other--code.Class", None]}, "auto_map"),
        ("processor_config.json", {"image_processor": {"auto_map": {"AutoImageProcessor": "a/b--c.D"}}}, "a/b--c.D"),
        ("generation_config.json", {"auto_map": {"AutoModel": "absent.Class"}}, "absent.Class"),
        ("config.json", {"text_config": {"custom_pipelines": {"x": {"impl": "a/b--c.D"}}}}, "custom_pipelines"),
    ],
)
def test_a_reference_to_code_elsewhere_is_refused_in_any_file(copied, name, change, message):
    folder, _ = copied
    path = folder / name
    options = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**options, **change}))
    Manifest.read(folder).with_files(folder).write(folder)
    with pytest.raises(ValueError, match=message):
        verify(folder)


def test_references_of_the_base_to_code_are_not_exported(tiny_vilt_checkpoint, tmp_path):
    base = Path(shutil.copytree(tiny_vilt_checkpoint(), tmp_path / "base"))
    foreign = {"AutoModel": "you/other--code.Class", "AutoModelForCausalLM": "you/other--code.Class"}
    for path in base.glob("*config.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": foreign}))
    (tmp_path / "out").mkdir()
    build("vilt_pumer", tmp_path / "out", base=str(base), form="full")
    assert read_config(tmp_path / "out")["auto_map"].keys() == {"AutoConfig", "AutoModel", QUESTION_ANSWERING}
    assert not [path.name for path in (tmp_path / "out").glob("*.json") if "you/other" in path.read_text()]


@pytest.mark.parametrize(("version", "warnings"), [("5.18.9", 1), (f"{TESTED[0]}.0", 0), (f"{TESTED[1]}.0", 1)])
def test_exported_code_warns_once_of_an_untested_transformers(built, tmp_path, monkeypatch, caplog, version, warnings):
    monkeypatch.setattr(transformers, "__version__", version)
    type(logging.getLogger()).warning_once.cache_clear()
    for copy in range(2):
        name = f"untested_{version.replace('.', '_')}_{copy}"
        folder = shutil.copytree(built[0], tmp_path / name)
        AutoModelForVisualQuestionAnswering.from_pretrained(folder, trust_remote_code=True)
    assert [record.name for record in caplog.records if version in record.getMessage()] == ["lmms_tokendrop"] * warnings


def test_a_word_of_the_vocabulary_is_no_reference(tmp_path):
    (tmp_path / "vocab.json").write_text('{"auto_map": 3, "custom_pipelines": 4}')
    set_auto_maps(tmp_path, {})
    assert (tmp_path / "vocab.json").read_text() == '{"auto_map": 3, "custom_pipelines": 4}'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "half"}, "form='half'; allowed: 'config', 'full'"),
        ({"check": "none"}, "check='none'; allowed: 'weights', 'meta'"),
        ({"form": "full", "check": "meta"}, "allowed with form='config' only"),
        ({"form": "config"}, "needs a base on the Hub"),
        ({"form": "full", "license": "mit"}, "that of the bundled models is 'apache-2.0'"),
        ({"form": "full", "base": "/", "license": "my | own"}, r"license='my \| own'; allowed: the Hub's name of one"),
        ({"form": "full", "token_reduction": {"ratio": 1}}, "unknown option 'ratio'"),
    ],
)
def test_wrong_options_are_named_and_nothing_is_left(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export("llava_next_mustdrop", tmp_path / "out", **{"base": "pocket", **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("architecture", "method", "saved", "recorded"),
    [
        ("llava_next", "mustdrop", None, {"method": "mustdrop", "format": FORMAT}),
        ("llava_next", "uniform", None, {"method": "uniform"}),
        ("llava_next", "mustdrop", {"method": "random", "format": 2}, {"method": "mustdrop", "format": FORMAT}),
        ("llava_next", "random", {"method": "random"}, {"method": "random", "format": 1}),
        ("llava_next", "random", {"method": "random", "format": 2}, {"method": "random", "format": 2}),
        ("vilt", "pumer", None, {"method": "pumer"}),
    ],
)
def test_what_is_recorded_of_a_base_has_a_format_where_the_method_has(architecture, method, saved, recorded):
    assert saved_reduction({"token_reduction": saved}, architecture, method) == recorded


def test_a_method_that_leaves_everything_is_refused(tmp_path):
    everything = {"keep_ratio": 1.0, "newlines": "keep"}
    with pytest.raises(SelfCheckError, match="random left all image tokens"):
        export("llava_next_random", tmp_path / "out", base="pocket", form="full", token_reduction=everything)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_named_pocket_is_not_the_bundled_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pocket").mkdir()
    found = resolve_base("./pocket", "llava_next", "mustdrop", "mit")
    assert (found.name, found.bundled, found.source) == ("pocket", False, str(tmp_path / "pocket"))
    assert resolve_base("pocket", "llava_next", "mustdrop").bundled


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"base_model": "you/base", "base_revision": "0" * 40}, f"base you/base (at {'0' * 40}), licence mit"),
        ({"base_model": "pocket", "bundled": True}, "base pocket (bundled), licence mit"),
        ({"base_model": "mine", "license": None}, "base mine (a folder), licence unknown"),
    ],
)
def test_the_command_says_what_the_base_was(built, monkeypatch, values, shown):
    manifest = replace(Manifest.read(built[0]).checked("weights"), license="mit")
    monkeypatch.setattr("lmms_tokendrop.hub.export.export", lambda *names, **options: replace(manifest, **values))
    done = CliRunner().invoke(app, ["export", "vilt_pumer", "out", "--form", "full"])
    assert done.exit_code == 0
    assert shown in done.output
    assert "self-check in a fresh interpreter: passed (weights)" in done.output


@pytest.mark.parametrize("change", [lambda record: record.update(more=1), lambda record: record.pop("bundled")])
def test_a_record_of_another_version_is_refused(copied, change):
    folder, _ = copied
    record = json.loads((folder / MANIFEST).read_text())
    change(record)
    (folder / MANIFEST).write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"not of this version.*export again"):
        Manifest.read(folder)


def test_a_folder_with_files_and_one_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="not an empty folder"):
        export("llava_next_mustdrop", tmp_path, base="pocket", form="full")
    with pytest.raises(OSError, match="/proc"):
        export("llava_next_mustdrop", Path("/proc/out"), base="pocket", form="full")


def test_a_link_is_not_written_through(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with pytest.raises(ValueError, match="is a link; name the folder"):
        export("llava_next_mustdrop", tmp_path / "link", base="pocket", form="full")


@pytest.mark.parametrize(("text", "reason"), [("{", "is not JSON"), ("[1]", "allowed: a JSON object")])
def test_broken_options_at_the_command_line_are_one_line(tmp_path, text, reason):
    done = CliRunner().invoke(app, ["export", "vilt_pumer", str(tmp_path / "out"), "--token-reduction", text])
    [line] = done.output.splitlines()
    assert line.startswith(f"Error: --token-reduction {text!r}")
    assert (done.exit_code, reason in line) == (1, True)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_every_file_has_the_mode_that_the_umask_gives(tiny_vilt_checkpoint, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with staged(tmp_path / "out") as staging:
            build("vilt_pumer", staging, base=str(tiny_vilt_checkpoint()), form="full")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {mode}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~umask


def test_an_architecture_whose_code_is_elsewhere_is_refused_before_its_weights_are_read(
    tiny_vilt_checkpoint, tmp_path, monkeypatch
):
    elsewhere = replace(catalogue.architecture("vilt"), module="mine")
    monkeypatch.setitem(catalogue.registry._architectures, "vilt", elsewhere)
    with pytest.raises(ValueError, match="architecture 'vilt' can't be exported; its code is in mine"):
        build("vilt_pumer", tmp_path, base=str(tiny_vilt_checkpoint()), form="full")


def test_half_precision_stays_and_keys_are_those_of_public_checkpoints(tmp_path):
    build("llava_next_mustdrop", tmp_path, base="pocket", form="full")
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        parts = {".".join(name.split(".")[:2]) for name in weights.offset_keys() if "." in name}
        assert parts >= {"vision_tower.vision_model", "language_model.model", "language_model.lm_head"}
        assert [part for part in parts if part.startswith("vision_tower.")] == ["vision_tower.vision_model"]
        assert {weights.get_tensor(name).dtype for name in weights.offset_keys()} == {torch.float16}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"

"""What was pushed loads from the hub, and from the cache, where the package can't be imported."""

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
from card_files import with_card
from huggingface_hub import CommitOperationAdd, HfApi
from transformers import (
    AutoModelForImageTextToText,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
    ViltForQuestionAnswering,
)

from lmms_tokendrop import LlavaNextTokenDropForConditionalGeneration
from lmms_tokendrop.evaluation.arguments import LoadOptions
from lmms_tokendrop.evaluation.loading import load_model
from lmms_tokendrop.hub import fresh_check
from lmms_tokendrop.hub.code import code_modules, model_code
from lmms_tokendrop.hub.export import FORMS, build
from lmms_tokendrop.hub.fresh_check import example_outputs
from lmms_tokendrop.hub.manifest import Manifest, read_config
from lmms_tokendrop.hub.push import PushError, plan, push
from lmms_tokendrop.hub.self_check import Example, self_check, write_job

# huggingface_hub hands files to its HTTP library in a way that the library deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

VARIANTS = {
    "llava_next": ("llava_next_mustdrop", {"keep_ratio": 0.4}),
    "vilt": ("vilt_pumer", None),
    "meter": ("meter_pumer", None),
}
WITH_ITS_CODE = "meter"
"""The architecture that stock transformers has not: its unreduced model is an export too."""


@dataclass
class Published:
    """Where the repositories are, and what the package's classes made of the example."""

    examples: dict[str, Example]
    jobs: Path
    scratch: Path

    def run(self, **environment: str) -> str:
        """Load every repository in a fresh interpreter with a cache of its own; return their names."""
        finished = subprocess.run(
            [sys.executable, "-P", fresh_check.__file__, str(self.jobs)],
            env={**os.environ, "HF_HOME": str(self.scratch / "stranger"), **environment},
            cwd=self.scratch,
            check=False,
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, finished.stderr[-3000:]
        return finished.stdout


def repository(architecture: str, form: str) -> str:
    return f"you/{VARIANTS[architecture][0].replace('_', '-')}-{form}"


CODE_OF_THE_BASE = b"raise RuntimeError('code of the base was run')\n"


def with_references(name: str, content: bytes) -> bytes:
    """Make a configuration of the base refer to code at every place that transformers reads one from."""
    options = json.loads(content)
    auto_maps = {
        "config.json": {"AutoModel": "you/evil--code.Model"},
        "tokenizer_config.json": {"AutoTokenizer": ["you/evil--code.Tokenizer", None]},
        "processor_config.json": {"AutoProcessor": "you/evil--code.Processor"},
    }
    if name not in auto_maps:
        return content
    options["auto_map"] = auto_maps[name]
    if "image_processor" in options:
        options["image_processor"]["auto_map"] = {"AutoImageProcessor": "you/evil--code.ImageProcessor"}
    if name == "config.json":
        options["custom_pipelines"] = {"evil": {"impl": "you/evil--code.Pipeline", "pt": ["AutoModel"]}}
    return json.dumps(options).encode()


def push_base(folder: Path, name: str) -> None:
    """Push an unreduced model, with code that must never run; a stock one refers to more such code."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if name != f"you/{WITH_ITS_CODE}":
        files = {path: with_references(path, data) if path.endswith(".json") else data for path, data in files.items()}
    files["README.md"] = b"---\nlicense: mit\n---\n"
    files["custom_generate/generate.py"] = CODE_OF_THE_BASE
    api = HfApi()
    api.create_repo(name)
    api.create_commit(
        name,
        [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in files.items()],
        commit_message="The unreduced model",
    )


def save_with_own_classes(architecture: str, folder: Path, saved: Path) -> None:
    """Load an export with the package's own classes and save it, as after a fine-tune."""
    options = LoadOptions(pretrained=str(folder), dtype="float16")
    method = VARIANTS[architecture][0].removeprefix(f"{architecture}_")
    model, processor = load_model(architecture, method, options, {}, torch.device("cpu"))
    assert type(model).__module__.startswith("lmms_tokendrop.modeling")
    model.save_pretrained(saved)
    processor.save_pretrained(saved)


@pytest.fixture(scope="module")
def published(hub, base_folder, tmp_path_factory) -> Published:
    """Push the unreduced models, then each variant in both forms."""
    scratch = tmp_path_factory.mktemp("published")
    hub.create("you/evil", {"code.py": CODE_OF_THE_BASE})
    examples, folders = {}, {}
    for architecture, (variant, options) in VARIANTS.items():
        base = base_folder(architecture, variant.removeprefix(f"{architecture}_"))
        if architecture == WITH_ITS_CODE:
            code = folders[f"you/{architecture}"] = scratch / "base"
            code.mkdir()
            examples[f"you/{architecture}"] = build(f"{architecture}_full", code, base=str(base), form="full")
            base = code
        push_base(base, f"you/{architecture}")
        for form in FORMS:
            name = repository(architecture, form)
            folders[name] = scratch / Path(name).name
            folders[name].mkdir()
            examples[name] = build(
                variant, folders[name], base=f"you/{architecture}", form=form, token_reduction=options
            )
    unfetched = scratch / "unfetched"
    unfetched.mkdir()
    hub.requests.clear()
    shapes = build("llava_next_mustdrop", unfetched, base="you/llava_next", check="meta")
    assert not [line for line in hub.requests if line.endswith(".safetensors")]
    self_check({**{folders[name]: example for name, example in examples.items()}, unfetched: shapes})
    jobs = []
    for number, (name, example) in enumerate(examples.items()):
        if name != f"you/{WITH_ITS_CODE}":
            push(folders[name], plan(with_card(folders[name], name), name))
        jobs.append({**write_job(folders[name], example, scratch / f"job-{number}"), "folder": name})
    for architecture in VARIANTS:
        name = repository(architecture, "full")
        save_with_own_classes(architecture, folders[name], scratch / f"{architecture}-saved")
        jobs.append({**write_job(scratch / f"{architecture}-saved", examples[name], scratch / f"job-{architecture}")})
    (scratch / "jobs.json").write_text(json.dumps(jobs))
    return Published(examples, scratch / "jobs.json", scratch)


CASES = [(architecture, form) for architecture in VARIANTS for form in FORMS]


@pytest.fixture(scope="module")
def downloaded(published) -> str:
    """Load every repository from the hub, which fills a stranger's cache, and compare with the package's classes."""
    return published.run()


def test_every_repository_loads_through_every_auto_class_without_the_package(published, downloaded):
    names = {f"you/{WITH_ITS_CODE}", *(repository(*case) for case in CASES)}
    saved = {str(published.scratch / f"{architecture}-saved") for architecture in VARIANTS}
    assert set(downloaded.split()) == names | saved


def test_no_code_of_the_base_was_named_or_fetched(hub, published, downloaded):
    for case in CASES:
        files = hub.files(repository(*case))
        assert not [name for name, data in files.items() if name.endswith(".json") and b"evil" in data]
    assert not [line for line in hub.requests if "evil" in line]


@pytest.mark.slow
def test_and_again_offline_from_the_cache(published, downloaded):
    assert published.run(HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9") == downloaded


@pytest.mark.parametrize(("architecture", "form"), CASES)
def test_records_name_the_base_and_its_commit(hub, published, architecture, form):
    name = repository(architecture, form)
    manifest = Manifest.read(published.scratch / Path(name).name)
    commit = hub.repositories[f"you/{architecture}"].head
    assert (manifest.base_model, manifest.base_revision, manifest.license) == (f"you/{architecture}", commit, "mit")
    assert manifest.self_check == "weights"
    base_weights = {"repo_id": f"you/{architecture}", "revision": commit} if form == "config" else None
    assert read_config(published.scratch / Path(name).name)["base_weights"] == base_weights
    has_weights = any(path.endswith(".safetensors") for path in hub.files(name))
    assert has_weights == (form == "full")
    assert hub.repositories[name].private


@pytest.mark.parametrize(("architecture", "form"), CASES)
@pytest.mark.parametrize("trust", [None, False])
def test_without_trust_loading_fails_with_the_message_of_transformers(
    published, architecture, form, trust, monkeypatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    name = repository(architecture, form)
    auto_classes = read_config(published.scratch / Path(name).name)["auto_map"]
    assert len(auto_classes) == 3
    for auto_class in auto_classes:
        with pytest.raises(ValueError, match="trust_remote_code=True"):
            getattr(transformers, auto_class).from_pretrained(name, trust_remote_code=trust)


@pytest.mark.parametrize("architecture", VARIANTS)
@pytest.mark.parametrize("trust", [None, False])
def test_what_own_classes_saved_asks_for_trust_too(published, architecture, trust, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    saved = published.scratch / f"{architecture}-saved"
    config = read_config(saved)
    code = model_code(code_modules([config["auto_map"]]), architecture, config["token_reduction"]["method"])
    assert code.items() <= {path.name: path.read_text() for path in saved.glob("*.py")}.items()
    for auto_class in read_config(saved)["auto_map"]:
        with pytest.raises(ValueError, match="trust_remote_code=True"):
            getattr(transformers, auto_class).from_pretrained(saved, trust_remote_code=trust)


@pytest.mark.parametrize(("architecture", "form"), CASES)
@pytest.mark.parametrize("trust", [None, False])
def test_without_trust_the_processor_is_the_right_one_or_asks(published, architecture, form, trust, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    name = repository(architecture, form)
    right = type(AutoProcessor.from_pretrained(name, trust_remote_code=True))
    if right.__module__.startswith("transformers."):
        assert type(AutoProcessor.from_pretrained(name, trust_remote_code=trust)) is right
    else:
        with pytest.raises(ValueError, match="trust_remote_code=True"):
            AutoProcessor.from_pretrained(name, trust_remote_code=trust)


def test_a_stock_class_named_by_hand_warns_and_finds_weights_in_the_full_form_only(published, logged):
    stock = ViltForQuestionAnswering.from_pretrained(repository("vilt", "full"))
    assert type(stock.config).model_type == "vilt"
    assert "using a model of type `vilt_tokendrop`" in logged.text
    with pytest.raises(OSError, match="safetensors"):
        ViltForQuestionAnswering.from_pretrained(repository("vilt", "config"))


@pytest.mark.parametrize(("architecture", "form"), CASES)
def test_a_save_and_load_round_keeps_type_reduction_and_own_weights(published, architecture, form, tmp_path):
    name = repository(architecture, form)
    auto = AutoModelForImageTextToText if architecture == "llava_next" else AutoModelForVisualQuestionAnswering
    model = auto.from_pretrained(name, trust_remote_code=True, dtype="auto")
    assert not type(model).__module__.startswith("lmms_tokendrop")
    assert model.config.name_or_path == name
    assert model.config.base_weights is None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    model.save_pretrained(tmp_path)
    again = auto.from_pretrained(tmp_path, trust_remote_code=True, dtype="auto")
    for loaded in (model, again):
        assert type(loaded.config).model_type == f"{architecture}_tokendrop"
        assert loaded.config.token_reduction == published_reduction(published, name)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
    example = published.examples[name]
    outputs = [example_outputs(loaded, processor, example.images, example.question) for loaded in (model, again)]
    torch.testing.assert_close(outputs[1]["logits"], outputs[0]["logits"])
    assert outputs[0]["tokens"] == outputs[1]["tokens"]
    assert not torch.allclose(outputs[0]["logits"], example.outputs["logits"], atol=1e-3)


def published_reduction(published: Published, name: str) -> dict:
    return read_config(published.scratch / Path(name).name)["token_reduction"]


def test_the_plugin_loads_a_repository_too_and_may_change_the_reduction(published):
    name = repository("llava_next", "config")
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(name, dtype="auto")
    assert model.config.token_reduction == published_reduction(published, name)
    assert model.config.token_reduction["keep_ratio"] == 0.4
    assert model.config.name_or_path == name
    options = LoadOptions(pretrained=name)
    model, processor = load_model("llava_next", "mustdrop", options, {}, torch.device("cpu"))
    assert model.config.token_reduction == published_reduction(published, name)
    assert processor.tokenizer.padding_side == "left"
    reduction = {"method": "random", "keep_ratio": 0.2}
    model = LlavaNextTokenDropForConditionalGeneration.from_pretrained(name, token_reduction=reduction)
    assert reduction.items() <= model.config.token_reduction.items()


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"repo_id": "you/llava_next", "revision": "main"}, "a commit, 40 hexadecimal digits"),
        ({"repo_id": "../you", "revision": "0" * 40}, "'owner/name' of a Hub repository"),
        ({"repo_id": "/etc/you", "revision": "0" * 40}, "'owner/name' of a Hub repository"),
        ({"repo_id": "you/llava_next"}, "a dict with 'repo_id' and 'revision'"),
        ({"repo_id": "you/llava_next", "revision": "0" * 40}, "0000"),
    ],
)
def test_a_wrong_base_is_refused(published, tmp_path, base, message):
    config = read_config(published.scratch / Path(repository("llava_next", "config")).name)
    (tmp_path / "config.json").write_text(json.dumps({**config, "base_weights": base}))
    with pytest.raises((ValueError, OSError), match=message):
        LlavaNextTokenDropForConditionalGeneration.from_pretrained(tmp_path)


def test_a_local_folder_does_not_hide_the_base(published, tmp_path, monkeypatch):
    (tmp_path / "you" / "llava_next").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="hides the Hub repository"):
        LlavaNextTokenDropForConditionalGeneration.from_pretrained(repository("llava_next", "config"))


def test_a_base_that_must_be_unpickled_is_refused(hub, tmp_path):
    hub.create("you/pickled", {"config.json": b"{}", "pytorch_model.bin": b""})
    with pytest.raises(ValueError, match="no safetensors"):
        build("vilt_pumer", tmp_path, base="you/pickled")
    with pytest.raises(ValueError, match="states its own"):
        build("vilt_pumer", tmp_path, base="you/vilt", license="mit")


def test_a_base_whose_weights_were_not_fetched_is_checked_without_and_not_pushed(hub, published):
    folder = published.scratch / "unfetched"
    assert Manifest.read(folder).self_check == "meta"
    with pytest.raises(PushError, match="self-check: meta"):
        plan(folder, "you/unchecked")
    assert "you/unchecked" not in hub.repositories


def test_the_processor_takes_empty_videos_and_sounds_only(published):
    processor = AutoProcessor.from_pretrained(repository("llava_next", "full"), trust_remote_code=True)
    text, images = f"{processor.image_token} what?", published.examples[repository("llava_next", "full")].images
    expected = processor(text=text, images=images)
    assert processor(text=text, images=images, videos=[], audios=[])["input_ids"] == expected["input_ids"]
    with pytest.raises(ValueError, match="images and text only"):
        processor(text=text, images=images, audios=[[0.0]])

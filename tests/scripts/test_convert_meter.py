"""The converter of METER's checkpoints, on synthetic files with exactly their keys."""

import argparse
import json
import sys
import types

import convert_meter
import pytest
import torch
from public_meter import BLOCKS, HEADS, UNUSED, WIDTH, classifier, encoder, public_weights
from safetensors.torch import save_file
from tiny_meter import tiny_meter_tokenizer
from transformers import AutoProcessor, BridgeTowerVisionConfig
from transformers.models.bridgetower.modeling_bridgetower import BridgeTowerVisionTransformer
from typer.testing import CliRunner

from lmms_tokendrop.modeling.architectures.modeling_meter import (
    MeterForImageAndTextRetrieval,
    MeterForImagesAndTextClassification,
    MeterForPreTraining,
    MeterForQuestionAnswering,
    MeterForVisualEntailment,
)

CLASSES = {
    "pretraining": MeterForPreTraining,
    "vqav2": MeterForQuestionAnswering,
    "snli-ve": MeterForVisualEntailment,
    "nlvr2": MeterForImagesAndTextClassification,
    "retrieval": MeterForImageAndTextRetrieval,
}


class Refused(Exception):
    """The command ended with status 1 and one line that says why."""


@pytest.fixture
def run(tmp_path):
    """Return `run(weights, task, *options)`: the output folder and what the command printed, or raise `Refused`."""
    tokenizer = tmp_path / "tokenizer"
    tiny_meter_tokenizer().save_pretrained(tokenizer)
    app = convert_meter.typer.Typer()
    app.command()(convert_meter.main)

    def convert(weights, task, *options, name="meter.ckpt"):
        path, output = tmp_path / name, tmp_path / "converted"
        if name.endswith(".safetensors"):
            save_file(weights, path)
        elif name.endswith(".ckpt"):
            torch.save({"epoch": 3, "state_dict": weights}, path)
        else:
            torch.save(weights, path)
        arguments = [str(path), str(output), "--task", task, "--tokenizer", str(tokenizer), *map(str, options)]
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if result.exit_code == 1:
            assert result.stderr.startswith("Error: ")
            assert result.stderr.count("\n") == 1
            raise Refused(result.stderr)
        return output, result.output

    return convert


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"no": 1, "yes": 0, "red": 2, "net": 3, "2": 4}))
    return path


@pytest.mark.parametrize("task", HEADS)
@torch.no_grad()
def test_a_public_checkpoint_becomes_a_folder_that_loads_whole(run, answers, task):
    weights = public_weights(task)
    options = ("--labels", answers) if task == "vqav2" else ()
    output, printed = run(weights, task, *options)
    model, info = CLASSES[task].from_pretrained(output, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert (output / "model.safetensors").is_file()
    unused = {*UNUSED, *({"itm_score.fc.weight", "itm_score.fc.bias"} if task == "retrieval" else ())}
    assert f"{len(unused)} dropped" in printed
    assert all(name in printed for name in unused)
    state, stored = model.state_dict(), sum(tensor.numel() for tensor in weights.values())
    assert sum(tensor.numel() for tensor in state.values()) == stored - sum(weights[name].numel() for name in unused)
    words = weights["text_transformer.embeddings.word_embeddings.weight"]
    assert torch.equal(state["meter.text_model.embeddings.word_embeddings.weight"], words)
    key = weights["cross_modal_image_layers.1.crossattention.self.key.weight"]
    assert torch.equal(state["meter.cross_modal_image_layers.1.crossattention.self.key.weight"], key)
    head = {"pretraining": "mlm_score.decoder.weight", "retrieval": "rank_output.weight"}.get(
        task, "classifier.3.weight"
    )
    [source] = [name for name in weights if name.endswith(head.removeprefix("classifier")) and name in HEADS[task]]
    assert torch.equal(state[head], weights[source])
    inputs = AutoProcessor.from_pretrained(output)(text="what color ?", return_tensors="pt")
    pixels = torch.randn(1, 2, 3, 64, 64) if task == "nlvr2" else torch.randn(1, 3, 64, 64)
    assert next(iter(model.eval()(**inputs, pixel_values=pixels).values())).isfinite().all()


@torch.no_grad()
def test_the_vision_tower_computes_what_clips_own_blocks_do(run):
    weights = public_weights("pretraining")
    tower = MeterForPreTraining.from_pretrained(run(weights, "pretraining")[0]).eval().meter.vision_model
    config = BridgeTowerVisionConfig(
        hidden_size=WIDTH, num_hidden_layers=BLOCKS + 1, patch_size=16, image_size=64, remove_last_layer=True
    )
    stock = BridgeTowerVisionTransformer(config).eval()
    names = {
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "conv1.weight": "embeddings.patch_embedding.weight",
    }
    raw = {name.removeprefix("vit_model.visual."): w for name, w in weights.items() if ".visual." in name}
    stock.load_state_dict({names.get(name, name): tensor for name, tensor in raw.items()})
    pixels = torch.randn(2, 3, 64, 64)
    assert (tower(pixels) - stock(pixels, None)[-1]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_pumers_files_have_a_prefix_and_another_name_for_a_head(run, name):
    torch.manual_seed(0)
    shapes = {f"meter.{key}": shape for key, shape in encoder("vit_model.", 2).items()}
    shapes |= classifier("ve_classifier", 2 * WIDTH, 3)
    weights = {key: torch.randn(shape) for key, shape in shapes.items()}
    output, printed = run(weights, "snli-ve", "--resize", "square", name=name)
    state = MeterForVisualEntailment.from_pretrained(output).state_dict()
    assert "0 dropped" in printed
    query = weights["meter.vit_model.transformer.resblocks.2.attn.in_proj_weight"][:WIDTH]
    assert torch.equal(state["meter.vision_model.layers.2.self_attn.q_proj.weight"], query)
    assert torch.equal(state["classifier.3.bias"], weights["ve_classifier.3.bias"])
    assert AutoProcessor.from_pretrained(output).image_processor.size["height"] == 64


@pytest.mark.parametrize("task", ["vqav2", "nlvr2", "retrieval"])
def test_fine_tuning_starts_from_pretraining(run, answers, task):
    weights = public_weights("pretraining")
    options = ("--labels", answers) if task == "vqav2" else ()
    output, printed = run(weights, task, "--initialise-head", *options)
    state = CLASSES[task].from_pretrained(output).state_dict()
    types = state["meter.token_type_embeddings.weight"]
    if task == "nlvr2":
        assert torch.equal(types, weights["token_type_embeddings.weight"][[0, 1, 1]])
        assert "a copy of row 1" in printed
    else:
        assert torch.equal(types, weights["token_type_embeddings.weight"])
    if task == "retrieval":
        assert torch.equal(state["rank_output.weight"], weights["itm_score.fc.weight"][1:])
        assert torch.equal(state["rank_output.bias"], weights["itm_score.fc.bias"][1:])
    else:
        assert "classifier.0.weight: new, random" in printed


def test_a_new_classifier_depends_on_the_seed_alone(run):
    weights = public_weights("pretraining")
    first, again, other = (
        CLASSES["snli-ve"]
        .from_pretrained(run(weights, "snli-ve", "--initialise-head", "--seed", seed)[0])
        .classifier[0]
        .weight.clone()
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_positions_can_be_interpolated(run):
    weights = public_weights("pretraining")
    output, printed = run(weights, "pretraining", "--image-size", 96)
    model = MeterForPreTraining.from_pretrained(output)
    positions = model.state_dict()["meter.vision_model.embeddings.position_embedding.weight"]
    before = weights["vit_model.visual.positional_embedding"]
    grid = before[1:].T.reshape(1, WIDTH, 4, 4)
    grid = torch.nn.functional.interpolate(grid, size=(6, 6), mode="bicubic")[0].flatten(1).T
    assert torch.equal(positions, torch.cat([before[:1], grid]))
    assert model.config.image_size == 96
    assert "from 4 to 6 patches a side" in printed
    with pytest.raises(Refused, match="image_size=100 is not a multiple of the patch size, 16"):
        run(weights, "pretraining", "--image-size", 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("cross_modal_text_pooler.dense.bias"), "missing: meter.cross_modal_text_pooler"),
        (lambda weights: weights.pop("cross_modal_text_transform.weight"), "has no meter.cross_modal_text_transform"),
        (
            lambda weights: weights.update({"vit_model.logit_scale": torch.ones(())}),
            "unknown keys: vit_model.logit_scale",
        ),
        (
            lambda weights: weights.update({"cross_modal_text_transform.bias": torch.ones(3)}),
            r"another shape: meter.cross_modal_text_transform.bias \(3,\) for \(64,\)",
        ),
        (
            lambda weights: weights.update({"cross_modal_image_layers.2.output.dense.bias": torch.ones(WIDTH)}),
            "unexpected: meter.cross_modal_image_layers.2",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_an_error(run, change, message):
    weights = public_weights("snli-ve")
    change(weights)
    with pytest.raises(Refused, match=message):
        run(weights, "snli-ve")


def test_another_tasks_checkpoint_is_an_error(run, answers):
    with pytest.raises(Refused, match=r"missing: classifier.0.bias.*--initialise-head"):
        run(public_weights("pretraining"), "snli-ve")
    answers.write_text(json.dumps(["yes", "no"]))
    with pytest.raises(Refused, match=r"classifier.3.weight \(5, 128\) for \(2, 128\)"):
        run(public_weights("vqav2"), "vqav2", "--labels", answers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("vqa",), "task='vqa'; allowed: pretraining, vqav2"),
        (("vqav2",), "vqav2 needs a file"),
        (("nlvr2", "--labels", "answers.json"), "vqav2 needs a file"),
    ],
)
def test_wrong_options_are_named(run, options, message):
    _, printed = run(public_weights("snli-ve"), *options)
    assert message in " ".join(printed.replace("│", " ").split())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("meter.ckpt", b""),
        ("meter.ckpt", b"no checkpoint"),
        ("meter.ckpt", b"PK\x03\x04 half a zip"),
        ("meter.safetensors", b"{"),
        ("meter.ckpt", [1, 2]),
        ("meter.ckpt", {"state_dict": {"a": 1}}),
    ],
)
def test_files_that_are_no_checkpoints_are_named(name, content, tmp_path):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(
        ValueError, match=rf"^{path} (is no checkpoint, or a broken one|holds other things than tensors)"
    ):
        convert_meter.read_weights(path)


def test_a_missing_file_and_an_output_that_is_a_file_are_one_line(run, tmp_path):
    app = convert_meter.typer.Typer()
    app.command()(convert_meter.main)
    missing = CliRunner().invoke(app, [str(tmp_path / "gone.ckpt"), str(tmp_path / "out"), "--task", "nlvr2"])
    assert missing.exit_code == 1
    assert missing.stderr.startswith("Error: ")
    assert "gone.ckpt" in missing.stderr
    assert missing.stderr.count("\n") == 1
    (tmp_path / "converted").write_text("mine")
    with pytest.raises(Refused, match="converted' is a file; name a folder"):
        run(public_weights("nlvr2"), "nlvr2")


def test_sizes_that_cannot_be_are_errors(run):
    weights = public_weights("nlvr2")
    with pytest.raises(Refused, match="head_size=48 does not divide all of 64, 64 and 64 channels"):
        run(weights, "nlvr2", "--head-size", 48)
    with pytest.raises(Refused, match="16 positions of images, which are no square grid"):
        run({**weights, "vit_model.visual.positional_embedding": torch.zeros(16, WIDTH)}, "nlvr2")
    with pytest.raises(Refused, match="resize"):
        run(weights, "nlvr2", "--resize", "stretch")


@pytest.mark.parametrize("content", ["{", "3", "[]", "[1, 2]", '{"a": "0"}', '{"a": 0, "b": true}'])
def test_labels_that_are_none_name_their_file(content, answers):
    answers.write_text(content)
    with pytest.raises(ValueError, match=str(answers)):
        convert_meter.read_labels(answers)


def test_labels_come_from_lists_objects_and_lines(answers):
    assert convert_meter.read_labels(answers) == ["yes", "no", "red", "net", "2"]
    answers.write_text('["a", "b"]')
    assert convert_meter.read_labels(answers) == ["a", "b"]
    answers.write_text('{"a": 0, "b": 2}')
    with pytest.raises(ValueError, match="numbers of answers must be 0 to 1"):
        convert_meter.read_labels(answers)
    lines = answers.with_suffix(".txt")
    lines.write_text("light blue\nnot\n")
    assert convert_meter.read_labels(lines) == ["light blue", "not"]


def test_other_objects_in_a_checkpoint_are_ignored_and_never_run(tmp_path, monkeypatch):
    lightning = types.ModuleType("lightning_callbacks")
    ran = []

    class Checkpoint:
        def __reduce__(self):
            return _explode, ()

    def _explode():
        ran.append(True)

    for thing in (Checkpoint, _explode):
        thing.__module__, thing.__qualname__ = "lightning_callbacks", thing.__name__
        setattr(lightning, thing.__name__, thing)
    monkeypatch.setitem(sys.modules, "lightning_callbacks", lightning)
    path = tmp_path / "with_callbacks.ckpt"
    content = {
        "callbacks": {Checkpoint: Checkpoint()},
        "hyper_parameters": argparse.Namespace(layers=6),
        "state_dict": {"a": torch.ones(2)},
    }
    torch.save(content, path)
    assert torch.equal(convert_meter.read_weights(path)["a"], torch.ones(2))
    assert ran == []

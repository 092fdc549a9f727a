"""Nothing outside the package changes; models hold no request's state."""

from __future__ import annotations

import ast
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from cases import METHODS, PROMPTS, greedy, stacked_logits
from fusion_reference import METHODS as ENCODER_METHODS
from keyed_weights import with_clip
from meter_reference import METER_METHODS

import lmms_tokendrop
from lmms_tokendrop.hub.code import foreign_imports
from lmms_tokendrop.modeling.core.token_drop_config import IMPORT

PACKAGE = Path(lmms_tokendrop.__file__).parent
MODELING = sorted((PACKAGE / "modeling").rglob("*.py"))

SNAPSHOT = """
import sys
sys.path[:0] = {paths!r}
import torch, transformers
from transformers import cache_utils, masking_utils, modeling_utils
from transformers import conversion_mapping
from transformers.models.clip import modeling_clip
from transformers.models.llama import modeling_llama
from transformers.models.llava_next import configuration_llava_next, modeling_llava_next, processing_llava_next
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.roberta import configuration_roberta, modeling_roberta
from transformers.models.vilt import configuration_vilt, modeling_vilt
from transformers.generation import utils as generation_utils

MODULES = [
    cache_utils, masking_utils, modeling_utils, modeling_clip, modeling_llama, configuration_llava_next,
    modeling_llava_next, processing_llava_next, modeling_mistral, modeling_qwen2, generation_utils,
    configuration_vilt, modeling_vilt, configuration_roberta, modeling_roberta,
]

def snapshot():
    seen = {{}}
    for module in MODULES:
        for name, value in vars(module).items():
            if name.startswith("__"):
                continue
            seen[module.__name__, name] = id(value)
            if isinstance(value, type) and value.__module__ == module.__name__:
                seen.update({{
                    (module.__name__, name, key): id(entry)
                    for key, entry in vars(value).items()
                    if key not in ("__doc__", "__abstractmethods__", "_abc_impl", "__annotations__", "__slotnames__")
                    and not key.endswith("_cached_value")  # what transformers found out at first use
                }})
    for table in (modeling_utils.ALL_ATTENTION_FUNCTIONS, masking_utils.ALL_MASK_ATTENTION_FUNCTIONS):
        seen.update({{(type(table).__name__, key): id(table[key]) for key in table.valid_keys()}})
    for name in ("llava_next", "LlavaNextModel", "CLIPVisionModel", "LlavaNextForConditionalGeneration"):
        seen["conversion", name] = repr(conversion_mapping.get_checkpoint_conversion_mapping(name))
    seen["threads"] = torch.get_num_threads()
    seen["dtype"] = torch.get_default_dtype()
    seen["deterministic"] = torch.are_deterministic_algorithms_enabled()
    return seen

from tiny_models import tiny_config, tiny_image, tiny_processor
config = tiny_config()
stock = transformers.LlavaNextForConditionalGeneration(config).eval()
processor = tiny_processor(config)
inputs = dict(processor(images=[tiny_image()], text=["<image> yes or no ?"], return_tensors="pt"))
options = dict(max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=3)
stock.generate(**inputs, **options)
before = snapshot()

import lmms_tokendrop
from lmms_tokendrop import LlavaNextTokenDropConfig, LlavaNextTokenDropForConditionalGeneration
for reduction in {methods!r}:
    ours = LlavaNextTokenDropConfig(**config.to_dict() | {{"token_reduction": reduction}})
    model = LlavaNextTokenDropForConditionalGeneration(ours).eval()
    model.generate(**inputs, **options)
    model.generate(**inputs, **options, num_beams=2)

from tiny_vilt import tiny_vilt_config, tiny_vilt_inputs
from lmms_tokendrop import ViltTokenDropConfig, ViltTokenDropForQuestionAnswering
for reduction in {encoder_methods!r}:
    ours = ViltTokenDropConfig(**tiny_vilt_config().to_dict() | {{"token_reduction": reduction}})
    ViltTokenDropForQuestionAnswering(ours).eval()(**tiny_vilt_inputs())

from tiny_meter import tiny_meter_config, tiny_meter_inputs
from lmms_tokendrop import MeterTokenDropConfig, MeterTokenDropForQuestionAnswering
for reduction in {meter_methods!r}:
    ours = MeterTokenDropConfig(**tiny_meter_config().to_dict() | {{"token_reduction": reduction}})
    MeterTokenDropForQuestionAnswering(ours).eval()(**tiny_meter_inputs())

after = snapshot()
changed = [key for key in before if before[key] != after.get(key)] + [key for key in after if key not in before]
print("changed:", changed)
"""


def run_fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_importing_and_running_changes_no_stock_object(tmp_path):
    paths = [str(PACKAGE.parent), str(Path(__file__).parents[1])]
    methods = [with_clip(options, tmp_path) for options in METHODS.values()]
    methods = [options | ({"tokenizer": options["clip"]} if "clip" in options else {}) for options in methods]
    output = run_fresh(
        SNAPSHOT.format(
            paths=paths,
            methods=methods,
            encoder_methods=list(ENCODER_METHODS.values()),
            meter_methods=list(METER_METHODS.values()),
        )
    )
    assert output.splitlines()[-1] == "changed: []"


def test_importing_the_package_imports_no_torch():
    code = f"""
import sys
sys.path.insert(0, {str(PACKAGE.parent)!r})
import lmms_tokendrop
dir(lmms_tokendrop)
print(sorted({{"torch", "transformers", "lmms_eval", "numpy", "PIL"}} & set(sys.modules)))
"""
    assert run_fresh(code).strip() == "[]"


def test_every_public_name_loads():
    for name in lmms_tokendrop.__all__:
        assert getattr(lmms_tokendrop, name) is not None


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="FastestModel"):
        _ = lmms_tokendrop.FastestModel


@pytest.mark.parametrize("path", MODELING, ids=lambda path: path.name)
def test_modeling_imports_only_the_standard_library_torch_transformers_and_siblings(path):
    siblings = {file.stem for file in MODELING}
    text = IMPORT.sub(r"\1from .\2 import", path.read_text())
    assert foreign_imports(text, siblings) == (["lmms_tokendrop"] if path.name == "available.py" else [])


@pytest.mark.parametrize("path", MODELING, ids=lambda path: path.name)
def test_no_text_looks_like_a_relative_import(path):
    """The Hub's loader reads imports line by line, in docstrings too."""
    tree = ast.parse(path.read_text())
    real = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if number not in real:
            assert not line.strip().startswith(("from .", "import ."))


ROOMS = {"ops": set(), "core": {"ops"}, "methods": {"core", "ops"}, "architectures": {"methods", "core", "ops"}}
"""Rooms of the modelling code, and those that each may import."""


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_of_the_modelling_code_import_each_other_in_one_direction(room):
    for path in (PACKAGE / "modeling" / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                assert node.module.split(".")[0] in ROOMS[room], f"{path.name} imports {node.module}"


def test_every_file_of_the_modelling_code_is_in_a_room_and_has_a_name_of_its_own():
    folders = {path.name for path in (PACKAGE / "modeling").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == ROOMS.keys()
    assert {path.name for path in (PACKAGE / "modeling").glob("*.py")} == {"__init__.py"}
    names = [path.name for path in MODELING if path.name != "__init__.py"]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", MODELING, ids=lambda path: path.name)
def test_a_file_of_the_modelling_code_has_at_most_300_lines(path):
    assert len(path.read_text().splitlines()) <= 300


def state_of(model) -> dict:
    """Everything that modules hold, but for parameters and submodules."""
    return {
        (name, key): id(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if key not in ("_parameters", "_modules", "_buffers")
    }


@pytest.mark.parametrize("method", METHODS)
def test_a_request_leaves_nothing_on_the_model(workshop, method):
    model = workshop.reduced(method)
    greedy(model, workshop.inputs("one_image"))
    before = state_of(model)
    greedy(model, workshop.inputs("ragged_batch"))
    model.generate(**workshop.inputs("two_images"), max_new_tokens=3, num_beams=2, eos_token_id=None)
    assert state_of(model) == before


@pytest.mark.parametrize("method", METHODS)
def test_two_threads_share_a_model(workshop, method):
    model = workshop.reduced(method)
    prompts = ["one_image", "two_images", "odd_aspect", "ragged_batch"] * 2
    inputs = [workshop.inputs(prompt) for prompt in prompts]
    expected = [stacked_logits(greedy(model, each)) for each in inputs]
    with ThreadPoolExecutor(2) as pool:
        actual = list(pool.map(lambda each: stacked_logits(greedy(model, each)), inputs))
    assert all(torch.equal(ours, alone) for ours, alone in zip(actual, expected, strict=True))


@pytest.mark.parametrize("place", ["vision", "before_a_stage", "after_the_stages", "decode"])
@pytest.mark.parametrize("method", METHODS)
def test_an_exception_inside_leaves_the_model_clean(workshop, monkeypatch, method, place):
    model, inputs = workshop.reduced(method), workshop.inputs("ragged_batch")
    expected = stacked_logits(greedy(model, inputs))
    before = state_of(model)
    layers = {
        "vision": model.model.vision_tower.encoder.layers[2],
        "before_a_stage": model.model.language_model.layers[1],
        "after_the_stages": model.model.language_model.layers[3],
        "decode": model.model.language_model.layers[2],
    }
    forward, calls = layers[place].forward, []

    def fail(*args, **kwargs):
        calls.append(1)
        if place != "decode" or len(calls) == 3:
            raise KeyboardInterrupt("stopped")
        return forward(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setitem(vars(layers[place]), "forward", fail)
        with pytest.raises(KeyboardInterrupt, match="stopped"):
            greedy(model, inputs)
    assert state_of(model) == before
    assert torch.equal(stacked_logits(greedy(model, inputs)), expected)


def test_a_request_that_can_t_be_met_leaves_the_model_clean(workshop):
    model = workshop.reduced("budget")
    expected = stacked_logits(greedy(model, workshop.inputs("one_image")))
    with pytest.raises(ValueError, match="end in an image"):
        greedy(model, workshop.inputs([("USER: <image>", [(60, 40)])]))
    assert torch.equal(stacked_logits(greedy(model, workshop.inputs("one_image"))), expected)


def test_loading_a_reduced_model_leaves_the_stock_one_as_it_was(workshop):
    inputs = workshop.inputs("one_image")
    expected = stacked_logits(greedy(workshop.stock(), inputs))
    for method in METHODS:
        for prompt in PROMPTS:
            greedy(workshop.reduced(method), workshop.inputs(prompt), 1)
    assert torch.equal(stacked_logits(greedy(workshop.stock(), inputs)), expected)

import pickle
import subprocess
import sys

import pytest
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelRegistryV2

from lmms_tokendrop.catalogue import Method, register, registry, variants
from lmms_tokendrop.evaluation import adapters
from lmms_tokendrop.evaluation.encoder import EncoderTokenDrop
from lmms_tokendrop.evaluation.generative import GenerativeTokenDrop
from lmms_tokendrop.evaluation.manifests import manifests
from lmms_tokendrop.pocket.registry import pocket_path


def test_reading_the_manifests_imports_no_torch():
    code = (
        "import sys; from lmms_tokendrop.evaluation.manifests import manifests;"
        f"assert len(manifests()) == {len(variants())};"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_entry_point_gives_every_variant():
    models = ModelRegistryV2()
    models.load_entrypoint_manifests(overwrite=True)
    for entry in variants():
        model_class = models.get_model_class(entry.model_id)
        assert issubclass(model_class, lmms)
        assert model_class.is_simple
        assert model_class.model_id == entry.model_id


@pytest.mark.parametrize(
    ("name", "base", "source"),
    [
        ("llava_next_full", GenerativeTokenDrop, None),
        ("llava_next_mustdrop", GenerativeTokenDrop, "https://arxiv.org/abs/2411.10803"),
        ("meter_vision_tome", EncoderTokenDrop, "https://arxiv.org/abs/2210.09461"),
    ],
)
def test_the_class_of_a_variant_is_made_once_and_can_be_pickled(name, base, source):
    model_class = getattr(adapters, name)
    assert issubclass(model_class, base)
    assert (model_class.__name__, model_class.__module__) == (name, adapters.__name__)
    assert pickle.loads(pickle.dumps(model_class)) is model_class is getattr(adapters, name)
    [description] = [entry.description for entry in variants() if entry.model_id == name]
    assert model_class.__doc__.startswith(description)
    assert source is None or source in model_class.__doc__


def test_there_is_a_class_for_each_variant_and_for_nothing_else():
    assert dir(adapters) == sorted(entry.model_id for entry in variants())
    with pytest.raises(AttributeError, match="no attribute 'vilt_mustdrop'; variants: llava_next_full, "):
        _ = adapters.vilt_mustdrop


def test_a_registered_method_reaches_lmms_eval(monkeypatch):
    monkeypatch.setattr(registry, "_methods", dict(registry._methods))
    register(Method(name="kept", title="all kept", reducers={"decoder": "package.module:Kept"}))
    assert "llava_next_kept" in {manifest.model_id for manifest in manifests()}
    models = ModelRegistryV2()
    models.load_entrypoint_manifests(overwrite=True)
    assert issubclass(models.get_model_class("llava_next_kept"), GenerativeTokenDrop)


def test_default_checkpoints_of_the_package_are_bundled():
    defaults = {entry.model_id: entry.pretrained for entry in variants()}
    assert defaults["vilt_dynamicvit"] == "pocket"
    assert [name for name, pretrained in defaults.items() if pretrained is None] == ["meter_dynamicvit"]
    for entry in variants():
        assert (entry.pocket is None) == (entry.architecture == "llava" or entry.model_id == "meter_dynamicvit")
        if entry.pocket is not None:
            assert (pocket_path(entry.architecture, entry.method) / "config.json").is_file()

import subprocess
import sys

import pytest
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelRegistryV2

from lmms_tokendrop.evaluation.loading import MODEL_CLASSES
from lmms_tokendrop.evaluation.manifests import VARIANTS, manifests, variant
from lmms_tokendrop.pocket.registry import pocket_path


def test_reading_the_manifests_imports_no_torch():
    code = (
        "import sys; from lmms_tokendrop.evaluation.manifests import manifests;"
        f"assert len(manifests()) == {len(VARIANTS)};"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_entry_point_gives_every_variant():
    registry = ModelRegistryV2()
    registry.load_entrypoint_manifests(overwrite=True)
    for entry in VARIANTS:
        model_class = registry.get_model_class(entry.model_id)
        assert issubclass(model_class, lmms)
        assert model_class.is_simple
        assert model_class.model_id == entry.model_id


def test_every_variant_has_a_model_class_and_a_reducer():
    from lmms_tokendrop.modeling.token_reducer import REDUCTION_CONFIGS

    for entry in VARIANTS:
        assert entry.architecture in MODEL_CLASSES
        assert entry.method in REDUCTION_CONFIGS[entry.architecture].reducers
    assert len({entry.model_id for entry in VARIANTS}) == len(VARIANTS) == len(manifests())


def test_default_checkpoints_of_the_package_are_bundled():
    defaults = {entry.model_id: entry.pretrained for entry in VARIANTS}
    assert defaults["vilt_dynamicvit"] == "pocket"
    assert [name for name, pretrained in defaults.items() if pretrained is None] == ["meter_dynamicvit"]
    for entry in VARIANTS:
        if entry.pretrained == "pocket":
            assert (pocket_path(entry.architecture, entry.method) / "config.json").is_file()


def test_unknown_variant_lists_the_known():
    with pytest.raises(ValueError, match=r"llava_next_full.*llava_next_mustdrop.*llava_next_random"):
        variant("llava_next_magic")

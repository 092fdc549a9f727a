"""Looking up bundled models."""

import subprocess
import sys

import pytest

from lmms_tokendrop.pocket.registry import WEIGHTS, pocket_path


@pytest.mark.parametrize("method", ["none", "random", "uniform", "mustdrop"])
def test_finds_the_bundled_model(method):
    path = pocket_path("llava_next", method)
    assert path == WEIGHTS / "llava_next"
    assert (path / "config.json").is_file()


def test_unknown_pair_names_what_is_bundled():
    with pytest.raises(ValueError, match=r"'qwen3_vl'.*'mustdrop'.*llava_next/mustdrop.*llava_next/random"):
        pocket_path("qwen3_vl", "mustdrop")


def test_lookup_does_not_import_torch():
    code = "import sys; import lmms_tokendrop.pocket.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

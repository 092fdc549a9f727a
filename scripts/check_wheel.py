"""Check an installed wheel from the outside: `python scripts/check_wheel.py DIST.whl`, run where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from importlib.metadata import distribution, entry_points
from pathlib import Path

LARGEST_MEGABYTES = 60


def check_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"lmms_tokendrop"}, top
    assert not [name for name in names if name.endswith(".py") and ("/test_" in name or "conftest" in name)], (
        "tests in the wheel"
    )
    for wanted in ("tasks/pocket_scenes/pocket_scenes.yaml", "model_cards/", "pocket/weights/", "py.typed"):
        assert any(name.startswith(f"lmms_tokendrop/{wanted}") for name in names), f"{wanted} is not in the wheel"
    assert any(name.endswith(".parquet") for name in names), "no task data in the wheel"
    assert any(name.endswith(".safetensors") for name in names), "no weights in the wheel"
    megabytes = wheel.stat().st_size / 1e6
    assert megabytes < LARGEST_MEGABYTES, f"{megabytes:.0f} MB"


def check_installed() -> None:
    site = Path(str(distribution("lmms-tokendrop").locate_file(""))).resolve()
    package = import_module("lmms_tokendrop")
    assert Path(package.__file__).resolve().is_relative_to(site), f"{package.__file__} is not the installed package"
    assert "torch" not in sys.modules, "importing the package imports torch"
    for name in package.__all__:
        getattr(package, name)
    [entry] = [entry for entry in entry_points(group="lmms_eval.models") if entry.name == "lmms_tokendrop"]
    registry = import_module("lmms_eval.models.registry_v2").ModelRegistryV2()
    registry.load_entrypoint_manifests(overwrite=True)
    for manifest in entry.load()():
        registry.get_model_class(manifest.model_id)
    command = shutil.which("lmms-tokendrop", path=str(Path(sys.executable).parent))
    assert command is not None, "no command lmms-tokendrop"
    printed = subprocess.run([command, "tasks-path"], check=True, capture_output=True, text=True).stdout.strip()
    assert Path(printed).resolve() == site / "lmms_tokendrop" / "tasks", printed


def main() -> None:
    wheel = Path(sys.argv[1])
    check_contents(wheel)
    check_installed()
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, contents and imports are right")


if __name__ == "__main__":
    main()

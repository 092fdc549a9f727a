"""What an editable install and a built wheel contain. `.ci/run` also imports the wheel in a clean environment."""

import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import lmms_tokendrop
from lmms_tokendrop.modeling.core.tested_transformers import TESTED

ROOT = Path(__file__).resolve().parent.parent
RUNS = {ROOT / "model_cards" / "results" / name for name in ("compare", "compositions")}
"""Runs with every answer, of which the docs show the table; they stay in the source tree."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return path


def test_the_wheel_has_one_top_level_name_tasks_and_weights(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"lmms_tokendrop"}
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    for source in ("tasks", "model_cards", "lmms_tokendrop/pocket/weights"):
        files = [path for path in (ROOT / source).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        for path in files:
            relative = path.relative_to(ROOT).as_posix().removeprefix("lmms_tokendrop/")
            packed = relative in {name.removeprefix("lmms_tokendrop/") for name in names}
            assert packed is RUNS.isdisjoint(path.parents)
    assert not [name for name in names if "tests" in name.split("/") or "scripts" in name.split("/")]


def test_tasks_path_points_into_an_installed_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "from lmms_tokendrop.evaluation.tasks_path import tasks_path; print(tasks_path())"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert Path(printed) == tmp_path / "lmms_tokendrop" / "tasks"


def test_an_editable_install_uses_the_source_tree_and_copies_nothing(tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    [site] = (tmp_path / "env" / "lib").glob("python*/site-packages")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "-q", "-e", str(ROOT)]
    subprocess.run([*command, "--target", str(site)], check=True, capture_output=True)
    assert not (site / "lmms_tokendrop").exists()
    code = "from lmms_tokendrop.evaluation.tasks_path import tasks_path; print(tasks_path())"
    printed = subprocess.run([python, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert Path(printed.strip()) == ROOT / "tasks"


def test_entry_points_resolve():
    [models] = [entry for entry in entry_points(group="lmms_eval.models") if entry.name == "lmms_tokendrop"]
    assert [manifest.model_id for manifest in models.load()()]
    [script] = [entry for entry in entry_points(group="console_scripts") if entry.name == "lmms-tokendrop"]
    assert script.load() is not None


def test_importing_the_package_imports_no_torch_and_every_public_name_exists():
    code = "import sys, lmms_tokendrop; dir(lmms_tokendrop); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for name in lmms_tokendrop.__all__:
        assert getattr(lmms_tokendrop, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lmms_tokendrop.no_such_name


def test_the_extras_name_what_training_and_benchmarks_import():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in ("train", "bench"):
        assert any(requirement.startswith("easy-vqa") for requirement in extras[extra])


def test_the_range_of_transformers_is_the_one_that_exported_code_is_tested_with():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [needed] = [one for one in map(Requirement, project["dependencies"]) if one.name == "transformers"]
    assert needed.specifier == SpecifierSet(f">={TESTED[0]},<{TESTED[1]}")

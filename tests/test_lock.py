"""The environment of the two commands is the lock, and the lock fits the ranges."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "requirements-lowest.txt")


def locked(lock: str) -> dict[str, str]:
    """Return the versions that a lock gives for this platform and Python."""
    lines = (line for line in (ROOT / lock).read_text().splitlines() if not line.startswith("#"))
    requirements = [Requirement(line) for line in lines]
    wanted = [entry for entry in requirements if entry.marker is None or entry.marker.evaluate()]
    return {canonicalize_name(entry.name): str(entry.specifier).removeprefix("==") for entry in wanted}


def ranges() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *extras["train"], *extras["bench"], *extras["dev"]]
    return {canonicalize_name(entry.name): entry for entry in map(Requirement, texts)}


def test_what_is_installed_is_what_the_lock_says():
    command = [sys.executable, "-m", "pip", "freeze", "--all", "--exclude-editable"]
    frozen = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    installed = dict(line.split("==") for line in frozen.splitlines() if "==" in line)
    installed = {canonicalize_name(name): version for name, version in installed.items()}
    tools = {"pip", "lmms-tokendrop"} | ({"setuptools", "wheel"} - set(locked("requirements.txt")))
    assert {name: version for name, version in installed.items() if name not in tools} == locked("requirements.txt")


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_has_every_dependency_in_its_range(lock):
    versions = locked(lock)
    for name, requirement in ranges().items():
        assert requirement.specifier.contains(versions[name]), f"{name} {versions[name]}: {requirement}"


def test_the_lower_lock_is_the_lower_bound_of_every_range():
    versions = locked("requirements-lowest.txt")
    for name, requirement in ranges().items():
        [bound] = [entry.version for entry in requirement.specifier if entry.operator == ">="]
        assert Requirement(f"x=={bound}").specifier.contains(versions[name]), f"{name} {versions[name]}: {requirement}"

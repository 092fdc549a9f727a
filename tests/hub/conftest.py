"""A hub on this machine, and the unreduced models that the tests export."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import transformers.dynamic_module_utils
import transformers.utils.hub
from card_files import write_export, write_results
from fake_hub import TOKEN, FakeHub, serve
from huggingface_hub import constants, hf_api

from lmms_tokendrop.catalogue import variants
from lmms_tokendrop.pocket.registry import pocket_path


@pytest.fixture(scope="session", autouse=True)
def modules_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the copies of exported code that transformers makes out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("modules")
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(folder))
        patch.setattr(sys, "path", list(sys.path))
        yield


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    """Point the client of this process, and of those that it starts, to a hub in memory, with an empty cache."""
    home = tmp_path_factory.mktemp("home")
    with serve() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", server.url)
        patch.setattr(hf_api.api, "endpoint", server.url)
        # transformers keeps one client, made when it is first asked for, with the address of that time
        patch.setattr(transformers.utils.hub, "_hf_api", None)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        variables = {"HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        for name, value in {**variables, "HF_HUB_DISABLE_XET": "1"}.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def base_folder() -> Callable[[str, str], Path]:
    """Return ``find(architecture, method)``: the model bundled for the method, else the unreduced one."""

    def find(architecture: str, method: str) -> Path:
        [entry] = variants(architecture=architecture, method=method)
        return pocket_path(architecture, "none" if entry.pocket is None else method)

    return find


@pytest.fixture
def folder(tmp_path) -> Path:
    """An exported folder, as far as a card reads it."""
    return write_export(tmp_path / "exported")


@pytest.fixture
def results(tmp_path) -> Path:
    """Results of its variant and of the unreduced model, of other settings, and of a benchmark."""
    return write_results(tmp_path / "results")

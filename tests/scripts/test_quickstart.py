import importlib.util
import venv

import pytest
import quickstart


def test_an_environment_without_pip_is_made_anew_and_a_good_one_stays(tmp_path):
    environment = tmp_path / ".venv"
    venv.create(environment, with_pip=False)
    (environment / "left_over").touch()
    programs = quickstart.prepare(environment)
    assert quickstart.has_pip(programs / "python")
    assert not (environment / "left_over").exists()
    (environment / "installed").touch()
    assert quickstart.prepare(environment) == programs
    assert (environment / "installed").exists()


def test_a_python_without_ensurepip_is_told_the_package_to_install(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else find_spec(name))
    with pytest.raises(SystemExit, match="python3-venv"):
        quickstart.prepare(tmp_path / ".venv")
    assert not (tmp_path / ".venv").exists()

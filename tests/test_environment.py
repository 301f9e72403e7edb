"""The two descriptions of the environment say the same, and it is the one the tests run in."""

from importlib.metadata import version
from pathlib import Path

import tomllib
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
PACKAGES = {"submitit", "torch", "deepspeed", "transformers", "zarr", "mlflow", "pyyaml"}


def names(requirements):
    return {requirement.split(";")[0].strip().rstrip("0123456789.,<>=") for requirement in requirements}


def test_conda_installs_what_the_project_asks_for():
    (pip,) = (entry["pip"] for entry in CONDA if isinstance(entry, dict))
    assert pip == PROJECT["dependencies"]
    assert f"python{PROJECT['requires-python']}" in CONDA


def test_the_missions_packages_are_declared():
    assert names(PROJECT["dependencies"]) >= PACKAGES
    assert "omnigibson" in names(PROJECT["optional-dependencies"]["behavior"])


def test_no_second_torch():
    assert "torch==2.13.0" in PROJECT["dependencies"]
    assert version("torch").startswith("2.13.0")

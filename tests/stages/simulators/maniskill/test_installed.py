"""What is said of an interpreter that has something else than what ManiSkill's worlds need."""

import sys
from importlib import metadata

import pytest

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.maniskill import installed, make

RIGHT = {"mani_skill": "3.0.1", "sapien": "3.0.3", "torch": "2.13.0+cpu"}


@pytest.fixture
def install(monkeypatch):
    """Has this interpreter say that packages of some versions are installed."""

    def pretend(**other):
        versions = {**RIGHT, **other}
        monkeypatch.setattr(metadata, "version", versions.__getitem__)

    return pretend


def test_the_versions_it_is_written_for_are_taken_with_any_torch(install):
    install()
    assert installed.versions() == RIGHT


@pytest.mark.parametrize(("package", "version"), [("mani_skill", "3.1.0"), ("sapien", "3.0.0")])
def test_another_version_is_refused_before_anything_is_loaded(install, package, version):
    install(**{package: version})
    with pytest.raises(SimulatorConfigError) as caught:
        make(1, {})
    assert str(caught.value) == (
        f"maniskill: {package} {version} is installed in {sys.executable}, {RIGHT[package]} is needed; baton env "
        "create maniskill, and leave simulator.python out"
    )


def test_an_interpreter_without_it_is_told_apart():
    with pytest.raises(ModuleNotFoundError, match="^No package named 'mani_skill'$"):
        installed.versions()

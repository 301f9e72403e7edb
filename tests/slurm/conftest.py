"""Fixtures of the tests of Slurm's jobs: commands that do what they are told, and a launcher that calls them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slurm import batch
from slurm.batch import SlurmLauncher
from tests.slurm.fake_slurm_for_tests import FakeSlurm


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(batch, "LOOKS", (0.0, 0.0))
    return FakeSlurm(folder)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def launcher(said: list[str]) -> SlurmLauncher:
    """Looks at every poll."""
    return SlurmLauncher(0.0, say=said.append)

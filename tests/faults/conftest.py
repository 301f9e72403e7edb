"""What tests of faults have in common."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slurm.cluster import Cluster

HERE = Path(__file__).parent


@pytest.fixture
def fakes_on_the_cluster(idle_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle cluster whose jobs find the fake stages."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parents[1]), str(HERE)]))

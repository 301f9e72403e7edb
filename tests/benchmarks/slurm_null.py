"""What both benchmarks of the Slurm side share: a cluster, and runs of stages without work on it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.resolve import resolve
from pipeline.rundir import create_or_resume
from slurm.cluster import Cluster, down, up

ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "faults"


@contextmanager
def test_cluster() -> Iterator[Cluster]:
    """A cluster of its own, gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="baton-bench-", dir="/tmp"))
    try:
        cluster = up(root)
        os.environ["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(FAKES)])
        sys.path.insert(0, str(FAKES))
        yield cluster
    finally:
        down(root, purge=True)


def null_run(folder: Path, name: str, epochs: int, **slurm: Any) -> Path:
    """A run whose stages do nothing: one shard an epoch, evaluated at both ends."""
    config = Config.model_validate(
        {
            "name": name,
            "runs_dir": str(folder),
            "epochs": epochs,
            "sft": {"threads": 1},
            "update": {"threads": 1},
            "slurm": {"launcher": "slurm", "query_seconds": 5.0, "time": 60, **slurm},
            "trainer": {"logger": {"mlflow": {"enable": False}}},
        }
    )
    return create_or_resume(resolve(config))

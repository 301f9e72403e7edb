"""Fixtures of all tests."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from slurm.cluster import ClusterError, down, packages, up

pytest_plugins = ["tests.browser", "tests.simulator_environments"]

PREFIX = "baton-slurm-"
TESTS = Path(__file__).parent
WAITING = (TESTS / "faults", TESTS / "slurm")
LONGEST = (
    TESTS / "test_types.py",
    TESTS / "stages/simulators/libero/test_libero.py",  # it and the next may have environments to build
    TESTS / "stages/simulators/maniskill/test_worlds.py",
)


def pytest_collection_modifyitems(items):
    """What takes longest comes first, and files that wait come evenly between those that compute."""
    waiting, computing = [], []
    for file in dict.fromkeys(item.path for item in items):
        (waiting if any(folder in file.parents for folder in WAITING) else computing).append(file)
    turn = {file: (number + 0.5) / len(kind) for kind in (waiting, computing) for number, file in enumerate(kind)}
    items.sort(key=lambda item: -1 if item.path in LONGEST else turn[item.path])


@pytest.fixture(scope="session", autouse=True)
def _no_cluster_by_chance():
    """A test that does not ask for the cluster sees none, whatever the shell that runs it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SLURM_CONF", raising=False)
        yield


@pytest.fixture(scope="session")
def _shared_cluster():
    _end_stale_clusters()
    # Sockets need a short path.
    root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp"))
    try:
        yield up(root)
    except ClusterError as error:
        if packages.missing():
            pytest.skip(str(error))
        raise
    finally:
        down(root, purge=True)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def cluster(_shared_cluster, monkeypatch):
    """A real Slurm, shared by the tests of a session; `idle_cluster` is one that no test before has touched."""
    monkeypatch.setenv("SLURM_CONF", _shared_cluster.environment["SLURM_CONF"])
    return _shared_cluster


@pytest.fixture
def idle_cluster(cluster):
    """The cluster with every daemon running, every node up and no job; whatever the test breaks is mended."""
    up(cluster.root).cancel_all()
    yield cluster
    up(cluster.root).cancel_all()


def _end_stale_clusters():
    """Whoever kills pytest leaves its cluster running."""
    with Path(f"/tmp/{PREFIX}lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of one pytest start at once
        for stale in Path("/tmp").glob(f"{PREFIX}*-*"):
            if not Path("/proc", stale.name.removeprefix(PREFIX).split("-")[0]).exists():
                down(stale, purge=True)

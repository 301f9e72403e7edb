"""OmniGibson of any generation without Isaac Sim, in this process or in that of a worker."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

FAKES = Path(__file__).parent / "fakes"
ROOT = Path(__file__).parents[4]
PACKAGES = ("omnigibson", "fake_omnigibson", "gello")
BUILDS = ("b", "b_first_patch", "b_fork", "c_vector", "c")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of the challenge with two activities."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FAKES / "common")
        write = importlib.import_module("fake_omnigibson.data").write
        _forget()
    path: Path = write(tmp_path_factory.mktemp("behavior") / "data")
    return path


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]


@pytest.fixture
def machine(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The variables of a machine with BEHAVIOR's data; Python is not 3.10 here, which is waived."""
    monkeypatch.setenv("OMNIGIBSON_DATA_PATH", str(data))
    monkeypatch.setenv("BATON_OMNIGIBSON_ANY_PYTHON", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    chosen = ("OMNIGIBSON_APPDATA_PATH", "NUMBA_CACHE_DIR", "OMNIGIBSON_GPU_ID", "OMNIGIBSON_HEADLESS")
    for name in (*chosen, "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def install(machine: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes a build importable in this process; the alarm stays pytest's."""
    machine.setattr("stages.simulators.omnigibson.watchdog.arm", lambda: None)
    machine.setattr("stages.simulators.omnigibson.watchdog.limit", lambda seconds: nullcontext())
    machine.setattr("gc.collect", lambda: 0)  # of all that pytest holds, it takes half a second
    handler = signal.getsignal(signal.SIGINT)

    def install_build(build: str) -> None:
        _forget()
        machine.syspath_prepend(FAKES / "common")
        machine.syspath_prepend(FAKES / build)
        importlib.invalidate_caches()

    yield install_build
    signal.signal(signal.SIGINT, handler)
    _forget()


@pytest.fixture
def make(install: Callable[[str], None]) -> Callable[..., Any]:
    """`make(build, num_envs, **options)`: the simulator, in this process, with small pictures."""
    from stages.simulators.interface import make as make_simulator

    def make_one(build: str = "b_fork", num_envs: int = 1, **options: Any) -> Any:
        install(build)
        return make_simulator("omnigibson", num_envs, {"image_size": 32, "max_episode_steps": 20, **options})

    return make_one


@pytest.fixture
def worker(machine: pytest.MonkeyPatch) -> Callable[..., None]:
    """`worker(build, fault)`: what worker processes started from here find."""

    def set_up(build: str = "b_fork", fault: str = "") -> None:
        path = [str(FAKES / "common"), str(FAKES / build)]
        machine.setenv("PYTHONPATH", os.pathsep.join(path))
        machine.setenv("FAKE_OMNIGIBSON_FAULT", fault)

    return set_up

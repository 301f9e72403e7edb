"""The household on both backends; the kernels are compiled once, by the first test process that needs them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.simulators.household.simulator import Household
from stages.simulators.interface import make

# Two scenes, one of them with a drawer; between them few pairs of shapes, each of which is a kernel to compile.
TASKS = ("stack", "long_cube_into_sprung_drawer")
OPTIONS = {"renderer": "raycast", "image_size": 32, "tasks": TASKS, "reward": "dense"}
WORLDS = 4


def compile_kernels(shared: Path) -> None:
    """Hold back the other test processes while kernels are compiled: one of them is enough to do it.

    Args:
        shared: a folder that all of them know.
    """
    with (shared / "warp-kernels.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make("household", 2, {**OPTIONS, "backend": "mujoco_warp", "renderer": "mujoco_warp"}).close()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The kernels of all tests here are there."""
    compile_kernels(tmp_path_factory.getbasetemp().parent)


@pytest.fixture(scope="session")
def warp(compiled: None) -> Iterator[Household]:
    """Worlds that MuJoCo Warp moves, for tests that begin with a reset."""
    simulator = make("household", WORLDS, {**OPTIONS, "backend": "mujoco_warp"})
    yield simulator
    simulator.close()


@pytest.fixture(scope="session")
def plain() -> Iterator[Household]:
    """Worlds that MuJoCo moves, likewise."""
    simulator = make("household", WORLDS, {**OPTIONS, "backend": "mujoco"})
    yield simulator
    simulator.close()

"""PhysX on a GPU where it cannot run: one line that says what is missing, and no download."""

import platform

import pytest

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.maniskill import physx_library

REFUSED = "maniskill: simulator.options.backend is physx_cuda, but "
VERSION = "105.1-physx-5.3.1.patch0"


def refusal(devices, home, driver="libnowhere.so"):
    with pytest.raises(SimulatorConfigError) as refused:
        physx_library.require(devices, VERSION, home, driver)
    return str(refused.value)


def test_without_a_gpu(tmp_path):
    assert refusal(0, tmp_path) == REFUSED + (
        "torch sees no CUDA device here: run on a machine with a GPU and with torch built for CUDA in "
        "simulator.python's environment, or take physx_cpu"
    )


def test_without_the_library(tmp_path):
    assert refusal(1, tmp_path) == REFUSED + (
        f"PhysX's GPU library {tmp_path}/.sapien/physx/{VERSION}/libPhysXGpu_64.so is missing: unpack "
        f"https://github.com/sapien-sim/physx-precompiled/releases/download/{VERSION}/linux-so.zip there, "
        "or take physx_cpu"
    )
    assert not any(tmp_path.iterdir())


def test_on_another_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert refusal(1, tmp_path) == REFUSED + (
        "PhysX has no GPU library for this machine: use Linux on x86_64, or take physx_cpu"
    )


def test_without_the_driver(tmp_path):
    library = tmp_path / ".sapien" / "physx" / VERSION / "libPhysXGpu_64.so"
    library.parent.mkdir(parents=True)
    library.touch()
    assert refusal(1, tmp_path) == REFUSED + (
        "SAPIEN cannot load the GPU's driver: libnowhere.so: cannot open shared object file: No such file or "
        "directory; make it known to the loader, or take physx_cpu"
    )


def test_where_all_is_there(tmp_path):
    library = tmp_path / ".sapien" / "physx" / VERSION / "libPhysXGpu_64.so"
    library.parent.mkdir(parents=True)
    library.touch()
    physx_library.require(1, VERSION, tmp_path, "libc.so.6")

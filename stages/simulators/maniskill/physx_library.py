"""Whether PhysX can run on the GPU here; SAPIEN would download the library it needs in the middle of a run."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

from stages.simulators.interface import SimulatorConfigError

_RELEASES = "https://github.com/sapien-sim/physx-precompiled/releases/download"
_ARCHIVES = {"x86_64": "linux-so.zip", "aarch64": "linux-aarch64-so.zip"}


def require(devices: int, version: str, home: Path, driver: str = "libcuda.so") -> None:
    """Refuse physx_cuda where it cannot run; nothing is downloaded, nobody is asked.

    Args:
        devices: CUDA devices that torch sees.
        version: of the PhysX that SAPIEN was built with.
        home: the user's home directory, below which SAPIEN looks for the library.
        driver: CUDA's, as SAPIEN loads it.

    Raises:
        SimulatorConfigError: there is no GPU, or no library; the message says what to do.
    """
    refused, otherwise = "maniskill: simulator.options.backend is physx_cuda, but", "or take physx_cpu"
    if not devices:
        raise SimulatorConfigError(
            f"{refused} torch sees no CUDA device here: run on a machine with a GPU and with torch built for CUDA in "
            f"simulator.python's environment, {otherwise}"
        )
    archive = _ARCHIVES.get(platform.machine())
    if platform.system() != "Linux" or archive is None:
        raise SimulatorConfigError(
            f"{refused} PhysX has no GPU library for this machine: use Linux on x86_64, {otherwise}"
        )
    library = home / ".sapien" / "physx" / version / "libPhysXGpu_64.so"
    if not library.exists():
        raise SimulatorConfigError(
            f"{refused} PhysX's GPU library {library} is missing: unpack {_RELEASES}/{version}/{archive} there, "
            f"{otherwise}"
        )
    try:
        ctypes.CDLL(driver, ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise SimulatorConfigError(
            f"{refused} SAPIEN cannot load the GPU's driver: {error}; make it known to the loader, {otherwise}"
        ) from None

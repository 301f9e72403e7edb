"""What SAPIEN draws with: the Vulkan devices there are, and the choice among them before SAPIEN is loaded.

Without a GPU it is lavapipe, Mesa's software driver, which `baton env create maniskill` puts beside the interpreter
where the system has none. Mesa before 24.3 lacks what SAPIEN asks of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import glob
import importlib.util
import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from stages.simulators.interface import SimulatorConfigError

LEAST_MESA = (24, 3)
# Which drivers Vulkan's loader takes, by its newer and its older name; SAPIEN knows the older.
_NEWER, _FILES = "VK_DRIVER_FILES", "VK_ICD_FILENAMES"
_CPU_DEVICE = 4
# Structures of Vulkan 1.2 as they lie in memory: their number, a pointer to another one, and what is read of them.
_APPLICATION = struct.Struct("=I4xQQI4xQII")
_INSTANCE = struct.Struct("=I4xQI4xQI4xQI4xQ")
_PROPERTIES, _PROPERTIES_NUMBER = struct.Struct("=I4xQIIIIi256s"), 1000059001
_DRIVER, _DRIVER_NUMBER = struct.Struct("=I4xQI256s256s"), 1000196000
_ENOUGH = 4096  # bytes, for any of them
_VULKAN_1_2 = 1 << 22 | 2 << 12


@dataclasses.dataclass(frozen=True)
class Device:
    """A device that Vulkan shows.

    Attributes:
        name: as its driver calls it.
        gpu: whether it is one.
        mesa: version of Mesa, for lavapipe.
    """

    name: str
    gpu: bool
    mesa: tuple[int, int] | None = None

    def __str__(self) -> str:
        """In words."""
        return self.name + (f", Mesa {'.'.join(map(str, self.mesa))}" if self.mesa else "")


def prepare(wanted: str) -> tuple[str, Device]:
    """Settle on what draws, and set the environment of this process accordingly; to be called before SAPIEN is loaded.

    Args:
        wanted: gpu, cpu, or auto: a GPU where both Vulkan and CUDA show one.

    Returns:
        gpu or cpu, and the device.

    Raises:
        SimulatorConfigError: there is none of the wanted kind, or Mesa is too old.
    """
    variable = next((name for name in (_NEWER, _FILES) if os.environ.get(name)), "")
    asked = os.environ.get(variable, "")
    if wanted != "cpu" and cuda_devices():
        for files in [asked] if asked else ["", *_nvidia_files()]:
            for device in _shown(files):
                if device.gpu:
                    _set(files)
                    return "gpu", device
    if wanted == "gpu":
        raise SimulatorConfigError(f"maniskill: renderer is 'gpu', but {_no_gpu()}; or set renderer: cpu")
    remedy = f"unset {variable}" if asked else _remedy()
    software = [(files, one) for files in ([asked] if asked else _software_files()) for one in _shown(files)]
    software = [(files, device) for files, device in software if not device.gpu]
    for files, device in software:
        if device.mesa is None or device.mesa >= LEAST_MESA:
            _set(files)
            return "cpu", device
    if software:
        raise SimulatorConfigError(f"maniskill: {software[0][1]} is too old to draw with; {remedy}")
    place = f" in {variable}={asked}" if asked else ""
    raise SimulatorConfigError(f"maniskill: no Vulkan driver to draw with{place}; {remedy}")


def devices() -> list[Device]:
    """What Vulkan shows to this process; nothing where it has no loader or driver."""
    loader = _loader()
    if loader is None:
        return []
    application = ctypes.create_string_buffer(_APPLICATION.pack(0, 0, 0, 0, 0, 0, _VULKAN_1_2))
    info = _INSTANCE.pack(1, 0, 0, ctypes.addressof(application), 0, 0, 0, 0)
    instance, count = ctypes.c_void_p(), ctypes.c_uint32()
    if loader.vkCreateInstance(info, None, ctypes.byref(instance)):
        return []
    try:
        if loader.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None) or not count.value:
            return []
        handles = (ctypes.c_void_p * count.value)()
        loader.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
        return [_describe(loader, handle) for handle in handles if handle]
    finally:
        loader.vkDestroyInstance(instance, None)


def cuda_devices() -> int:
    """How many GPUs CUDA shows to this process, by way of which SAPIEN finds the one to draw with."""
    count = ctypes.c_int()
    with contextlib.suppress(OSError):
        cuda = ctypes.CDLL("libcuda.so.1")
        if cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


def _describe(loader: ctypes.CDLL, handle: int) -> Device:
    driver = ctypes.create_string_buffer(_DRIVER.pack(_DRIVER_NUMBER, 0, 0, b"", b""), _ENOUGH)
    told = ctypes.create_string_buffer(_ENOUGH)
    _PROPERTIES.pack_into(told, 0, _PROPERTIES_NUMBER, ctypes.addressof(driver), 0, 0, 0, 0, 0, b"")
    loader.vkGetPhysicalDeviceProperties2(ctypes.c_void_p(handle), told)
    *_, kind, name = _PROPERTIES.unpack_from(told)
    *_, said = _DRIVER.unpack_from(driver)
    mesa = re.match(rb"Mesa (\d+)\.(\d+)", said)
    return Device(
        name.split(b"\0")[0].decode(errors="replace"), kind != _CPU_DEVICE, mesa and (int(mesa[1]), int(mesa[2]))
    )


def _loader() -> ctypes.CDLL | None:
    """The system's libvulkan, else the one that SAPIEN brings along."""
    for path in ["libvulkan.so.1", *(str(path) for path in sorted(_sapien().glob("libvulkan.so*")))]:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(path)
    return None


def _shown(files: str) -> list[Device]:
    """What Vulkan shows with some drivers' files; empty: with the system's."""
    with _restored():
        _set(files)
        return devices()


def _set(files: str) -> None:
    if files:
        os.environ[_FILES] = files


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    before = os.environ.get(_FILES)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_FILES, None)
        else:
            os.environ[_FILES] = before


def _software_files() -> list[str]:
    own = _own_driver()
    return [str(own)] * own.is_file() + sorted(glob.glob("/usr/share/vulkan/icd.d/lvp_icd*.json"))


def _own_driver() -> Path:
    """What tells Vulkan of the environment's lavapipe, where it has one."""
    return Path(sys.prefix) / "lavapipe" / "lvp_icd.json"


def _remedy() -> str:
    """How a machine without a GPU gets something to draw with."""
    install, prefix = "install mesa-vulkan-drivers 24.3 or newer", Path(sys.prefix)
    if _own_driver().is_file():  # and does not work here
        return install
    # One that was built where Mesa could not be fetched counts as whole, and would not be built again.
    away = f"rm -r {prefix}; " if (prefix / "built.json").is_file() else ""
    return f"`{away}baton env create maniskill` on Debian, which fetches Mesa's driver, or {install}"


def _nvidia_files() -> list[str]:
    """What tells Vulkan of NVIDIA's driver where the system does not, as in many containers."""
    return [str(path) for path in _sapien().glob("nvidia_icd.json")]


def _sapien() -> Path:
    spec = importlib.util.find_spec("sapien")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'sapien'", name="sapien")
    return Path(spec.origin).parent / "vulkan_library"


def _no_gpu() -> str:
    if not cuda_devices():
        return "CUDA shows no GPU to this process; run it where there is one (nvidia-smi, CUDA_VISIBLE_DEVICES)"
    shown = ", ".join(map(str, devices())) or "nothing"
    return f"Vulkan shows {shown}; install the graphics part of NVIDIA's driver (NVIDIA_DRIVER_CAPABILITIES=all)"

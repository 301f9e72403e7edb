"""Which of EGL's devices is the card that CUDA_VISIBLE_DEVICES gives this process: the two count differently."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.simulators.interface import SimulatorConfigError

CUDA, MUJOCO = "CUDA_VISIBLE_DEVICES", "MUJOCO_EGL_DEVICE_ID"
# From the extensions EGL_NV_device_cuda and EGL_EXT_device_persistent_id of the EGL registry.
_CUDA_DEVICE_NV, _DEVICE_UUID, _EXTENSIONS = 0x323A, 0x335C, 0x3055
_MOST = 64


@dataclasses.dataclass(frozen=True)
class Device:
    """One of EGL's devices.

    Attributes:
        index: its place in EGL's list.
        cuda: CUDA's number of it; None: it is no NVIDIA card, or its driver does not say.
        uuid: as nvidia-smi writes it, "GPU-..."; empty where the driver does not say.
    """

    index: int
    cuda: int | None
    uuid: str


def choose(environment: Mapping[str, str], wanted: int | None) -> int | None:
    """The device to draw on.

    Args:
        environment: the process's variables.
        wanted: what the config says.

    Returns:
        Its index; None: whichever EGL takes, because nothing says which.

    Raises:
        SimulatorConfigError: there is no such device, or which one it is cannot be told.
    """
    found = devices()
    if wanted is not None:
        if wanted >= len(found):
            raise SimulatorConfigError(
                f"libero: egl_device is {wanted}, but EGL lists {len(found)} devices here; set it to one from 0 to "
                f"{len(found) - 1}, or leave it out"
            )
        return wanted
    if environment.get(MUJOCO, "").isdigit():
        return int(environment[MUJOCO])
    card = environment.get(CUDA, "").split(",")[0].strip()
    if not card or not any(Path("/dev").glob("nvidia[0-9]*")):
        return None
    return pick(found, card, () if card.isdigit() else _uuids())


def pick(found: Sequence[Device], card: str, uuids: Sequence[str]) -> int:
    """The device that is a card.

    Args:
        found: EGL's devices.
        card: CUDA's number of it, or its UUID or the beginning of that.
        uuids: of the machine's cards, in CUDA's order of the bus.

    Raises:
        SimulatorConfigError: the card is a slice of one (MIG), EGL has no NVIDIA device, or several might be it.
    """
    if card.startswith("MIG"):
        raise SimulatorConfigError(
            f"libero: {CUDA}={card} is a slice of a GPU, on which OpenGL cannot draw; give the simulators whole GPUs, "
            "or set simulator.options.renderer=osmesa"
        )
    cards = [device for device in found if device.cuda is not None]
    if not cards:
        raise SimulatorConfigError(
            f"libero: {CUDA}={card}, but none of EGL's {len(found)} devices is an NVIDIA card, so images would be "
            "drawn on the CPU; install the driver's libEGL_nvidia (in a container: NVIDIA_DRIVER_CAPABILITIES=all), or "
            "take the CPU on purpose with simulator.options.renderer=osmesa"
        )
    if len(cards) == 1:
        return cards[0].index
    if card.isdigit():
        same = [device for device in cards if device.cuda == int(card)]
    else:
        same = [device for device in cards if device.uuid.startswith(card)]
        numbers = [number for number, uuid in enumerate(uuids) if uuid.startswith(card)]
        same = same or [device for device in cards if device.cuda in numbers]
    if len(same) != 1:
        raise SimulatorConfigError(
            f"libero: which of EGL's {len(found)} devices is {CUDA}={card} cannot be told; set "
            f"simulator.options.egl_device to its index, from 0 to {len(found) - 1}"
        )
    return same[0].index


def devices() -> list[Device]:
    """EGL's devices; none where EGL cannot list them."""
    try:
        library = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return []
    library.eglGetProcAddress.restype, library.eglGetProcAddress.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    listing = _function(library, "eglQueryDevicesEXT", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    if listing is None:
        return []
    handles, count = (ctypes.c_void_p * _MOST)(), ctypes.c_int()
    if not listing(_MOST, handles, ctypes.byref(count)):
        return []
    return [Device(i, _cuda(library, handles[i]), _uuid(library, handles[i])) for i in range(count.value)]


def _cuda(library: ctypes.CDLL, handle: int | None) -> int | None:
    ask = _function(library, "eglQueryDeviceAttribEXT", ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    value = ctypes.c_ssize_t()
    if ask is None or not _has(library, handle, b"EGL_NV_device_cuda"):
        return None
    return value.value if ask(handle, _CUDA_DEVICE_NV, ctypes.byref(value)) else None


def _uuid(library: ctypes.CDLL, handle: int | None) -> str:
    kinds = ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p
    ask = _function(library, "eglQueryDeviceBinaryEXT", *kinds)
    if ask is None or not _has(library, handle, b"EGL_EXT_device_persistent_id"):
        return ""
    buffer, size = (ctypes.c_ubyte * 16)(), ctypes.c_int()
    if not ask(handle, _DEVICE_UUID, 16, buffer, ctypes.byref(size)) or size.value != 16:
        return ""
    digits = bytes(buffer).hex()
    return "GPU-" + "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _has(library: ctypes.CDLL, handle: int | None, extension: bytes) -> bool:
    ask = _function(library, "eglQueryDeviceStringEXT", ctypes.c_void_p, ctypes.c_int, result=ctypes.c_char_p)
    told = ask(handle, _EXTENSIONS) if ask else None
    return told is not None and extension in told.split()


def _function(library: ctypes.CDLL, name: str, *kinds: Any, result: Any = ctypes.c_uint) -> Any:
    address = library.eglGetProcAddress(name.encode())
    return ctypes.CFUNCTYPE(result, *kinds)(address) if address else None


def _uuids() -> list[str]:
    """UUIDs of the machine's cards in the order of the bus; none without NVIDIA's driver."""
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    variables = {key: value for key, value in os.environ.items() if key != CUDA}
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=variables).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in told.splitlines() if line.strip()]

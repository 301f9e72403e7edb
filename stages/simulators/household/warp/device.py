"""The device that MuJoCo Warp computes on: the first GPU that this process may see, or the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

import warp as wp

from stages.simulators.interface import SimulatorConfigError

_QUANTUM = 32  # a GPU's workspace has room for a multiple of so many worlds
# Warp's own flags raise the compiler's inlining limits, and with them the time it takes, for no faster code here.
_CPU_FLAGS = "-march=native"
_LAZILY = 1  # CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS, the only way there is
_LINES = "32"  # of work that a GPU takes in side by side; CUDA's own 8 are fewer than a suite has scenes


class _Handle(ctypes.Structure):
    """CUipcMemHandle, which the driver takes by value."""

    _fields_ = (("reserved", ctypes.c_ubyte * 64),)


class Device:
    """A GPU, or the CPU where there is none.

    Attributes:
        is_gpu: which of them.
        name: e.g. "NVIDIA H100 80GB HBM3" or "the CPU".
        cache: folder of compiled kernels.
        uuid: of a GPU whose memory other processes can open, as NVIDIA counts them; else None.
        target: what they are compiled for, as the names of their files have it: "cpu", or e.g. "sm90".
    """

    def __init__(self) -> None:
        """Start Warp and take the device."""
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", _LINES)
        wp.config.log_level = wp.LOG_WARNING
        wp.config.cpu_compiler_flags = _CPU_FLAGS
        wp.config.cuda_output = "cubin"  # the other kind, PTX, is compiled once more by the driver, on each machine
        wp.init()
        self.is_gpu = bool(wp.is_cuda_available())
        self._device = wp.get_device("cuda:0" if self.is_gpu else "cpu")
        self.name = str(self._device.name) if self.is_gpu else "the CPU"
        self.cache = str(wp.config.kernel_cache_dir)
        self.uuid = str(self._device.uuid) if self.is_gpu and self._device.is_ipc_supported is not False else None
        self.target = f"sm{self._device.arch}" if self.is_gpu else "cpu"

    def stream(self) -> wp.Stream | None:
        """A line of work of its own, so that scenes are computed side by side; the CPU has no such thing."""
        return wp.Stream(self._device) if self.is_gpu else None

    @contextlib.contextmanager
    def current(self, stream: wp.Stream | None) -> Iterator[None]:
        """Everything inside is allocated on the device and done in the line of `stream`."""
        with wp.ScopedDevice(self._device), wp.ScopedStream(stream):
            yield

    def free_memory(self) -> int | None:
        """Bytes that are free on a GPU; None for the CPU, whose memory is shared with everything else."""
        if not self.is_gpu:
            return None
        self.wait()  # until then what was freed is kept for whatever still uses it
        return int(self._device.free_memory)

    def opened(self, handle: bytes, shape: tuple[int, ...]) -> wp.array:
        """Memory that another process lends, uint8 of a shape; it stays open as long as this process lives.

        Raises:
            SimulatorConfigError: the driver does not open it.
        """
        address = ctypes.c_uint64()
        with wp.ScopedDevice(self._device):
            # Not by wp.from_ipc_handle, which makes new memory where the driver refuses.
            opened = ctypes.CDLL("libcuda.so.1").cuIpcOpenMemHandle_v2
            code = opened(ctypes.byref(address), _Handle.from_buffer_copy(handle), _LAZILY)
        if code:
            raise SimulatorConfigError(
                f"household: the images cannot stay on {self.name}: its driver does not open the stage's memory there "
                f"(cuIpcOpenMemHandle, error {code}); set simulator.options.images_on_gpu=false"
            )
        return wp.array(ptr=address.value, dtype=wp.uint8, shape=shape, device=self._device)

    def wait(self) -> None:
        """Until everything that was asked for is done."""
        wp.synchronize_device(self._device)

    def rounded(self, count: int) -> int:
        """How many worlds to make room for where `count` are to be: a GPU's room grows in larger pieces."""
        return -(-count // _QUANTUM) * _QUANTUM if self.is_gpu else count

"""Images that stay on the GPU where simulators draw them and the policy decides: memory that both processes see.

A stage allocates it and lends it to its simulator workers, so what it holds outlives a worker that dies. A world has a
row of its own, which changes only when something is asked of that world: nobody has to take turns.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Sequence
from concurrent import futures

import numpy as np
import torch
from torch import Tensor

from stages.simulators.interface import Observation
from stages.simulators.pool import SimulatorPool
from stages.simulators.tickets import whereabouts

OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
PIECE = 2 << 20  # bytes: of a smaller allocation the driver would lend its neighbours as well


class Gallery:
    """What the cameras of all worlds of a pool saw last.

    Attributes:
        handle: what another process opens the memory by.
    """

    def __init__(self, images: Tensor, handle: bytes) -> None:
        """Keep the memory.

        Args:
            images: uint8 [worlds, 1 + V, 3, H, W], head camera first.
            handle: of their memory.
        """
        self.handle = handle
        self._images = images
        self._aside = torch.cuda.Stream(images.device) if images.is_cuda else None
        self._porter = futures.ThreadPoolExecutor(1, "gallery")
        self._kept: futures.Future[None] | None = None
        self._tray = torch.empty(images.shape, dtype=images.dtype, pin_memory=images.is_cuda)

    def look(self, slots: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What some worlds look like, good until something is asked of them.

        Args:
            slots: n worlds.

        Returns:
            Head uint8 [n, 3, H, W] and wrists uint8 [n, V, 3, H, W], where the memory is.
        """
        rows = self._images[whereabouts(slots)]
        return rows[:, 0], rows[:, 1:]

    def fetch(self, slots: Sequence[int]) -> None:
        """Begin to bring the same to main memory, beside whatever else the GPU is at; `keep` ends it."""
        if self._kept is not None:
            self._kept.result()  # by now the tray is empty
        with torch.cuda.stream(self._aside):  # does nothing where there is none
            self._tray[: len(slots)].copy_(self._images[whereabouts(slots)], non_blocking=True)

    def keep(self, seen: Observation) -> futures.Future[None]:
        """Wait for what was fetched, and have it written into an observation; of the worlds anything may be asked then.

        Args:
            seen: of the n worlds whose images were fetched; its head and wrist are written.

        Returns:
            Done when they are: new memory takes longer to come by than what is written to it, so others go on before.
        """
        if self._aside is not None:
            self._aside.synchronize()
        self._kept = self._porter.submit(self._write, seen)
        return self._kept

    def _write(self, seen: Observation) -> None:
        tray = self._tray[: len(seen.head)].numpy()
        np.copyto(seen.head, tray[:, 0])
        np.copyto(seen.wrist, tray[:, 1:])


def gallery(pool: SimulatorPool, device: torch.device) -> Gallery | None:
    """The gallery of a pool that draws where its policy decides.

    Args:
        pool: the simulators; lent a gallery if they have none yet.
        device: of the policy.

    Returns:
        The gallery; None where images pass through main memory.

    Raises:
        SimulatorConfigError: the simulators cannot open it.
    """
    if pool.lent is None and device.type == "cuda" and pool.gpu == uuid(device):
        spec = pool.spec
        pool.lend(allocated((pool.num_envs, 1 + spec.wrist_cameras, 3, *spec.image_size), device))
        print(f"images stay on {torch.cuda.get_device_name(device)}", flush=True)
    assert pool.lent is None or isinstance(pool.lent, Gallery)
    return pool.lent


def uuid(device: torch.device) -> str:
    """The name of a GPU that is the same in every process."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def allocated(shape: tuple[int, ...], device: torch.device) -> Gallery:
    """A gallery in memory of its own, which goes back with the last tensor that looks into it.

    Args:
        shape: [worlds, 1 + V, 3, H, W].
        device: a GPU.
    """
    memory = _Memory(shape, device)
    return Gallery(torch.as_tensor(memory, device=device), memory.handle)


class _Memory:
    """Memory of a GPU that torch's allocator does not share out: that could be lent only with all that lies beside it.

    Attributes:
        handle: of the memory, 64 bytes.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self._shape, self._device = shape, device
        torch.zeros(1, device=device)  # makes the context that the driver's own calls are made in, if torch has not yet
        address, handle = ctypes.c_uint64(), (ctypes.c_ubyte * 64)()
        size = -(-math.prod(shape) // PIECE) * PIECE
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        self._address = address
        self._call("cuIpcGetMemHandle", handle, address)
        self.handle = bytes(handle)
        # https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
        self.__cuda_array_interface__ = {"shape": shape, "typestr": "|u1", "data": (address.value, False), "version": 3}

    def __del__(self) -> None:
        if hasattr(self, "_address"):
            with contextlib.suppress(RuntimeError):  # when Python ends the driver may be gone, and with it the memory
                self._call("cuMemFree_v2", self._address)

    def _call(self, name: str, *arguments: object) -> None:
        with torch.cuda.device(self._device):
            code = getattr(ctypes.CDLL("libcuda.so.1"), name)(*arguments)
        if code == OUT_OF_MEMORY:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {name} finds no room for images of {self._shape}")
        if code:
            raise RuntimeError(f"{name} of the NVIDIA driver failed with error {code} on {self._device}")

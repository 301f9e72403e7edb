"""The process that Isaac Sim lives in: what has to be right before, while and after it starts.

One simulator a process, imported and started in its main thread. Kit reads the command line, takes over signals and
switches the garbage collector off; OmniGibson's macros can be set until they are read.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson import dataset, graphics, watchdog
from stages.simulators.omnigibson.options import Options

APP_DATA = "OMNIGIBSON_APPDATA_PATH"
NUMBA = ("llvmlite", "numba", "numba.np.arrayobj", "numba.core.runtime.context")
MOST_PROCESSES = 256  # of one user on one node

_locks: list[int] = []  # held until the process ends


def prepare(options: Options) -> int | None:
    """Set what Isaac Sim reads from the environment.

    Returns:
        Kit's index of the graphics card, None where nothing says which.

    Raises:
        SimulatorConfigError: something is missing that the start would fail on, later and in more words.
    """
    if threading.current_thread() is not threading.main_thread():
        raise SimulatorConfigError("omnigibson: Isaac Sim can only be started in the main thread of a process")
    dataset.data_path()
    apps = os.environ.get("EXP_PATH")
    if apps and not os.access(apps, os.W_OK):
        raise SimulatorConfigError(
            f"omnigibson: EXP_PATH={apps} is read-only, and OmniGibson copies its .kit file there at every start; bind "
            "a writable copy of Isaac Sim's apps folder over it (apptainer exec --bind)"
        )
    card = graphics.choose(os.environ)
    os.environ["OMNIGIBSON_HEADLESS"] = "1"
    own = _own_directory(options)
    os.environ.setdefault(APP_DATA, str(own / "kit"))
    if options.numba_cache:
        os.environ.setdefault("NUMBA_CACHE_DIR", str(own / "numba"))
    return card


@contextlib.contextmanager
def starting(options: Options, card: int | None) -> Iterator[ModuleType]:
    """Import OmniGibson, so that it is built in the block; afterwards the process is put right again.

    Args:
        options: what the user chose.
        card: index of the graphics card, None for the first.

    Yields:
        The package.
    """
    arguments, handler = sys.argv, signal.getsignal(signal.SIGINT)
    # Kit reads sys.argv: not ours, but the caps on its threads, of which it takes as many as there are cores.
    sys.argv = [arguments[0], *thread_caps(options)]
    try:
        for name in NUMBA:  # Isaac Sim's own numba is older than what it would find of llvmlite
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)
        # OmniGibson keeps tables on "cuda", which is the first card that CUDA sees unless another is made current.
        if card and graphics.CUDA not in os.environ:
            importlib.import_module("torch").cuda.set_device(card)
        omnigibson = importlib.import_module("omnigibson")
        _set_macros(options)
        yield omnigibson
    finally:
        sys.argv = arguments
        signal.signal(signal.SIGINT, handler)  # OmniGibson's would shut down amid a step
    gc.enable()  # Kit switches it off, and OmniGibson's cycles fill the memory
    gc.collect()
    watchdog.arm()  # last, because Kit has handlers of its own
    if options.texture_budget is not None:
        settings = importlib.import_module("omnigibson.lazy").carb.settings.get_settings()
        settings.set_float("/rtx-transient/resourcemanager/texturestreaming/memoryBudget", options.texture_budget)


def thread_caps(options: Options) -> list[str]:
    """Settings for Kit's command line, which sizes its pools by the machine's cores otherwise."""
    return [
        f"--/plugins/{name}={threads}"
        for name, threads in (
            ("carb.tasking.plugin/threadCount", options.carb_threads),
            ("omni.tbb.globalcontrol/maxThreadCount", options.tbb_threads),
        )
        if threads is not None
    ]


def macros(options: Options) -> dict[str, bool]:
    """What OmniGibson's global macros are set to."""
    return {
        "HEADLESS": True,
        "ENABLE_OBJECT_STATES": True,  # BehaviorTask asserts it
        "ENABLE_FLATCACHE": options.flatcache,
        "USE_GPU_DYNAMICS": options.gpu_dynamics,
        "ENABLE_TRANSITION_RULES": options.transition_rules,
        "RENDER_VIEWER_CAMERA": options.viewport,
        "USE_NUMPY_CONTROLLER_BACKEND": options.numpy_controllers,
    }


def _set_macros(options: Options) -> None:
    gm: Any = importlib.import_module("omnigibson.macros").gm
    with gm.unlocked():
        for name, value in macros(options).items():
            setattr(gm, name, value)


def _own_directory(options: Options) -> Path:
    """A folder on this node that no other process uses, and that the next one finds warm.

    Shaders take minutes to compile and are kept below it; two processes in one folder spoil it.
    """
    base = Path(options.cache_directory or Path(tempfile.gettempdir(), f"baton-omnigibson-{os.getuid()}"))
    for number in range(MOST_PROCESSES):
        own = base / f"process-{number:03d}"
        try:
            own.mkdir(parents=True, exist_ok=True)
            lock = os.open(own / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise SimulatorConfigError(
                f"omnigibson: {own} cannot be written ({error.strerror}); set simulator.options.cache_directory to a "
                "folder on the node's own disk"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        _locks.append(lock)
        return own
    raise SimulatorConfigError(f"omnigibson: {MOST_PROCESSES} processes use {base}; end those that are left over")

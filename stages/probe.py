"""What a machine is like for a stage, told in one line; `baton doctor` starts it where stages will run.

    python -m stages.probe '{"modules": ["stages.update"], "torch": true}'

The argument, all keys optional: `modules` to import; `torch`: whether to ask it for GPUs; `simulator`, the config's
block; `folder`, which the asker sees too, with a file named by `read` in which it has written `content`, for which the
probe waits `patience` seconds, and one named by `write` that the probe writes; `paths` that have to be there; `url`, a
server to reach.

The answer, a line of JSON after `ANSWER`: what was found, and under `..._error` what went wrong, in one line each. It
imports nothing of ours before it is asked to, so that a machine without the code can say so.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ANSWER = "baton-probe: "
NVIDIA = Path("/proc/driver/nvidia")
SHARED_MEMORY = Path("/dev/shm")
STARTS_QUICKLY = ("household",)  # other simulators take minutes and are imported only
SECONDS = 120.0  # for one look; also for a simulator to start
SERVER_SECONDS = 5.0
PATIENCE_SECONDS = 10.0  # network file systems show files of other machines after some seconds


def main() -> None:
    """Look at what the command line asks for, and print the answer."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    answer: dict[str, Any] = {
        "host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "python": platform.python_version(),
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "driver": NVIDIA.exists(),
    }
    looks: dict[str, Callable[[], Any]] = {"free": lambda: free(asked.get("folder"))}
    if shutil.which("nvidia-smi"):
        looks["cards"] = cards
    if asked.get("modules"):
        looks["modules"] = lambda: [importlib.import_module(name).__name__ for name in asked["modules"]]
    if asked.get("torch"):
        looks["torch"] = torch_gpus
    if asked.get("read"):
        patience = asked.get("patience", PATIENCE_SECONDS)
        looks["read"] = lambda: read(Path(asked["folder"], asked["read"]), asked["content"], patience)
    if asked.get("write"):
        looks["write"] = lambda: Path(asked["folder"], asked["write"]).write_text(asked["content"])
    if asked.get("simulator"):
        looks["simulator"] = lambda: simulator(asked["simulator"])
    if asked.get("url"):
        looks["url"] = lambda: reach(asked["url"])
    looks["missing"] = lambda: [path for path in asked.get("paths", ()) if not Path(path).exists()]
    for name, look in looks.items():
        try:
            answer[name] = look()
        except Exception as error:  # whatever a foreign library raises has to reach the asker
            answer[f"{name}_error"] = f"{type(error).__name__}: {error}".strip().splitlines()[-1]
    # The clock last: the asker compares it with its own when this line arrives.
    print(ANSWER + json.dumps({**answer, "time": time.time()}), flush=True)


def free(folder: str | None) -> dict[str, int]:
    """Bytes this user may still write where stages write."""
    places = {"runs_dir": folder, "/dev/shm": SHARED_MEMORY, "TMPDIR": tempfile.gettempdir()}
    status = {name: os.statvfs(place) for name, place in places.items() if place and Path(place).exists()}
    return {name: found.f_bavail * found.f_frsize for name, found in status.items()}


def read(path: Path, content: str, patience: float) -> float:
    """Wait for a file of another machine.

    Args:
        path: the file.
        content: what it must hold.
        patience: seconds to wait.

    Returns:
        Seconds until it was seen.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it holds something else.
    """
    begin = time.monotonic()
    while not path.exists():
        if time.monotonic() - begin > patience:
            raise FileNotFoundError(f"{path if path.parent.exists() else path.parent} is not there")
        time.sleep(0.1)
    if path.read_text() != content:
        raise ValueError(f"{path} holds something else")
    return time.monotonic() - begin


def cards() -> int:
    """GPUs that the driver shows."""
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=SECONDS, check=True)
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def torch_gpus() -> dict[str, Any]:
    """What torch can use."""
    import torch

    return {"version": torch.__version__, "gpus": torch.cuda.device_count() if torch.cuda.is_available() else 0}


def reach(url: str) -> int:
    """Ask a server; returns the status of its answer, whatever it is."""
    try:
        with urllib.request.urlopen(url, timeout=SERVER_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def simulator(block: dict[str, Any]) -> dict[str, str]:
    """Start a simulator in its interpreter, or import it there where starting takes long.

    Args:
        block: `simulator` of a config.

    Returns:
        Its version and renderer; nothing of one that was only imported.
    """
    from pipeline.config import Simulator
    from stages.simulation import simulator_options
    from stages.simulators.pool import SimulatorPool
    from stages.simulators.process import PACKAGE_ROOT

    config = Simulator.model_validate(block)
    if config.name in STARTS_QUICKLY:
        seconds = min(config.start_timeout, SECONDS)
        options = simulator_options(config)
        with SimulatorPool(config.name, options, 1, 1, config.python, seconds, seconds, max_restarts=0) as pool:
            return {"version": pool.spec.version, "renderer": pool.spec.renderer}
    package = config.name if "." in config.name else f"stages.simulators.{config.name}"
    path = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
    tried = subprocess.run(
        [config.python or sys.executable, "-c", f"import {package}"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": path},
    )
    if tried.returncode:
        raise RuntimeError((tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1])
    return {}


if __name__ == "__main__":
    main()

"""Which graphics card Isaac Sim renders and simulates on, and whether it can draw well."""

from __future__ import annotations

import re
import subprocess
from collections.abc import MutableMapping
from pathlib import Path

from stages.simulators.interface import SimulatorConfigError

CUDA, KIT = "CUDA_VISIBLE_DEVICES", "OMNIGIBSON_GPU_ID"
WITHOUT_RT_CORES = re.compile(r"\b(A100|A30|A800|H100|H200|H800|H20|GH200|B100|B200|GB200|V100|P100)\b")


def choose(environment: MutableMapping[str, str], nodes: int | None = None) -> int | None:
    """Have Kit take the card that Baton gave this process.

    CUDA_VISIBLE_DEVICES renumbers the cards for CUDA and not for Vulkan, so Kit's index 0 could be one card to its
    renderer and another to its physics. The variable is therefore taken away and the card named by the index that both
    count it by. Where the job's cgroup shows a single card there is nothing to choose.

    Args:
        environment: the process's variables, changed in place; OMNIGIBSON_GPU_ID stays where the user has set it.
        nodes: how many cards the process can open; None: count them.

    Returns:
        Kit's index; None where nothing says which card.

    Raises:
        SimulatorConfigError: a slice of a card (MIG) is named, which cannot render, or a card that is not here.
    """
    device = environment.get(CUDA, "").split(",")[0].strip()
    if environment.get(KIT) or not device:
        return int(environment[KIT]) if environment.get(KIT, "").isdigit() else None
    if device.startswith("MIG"):
        raise SimulatorConfigError(
            f"omnigibson: {CUDA}={device} is a slice of a GPU, on which Isaac Sim cannot render; give the simulators "
            "whole GPUs in cluster.component_placement.env"
        )
    nodes = len(list(Path("/dev").glob("nvidia[0-9]*"))) if nodes is None else nodes
    index = 0 if nodes == 1 else _index_of(device)
    environment.pop(CUDA)
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # Vulkan's order
    environment[KIT] = str(index)
    if index:
        print(
            f"omnigibson: Isaac Sim is started on GPU {index}; some drivers hang on others than GPU 0. If it does, "
            "have Slurm show each simulator its own GPU (ConstrainDevices) or place env on the first GPUs of a node",
            flush=True,
        )
    return index


def _index_of(device: str) -> int:
    """The index of a card by its index or its UUID."""
    if device.isdigit():
        return int(device)
    for line in _query("index,uuid").splitlines():
        index, _, uuid = line.partition(",")
        if uuid.strip().startswith(device):
            return int(index)
    raise SimulatorConfigError(f"omnigibson: {CUDA}={device} is no GPU that nvidia-smi lists on this machine")


def describe(index: int | None) -> str:
    """What draws the pictures, in words, with a warning where they will be bad."""
    names = [line.strip() for line in _query("name").splitlines()]
    name = names[index or 0] if len(names) > (index or 0) else "an unknown GPU"
    if not WITHOUT_RT_CORES.search(name):
        return f"RTX on {name}"
    print(
        f"omnigibson: WARNING: {name} has no RT cores: pictures are drawn slowly and with severe artifacts, and differ "
        "from those of the demonstrations. Put simulators on RTX cards (L40S, RTX 6000, 4090) with a node group",
        flush=True,
    )
    return f"RTX on {name}, which has no RT cores: expect artifacts"


def _query(fields: str) -> str:
    """A line of the fields for each card; empty without NVIDIA's driver."""
    try:
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""

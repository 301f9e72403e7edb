"""Check 1: versions, graphics card and driver; and what a process takes of the machine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson import generation
from stages.simulators.omnigibson.graphics import WITHOUT_RT_CORES
from stages.simulators.omnigibson.probe.order import VERSIONS
from stages.simulators.probing import Finding

HOPPER_AND_LATER = re.compile(r"\b(H100|H200|H800|H20|GH200|B100|B200|GB200)\b")
HOPPER_DRIVER = 570
WITHOUT_CARD = "have the job ask for a GPU, or put the driver into the container (apptainer --nv)"
LEAST_MEMORY = 8.2  # GiB, of one simulator process


def versions() -> Finding:
    """Whether Baton can use what is installed here, on this card."""
    try:
        found = generation.find()
    except ModuleNotFoundError:
        remedy = "baton env create omnigibson, or set simulator.python to the interpreter it is installed in"
        return Finding(VERSIONS, "fail", "omnigibson is not installed in this interpreter", remedy)
    except SimulatorConfigError as error:
        return Finding(VERSIONS, "fail", *_halves(str(error)))
    isaac = generation.isaac_version() or "of unknown version"
    words = f"OmniGibson {found.versions} (generation {found.letter}), Isaac Sim {isaac}"
    cards = query("name,driver_version,memory.total")
    if not cards:
        return Finding(VERSIONS, "fail", f"{words}, but nvidia-smi shows no GPU", WITHOUT_CARD)
    name, driver, memory = (part.strip() for part in cards[0].split(","))
    words = f"{words}, {name}, driver {driver}"
    if HOPPER_AND_LATER.search(name) and int(driver.split(".")[0]) < HOPPER_DRIVER:
        remedy = f"install driver {HOPPER_DRIVER} or newer, or use other nodes: slurm.rollout.constraint"
        return Finding(VERSIONS, "fail", f"{words}: {name} needs driver {HOPPER_DRIVER}", remedy)
    if float(memory.split()[0]) / 1024 < LEAST_MEMORY:
        found_memory = f"{words}: {memory} of memory, a simulator takes {LEAST_MEMORY} GiB"
        return Finding(VERSIONS, "warn", found_memory, "use larger GPUs for cluster.component_placement.env")
    if WITHOUT_RT_CORES.search(name):
        remedy = "put env on RTX cards (L40S, RTX 6000 Ada, 4090) with a node group of cluster.component_placement"
        found_card = f"{words}: it has no RT cores, so pictures are slow and differ from the demonstrations'"
        return Finding(VERSIONS, "warn", found_card, remedy)
    return Finding(VERSIONS, "pass", words)


def query(fields: str, what: str = "gpu") -> list[str]:
    """Lines of nvidia-smi; none where it does not answer."""
    command = ["nvidia-smi", f"--query-{what}={fields}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in told.splitlines() if line.strip()]


def gpu_memory(processes: set[int]) -> float:
    """MiB of graphics memory that processes hold."""
    held = 0.0
    for line in query("pid,used_memory", "compute-apps"):
        process, _, used = line.partition(",")
        number = re.match(r"\s*\d+", used)
        if process.strip().isdigit() and int(process) in processes and number:
            held += float(number[0])
    return held


def memory() -> float:
    """MB of main memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _halves(message: str) -> tuple[str, str]:
    """What is wrong, and what is to be done, of a message that says both."""
    found, _, remedy = message.removeprefix("omnigibson: ").rpartition("; ")
    return (found, remedy) if found else (message, "see docs/behavior.md")

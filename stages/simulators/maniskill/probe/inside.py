"""The process that makes the checks, one after the other, until one fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.maniskill import installed, make, vulkan
from stages.simulators.maniskill.options import Options, parse
from stages.simulators.maniskill.probe.order import FILES, START, VERSIONS, VULKAN, refused
from stages.simulators.probing import Finding


def main() -> None:
    """Make the checks that the first argument asks for."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    for finding in _checks(asked):
        finding.tell()
        if finding.verdict == "fail":
            return


def _checks(asked: dict[str, Any]) -> Iterator[Finding]:
    yield _versions()
    try:
        options = parse(asked["options"])
        drawn_by, device = vulkan.prepare(options.renderer)
    except SimulatorConfigError as error:
        yield refused(VULKAN, str(error))
        return
    # From here on SAPIEN is loaded.
    yield _vulkan(drawn_by, device)
    yield _files(options)
    from stages.simulators.maniskill.probe import worlds

    try:
        begun = worlds.begin(make, asked["num_envs"], asked["options"])
    except SimulatorConfigError as error:
        yield refused(START, str(error))
        return
    yield begun.finding
    yield from worlds.checks(begun.simulator, asked["steps"])
    begun.simulator.close()


def _versions() -> Finding:
    """Whether what is installed is what the adapter was written for."""
    try:
        found = installed.versions()
    except ModuleNotFoundError as error:
        return Finding(VERSIONS, "fail", f"{error} in {sys.executable}", installed.REMEDY)
    except SimulatorConfigError as error:
        return refused(VERSIONS, str(error))
    return Finding(VERSIONS, "pass", ", ".join(f"{name} {number}" for name, number in found.items()))


def _vulkan(drawn_by: str, device: vulkan.Device) -> Finding:
    """What draws; and whether SAPIEN finds it, which goes by CUDA's numbers to a GPU."""
    import sapien

    name = "cuda" if drawn_by == "gpu" else "cpu"
    try:
        sapien.render.RenderSystem(sapien.Device(name))
    except RuntimeError as error:
        found = f"Vulkan shows {device}, but SAPIEN: {error}"
        return Finding(VULKAN, "fail", found, "set simulator.options.renderer=cpu; CUDA and Vulkan show different GPUs")
    if drawn_by == "cpu" and (count := vulkan.cuda_devices()):
        found = f"{device}, though CUDA shows {count} GPU{'s' * (count > 1)}: pictures take a hundred times longer"
        return Finding(VULKAN, "warn", found, "install the graphics part of NVIDIA's driver")
    return Finding(VULKAN, "pass", f"{device} draws")


def _files(options: Options) -> Finding:
    """Whether the tasks lack files."""
    from stages.simulators.maniskill import environment

    try:
        environment.check(options.tasks, options.reward)
    except SimulatorConfigError as error:
        return refused(FILES, str(error))
    return Finding(FILES, "pass", f"all of {', '.join(options.tasks)}")


if __name__ == "__main__":
    main()

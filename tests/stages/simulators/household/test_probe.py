"""The checks of `baton doctor --simulator household`, on MuJoCo Warp in its CPU mode and without it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from stages.simulators.household.probe import inside
from stages.simulators.household.probe.order import DEVICE, IMAGES, KERNELS, MEMORY, ORDER, START, STEP, VERSIONS
from stages.simulators.probing import told
from tests.stages.simulators.household.warp.conftest import OPTIONS, compile_kernels

ROOT = Path(__file__).parents[4]
WARP = {**OPTIONS, "backend": "mujoco_warp", "renderer": "mujoco_warp"}
REMEDY = "pip install 'baton-vla[warp]', or set simulator.options.backend=mujoco"
ON_CPU = "set simulator.options.backend=mujoco, or put env on GPUs (cluster.component_placement)"
NO_DEVICE = "Warp finds no CUDA device (CUDA_VISIBLE_DEVICES=)"


def probe(options, num_envs=2, seconds=300, **variables):
    """The findings of the probe, by check, where there is no GPU."""
    asked = {"options": options, "num_envs": num_envs, "steps": 16, "seconds": seconds}
    ran = subprocess.run(
        [sys.executable, "-m", "stages.simulators.household.probe", json.dumps(asked)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    findings = [finding for finding in map(told, ran.stdout.splitlines()) if finding]
    assert [finding.name for finding in findings] == list(ORDER)
    return {finding.name: finding for finding in findings}


def another_version(folder, package, version):
    """What makes an interpreter find another version of a package first."""
    place = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Name: {package}\nVersion: {version}\n")
    return f"{ROOT}{os.pathsep}{folder}"


@pytest.mark.slow
def test_warp_on_the_cpu_is_examined_to_the_end_and_said_to_be_slow(tmp_path_factory):
    compile_kernels(tmp_path_factory.getbasetemp().parent)
    found = probe(WARP)
    assert {name: finding.verdict for name, finding in found.items()} == {
        **dict.fromkeys(ORDER, "pass"),
        DEVICE: "warn",
    }
    assert found[VERSIONS].found == "mujoco 4.0.0, warp-lang 1.19.0, mujoco-warp 4.0.0"
    assert found[DEVICE].found == f"{NO_DEVICE} and computes on the CPU, slower than MuJoCo would"
    assert found[DEVICE].remedy == ON_CPU
    assert re.fullmatch(r"[1-9]\d* modules are compiled for cpu in /.+", found[KERNELS].found)
    fitting = re.fullmatch(
        r"a world takes [\d.]+ MB, [\d.]+ GB of main memory are free: (\d+) worlds fit, 2 are asked for a process",
        found[MEMORY].found,
    )
    assert fitting is not None
    assert int(fitting[1]) > 2
    assert re.fullmatch(r"2 worlds within [\d.]+ s, 2\.0, mujoco_warp 4\.0\.0, .*, the CPU", found[START].found)
    assert re.fullmatch(r"all worlds move, \d+ steps a second, images not counted", found[STEP].found)
    assert re.fullmatch(r"32 pixels, drawn by mujoco_warp, [\d.]+ ms each", found[IMAGES].found)


def test_more_worlds_than_memory_are_refused_before_any_is_built():
    found = probe(WARP, num_envs=10**9)
    assert found[MEMORY].verdict == "fail"
    assert found[MEMORY].found.endswith(" worlds fit, 1000000000 are asked for a process")
    assert found[MEMORY].remedy == (
        "lower rollout.num_envs, or spread it over more processes and GPUs (rollout.num_workers)"
    )
    assert {found[name].verdict for name in (START, STEP, IMAGES)} == {"skip"}


def test_kernels_that_are_not_compiled_yet(tmp_path):
    cache = tmp_path / "kernels"
    found = probe(WARP, num_envs=10**9, WARP_CACHE_PATH=str(cache))
    (version,) = cache.iterdir()
    assert found[KERNELS].found == f"none is compiled for cpu in {version} yet: the first start takes minutes"
    assert found[KERNELS].verdict == "pass"


def test_kernels_that_cannot_be_kept(tmp_path):
    (tmp_path / "taken").touch()
    place = tmp_path / "taken" / "kernels"
    found = probe(WARP, WARP_CACHE_PATH=str(place))
    assert found[DEVICE].verdict == "fail"
    assert found[DEVICE].found == f"Warp cannot keep compiled kernels in {place}: Not a directory"
    assert found[DEVICE].remedy == "export WARP_CACHE_PATH=/a/folder/that/nodes/share in slurm.setup"
    assert {found[name].verdict for name in ORDER[2:]} == {"skip"}


def test_warp_of_another_version_fails_the_first_check(tmp_path):
    found = probe(WARP, PYTHONPATH=another_version(tmp_path, "warp-lang", "1.2.0"))
    assert found[VERSIONS].verdict == "fail"
    assert found[VERSIONS].found == f"warp-lang 1.2.0 is installed in {sys.executable}, 1.19.0 is needed"
    assert found[VERSIONS].remedy == REMEDY
    assert {found[name].verdict for name in ORDER[1:]} == {"skip"}


def test_the_versions_are_those_that_are_installed_with_baton():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {*project["dependencies"], *project["optional-dependencies"]["warp"]}
    assert {f"{name}=={version}" for name, version in inside.NEEDED.items()} <= pinned


def test_a_config_that_takes_no_warp_is_examined_without_it():
    found = probe({**OPTIONS, "backend": "mujoco"})
    assert found[VERSIONS].found == "mujoco 4.0.0, which moves the worlds"
    for name in (DEVICE, KERNELS, MEMORY):
        assert found[name].verdict == "skip"
        assert found[name].found == "simulator.options.backend=mujoco with 2 worlds a process takes no MuJoCo Warp"
    assert {found[name].verdict for name in (START, STEP, IMAGES)} == {"pass"}


def test_many_worlds_without_a_gpu_are_moved_by_mujoco():
    found = probe(dict(OPTIONS), num_envs=64)
    assert (found[DEVICE].verdict, found[DEVICE].found) == ("pass", f"{NO_DEVICE}: MuJoCo moves the worlds")
    assert {found[name].verdict for name in (KERNELS, MEMORY)} == {"skip"}
    assert found[START].found.startswith("64 worlds within ")
    assert found[START].found.endswith("2.0, mujoco 4.0.0")

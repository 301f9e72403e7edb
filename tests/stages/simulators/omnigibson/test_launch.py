"""What the process has to be like before, while and after Isaac Sim starts in it."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from stages.simulators.interface import Episode, SimulatorConfigError
from stages.simulators.omnigibson import generation, graphics, launch
from stages.simulators.omnigibson.options import parse

RADIO = Episode("turning_on_radio", 0)


def test_the_process_is_put_right_again(make, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["worker.py", "5", "6", "7"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    simulator = make("b_fork", 2)
    og = sys.modules["omnigibson"]
    assert sys.argv == ["worker.py", "5", "6", "7"]
    assert og.arguments == [
        "worker.py",
        "--/plugins/carb.tasking.plugin/threadCount=8",
        "--/plugins/omni.tbb.globalcontrol/maxThreadCount=4",
    ]
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert gc.isenabled()
    gm = importlib.import_module("omnigibson.macros").gm
    assert (gm.HEADLESS, gm.ENABLE_FLATCACHE, gm.RENDER_VIEWER_CAMERA) == (True, True, False)
    settings = importlib.import_module("omnigibson.lazy").carb.settings.get_settings()
    assert settings.floats == {"/rtx-transient/resourcemanager/texturestreaming/memoryBudget": 0.1}
    assert {one.base_footprint_link.mass for one in simulator.worlds.robots} == {250.0}
    apertures = {name.split(":")[1]: camera.horizontal_aperture for one in simulator.worlds.robots
                 for name, camera in one.sensors.items()}  # fmt: skip
    assert apertures == {"zed_link": 40.0, "left_realsense_link": 20.995, "right_realsense_link": 20.995}
    assert sys.modules["omnigibson"].sim.is_playing()


def test_what_can_be_left_alone_is(make):
    simulator = make("b", 1, texture_budget=None, carb_threads=None, tbb_threads=None, base_mass=None)
    og = sys.modules["omnigibson"]
    assert og.arguments == [sys.argv[0]]
    assert simulator.worlds.robots[0].base_footprint_link.mass == 91.0
    assert importlib.import_module("omnigibson.lazy").carb.settings.get_settings().floats == {}


def test_pictures_are_drawn_as_often_as_configured(make):
    simulator = make("b", 1, renders_per_observation=1)
    simulator.reset([0], [RADIO], [False])
    drawn = sys.modules["omnigibson"].sim.renders
    simulator.observe([0])
    assert sys.modules["omnigibson"].sim.renders == drawn + 1


def test_every_process_has_a_warm_folder_of_its_own(machine, tmp_path, monkeypatch):
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from stages.simulators.omnigibson import launch, options\n"
        "launch.prepare(options.parse({}))\n"
        "print(os.environ['OMNIGIBSON_APPDATA_PATH'], os.environ['NUMBA_CACHE_DIR'], flush=True); input()"
    )
    root = str(Path(__file__).parents[4])

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", code, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    processes = [start(), start()]
    told = [process.stdout.readline().split() for process in processes]
    assert len({path for paths in told for path in paths}) == 4
    assert all(path.startswith(str(tmp_path)) for paths in told for path in paths)
    for process in processes:
        process.communicate("\n")
    third = start()
    assert third.stdout.readline().split() in told  # nobody uses it any more, and its shaders are compiled
    third.communicate("\n")


@pytest.mark.parametrize(
    ("variables", "nodes", "wanted", "kept"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2"}, 8, 2, None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, 8, 0, None),
        (
            {"CUDA_VISIBLE_DEVICES": "3"},
            1,
            0,
            None,
        ),  # the cgroup shows one card: whatever Slurm calls it, it is the first
        ({"CUDA_VISIBLE_DEVICES": "GPU-1b"}, 8, 1, None),
        ({"CUDA_VISIBLE_DEVICES": "2", "OMNIGIBSON_GPU_ID": "5"}, 8, 5, "2"),
        ({}, 8, None, None),
    ],
)
def test_cuda_and_vulkan_mean_the_same_card(variables, nodes, wanted, kept, monkeypatch):
    monkeypatch.setattr(graphics, "_query", lambda fields: "0, GPU-0a77\n1, GPU-1b88\n")
    environment = dict(variables)
    assert graphics.choose(environment, nodes) == wanted
    assert environment.get("CUDA_VISIBLE_DEVICES") == kept
    assert environment.get("OMNIGIBSON_GPU_ID") == (None if wanted is None else str(wanted))


def test_kit_and_torch_use_the_card_that_baton_gave(make, machine):
    used = []
    machine.setattr("torch.cuda.set_device", used.append)
    machine.setenv("CUDA_VISIBLE_DEVICES", "2")
    make("b", 1)
    assert (sys.modules["omnigibson"].app.gpu, used) == ("2", [2])
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_cards_that_cannot_draw_are_named(monkeypatch, capsys):
    with pytest.raises(SimulatorConfigError) as caught:
        graphics.choose({"CUDA_VISIBLE_DEVICES": "MIG-0"}, 1)
    assert str(caught.value) == (
        "omnigibson: CUDA_VISIBLE_DEVICES=MIG-0 is a slice of a GPU, on which Isaac Sim cannot render; give the "
        "simulators whole GPUs in cluster.component_placement.env"
    )
    with pytest.raises(SimulatorConfigError) as caught:
        graphics.choose({"CUDA_VISIBLE_DEVICES": "GPU-9"}, 2)
    assert str(caught.value) == (
        "omnigibson: CUDA_VISIBLE_DEVICES=GPU-9 is no GPU that nvidia-smi lists on this machine"
    )
    monkeypatch.setattr(graphics, "_query", lambda fields: "NVIDIA L40S\nNVIDIA H100 80GB HBM3\n")
    assert graphics.describe(0) == "RTX on NVIDIA L40S"
    assert capsys.readouterr().out == ""
    assert graphics.describe(1) == "RTX on NVIDIA H100 80GB HBM3, which has no RT cores: expect artifacts"
    assert capsys.readouterr().out.startswith("omnigibson: WARNING: NVIDIA H100 80GB HBM3 has no RT cores: ")


@pytest.mark.parametrize(("version", "letter"), [("3.7.1", "B"), ("3.7.2", "B"), ("3.8.0", "C"), ("3.9.3-post2", "C")])
def test_generations(version, letter):
    assert generation.of_version(version).letter == letter


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.1.1", "has no R1 Pro, no controller that holds its trunk and no challenge tasks (it is what PyPI has); "
                  "install 3.7.2, `baton env create omnigibson` does"),
        ("3.6.0", "has no R1 Pro, no controller that holds its trunk and no challenge tasks (it is what PyPI has); "
                  "install 3.7.2, `baton env create omnigibson` does"),
        ("4.0.0", "is newer than Baton knows; it uses 3.7, 3.8 and 3.9"),
    ],
)  # fmt: skip
def test_other_versions_are_refused(version, message):
    with pytest.raises(SimulatorConfigError) as caught:
        generation.of_version(version)
    assert str(caught.value) == f"omnigibson: version {version} {message}"


def test_generation_a_is_found_out_without_importing_it(install):
    install("a")
    with pytest.raises(SimulatorConfigError, match="^omnigibson: version 1.1.1 has no R1 Pro"):
        generation.find()
    assert "omnigibson" not in sys.modules


def test_python_and_isaac_sim_have_to_fit(install, monkeypatch, tmp_path):
    install("b")
    monkeypatch.setenv("BATON_OMNIGIBSON_ANY_PYTHON", "")
    here = ".".join(map(str, sys.version_info[:2]))
    with pytest.raises(SimulatorConfigError) as caught:
        generation.find()
    assert str(caught.value) == (
        f"omnigibson: simulator.python is Python {here}, but OmniGibson 3.7.2 and its Isaac Sim are made for 3.10; "
        "name the interpreter they are installed in"
    )
    monkeypatch.setenv("BATON_OMNIGIBSON_ANY_PYTHON", "1")
    (tmp_path / "VERSION").write_text("5.1.0-rc.19\n")
    monkeypatch.setenv("ISAAC_PATH", str(tmp_path))
    with pytest.raises(SimulatorConfigError) as caught:
        generation.find()
    assert str(caught.value) == (
        "omnigibson: Isaac Sim here is 5.1.0-rc.19, but OmniGibson 3.7.2 needs 4.5; install that, or point ISAAC_PATH "
        "to it"
    )
    (tmp_path / "VERSION").write_text("4.5.0-rc.36\n")
    assert generation.find() is generation.B


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("OMNIGIBSON_DATA_PATH", "",
         "OMNIGIBSON_DATA_PATH is not set; put `export OMNIGIBSON_DATA_PATH=/data/behavior` or the like into "
         "slurm.setup; `baton env create omnigibson` downloads the data, docs/behavior.md says how by hand"),
        ("OMNIGIBSON_DATA_PATH", "/nowhere",
         "OMNIGIBSON_DATA_PATH=/nowhere is no folder on this machine; `baton env create omnigibson` downloads the "
         "data, docs/behavior.md says how by hand"),
        ("EXP_PATH", "/proc/1",
         "EXP_PATH=/proc/1 is read-only, and OmniGibson copies its .kit file there at every start; bind a writable "
         "copy of Isaac Sim's apps folder over it (apptainer exec --bind)"),
    ],
)  # fmt: skip
def test_what_the_start_would_fail_on_is_told_before_it(machine, variable, value, message):
    machine.setenv(variable, value)
    machine.setattr(os, "access", lambda path, mode: path != "/proc/1")
    with pytest.raises(SimulatorConfigError) as caught:
        launch.prepare(parse({}))
    assert str(caught.value) == f"omnigibson: {message}"


def test_it_starts_in_the_main_thread_only(machine):
    told = []

    def start():
        try:
            launch.prepare(parse({}))
        except SimulatorConfigError as error:
            told.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert told == ["omnigibson: Isaac Sim can only be started in the main thread of a process"]


def test_black_frames_are_told_apart_from_dark_ones(make, monkeypatch):
    from stages.simulators.omnigibson.observations import BlackFrames, refuse_black

    told = (
        "the head camera of world 0 in turning_on_radio shows nothing but the colour [0, 0, 0]: rendering has failed; "
        "see this worker's log for Vulkan or HydraEngine errors, and docs/behavior.md for what the image must hold"
    )
    seeing = make("b_fork", 1)
    monkeypatch.setenv("FAKE_OMNIGIBSON_FAULT", "black_frames")
    seeing.reset([0], [Episode("turning_on_radio", 0)], [False])
    with pytest.raises(BlackFrames) as caught:  # the worker is given up, and another one plays the episode
        seeing.observe([0])
    assert str(caught.value) == told
    with pytest.raises(SimulatorConfigError) as refused:
        make("b_fork", 1)
    assert str(refused.value) == f"omnigibson: {told}"
    planes = np.zeros((3, 3, 32, 32), np.uint8)
    planes[0, 1, 5, 5] = 9
    refuse_black(planes, "a room at night")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing_camera", "no camera ...:zed_link:Camera:0 among the robot's sensors "
         "(robot_r1:left_realsense_link:Camera:0, robot_r1:right_realsense_link:Camera:0, proprio): this build names "
         "them otherwise, or lost its cameras; run `baton doctor --simulator omnigibson CONFIG`"),
        ("float_images", "camera robot_r1:zed_link:Camera:0 gives float32 [32, 32, 4], expected uint8 [32, 32, 4]"),
        ("proprio_size", "the robot's proprioception has 19 numbers, expected 18 for eef_left_pos, eef_left_quat, "
         "gripper_left_qpos, eef_right_pos, eef_right_quat, gripper_right_qpos: this build of OmniGibson has other "
         "sizes; run `baton doctor`"),
    ],
)  # fmt: skip
def test_another_interface_is_refused_at_the_start(make, monkeypatch, fault, message):
    monkeypatch.setenv("FAKE_OMNIGIBSON_FAULT", fault)
    with pytest.raises(SimulatorConfigError) as caught:
        make("c", 1)
    assert str(caught.value) == f"omnigibson: {message}"


def test_outcomes_have_to_be_told(make, monkeypatch):
    simulator = make("b", 1)
    simulator.reset([0], [RADIO], [False])
    monkeypatch.setenv("FAKE_OMNIGIBSON_FAULT", "no_success")
    with pytest.raises(SimulatorConfigError) as caught:
        simulator.step_chunk([0], np.zeros((1, 1, 14), np.float32))
    assert str(caught.value) == (
        "omnigibson: info of a step has no done/success (it has reward, episode_length, obs_info): this build tells "
        "outcomes otherwise; run `baton doctor --simulator omnigibson CONFIG`"
    )

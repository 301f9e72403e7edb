"""`baton doctor --simulator NAME`: the probe of a simulator is run where its workers would run, and its words shown."""

import json
import os
import stat
import sys

import pytest

from pipeline import cli, environments
from pipeline.artifacts import IMPORT_NOTE, imported_unit
from pipeline.doctor import services, simulator, space
from pipeline.errors import UserError
from tests.stages.simulators.omnigibson.conftest import data, machine, worker  # noqa: F401

RECIPE = """\
simulator: {name: omnigibson, tasks: [turning_on_radio], image_size: 32}
policy: {action_dim: 14, checkpoint: trained}
sft: {steps: 0}
rollout: {num_envs: 2, num_workers: 2}
slurm: {launcher: local}
"""
CARD = '#!/bin/sh\ncase "$*" in\n*compute-apps*) ;;\n*memory.total*) echo "NVIDIA L40S, 570.86, 46068 MiB";;\nesac\n'
NAMES = ["versions", "start", "robot", "observations", "pictures", "motion", "step limit", "instances", "speed", "end"]


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """`commands(name, text)`: a program that is found first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(name, text):
        (folder / name).write_text(text)
        (folder / name).chmod((folder / name).stat().st_mode | stat.S_IEXEC)

    return write


@pytest.fixture
def stand_in(tmp_path, commands):
    """`stand_in(text)`: an interpreter whose probe is a script of the test's."""

    def write(text):
        commands("stand-in", f"#!/bin/sh\n{text}\n")
        return f"simulator.python={tmp_path / 'bin' / 'stand-in'}"

    return write


@pytest.fixture
def doctor(tmp_path, monkeypatch, capsys):
    """`doctor(*arguments)`: exit code, what it printed, and what it said beside."""

    def doctor(*arguments):
        (tmp_path / "behavior.yaml").write_text(RECIPE)
        words = ["baton", "doctor", str(tmp_path / "behavior.yaml"), "--simulator", "omnigibson", *arguments]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return ended.value.code or 0, told.out, told.err

    return doctor


@pytest.mark.slow
def test_ten_checks_of_a_sound_simulator(doctor, worker, commands, monkeypatch):  # noqa: F811
    commands("nvidia-smi", CARD)
    worker("b_fork")
    monkeypatch.setattr(simulator, "STEPS", 20)
    code, out, err = doctor("--json")
    checks = json.loads(out)["checks"]
    assert [check["name"] for check in checks] == [f"simulator: {name}" for name in NAMES]
    # The goal of the fakes' task is not that of BDDL's, which the tests' own interpreter has.
    assert {check["verdict"] for check in checks if check["name"] != "simulator: instances"} == {"pass"}
    assert code == 2
    assert err == "starting omnigibson here: this takes minutes\n"


FINDINGS = """\
echo "Isaac Sim starts"
echo 'baton-check: {"name": "versions", "verdict": "pass", "found": "3.7", "remedy": ""}'
echo 'baton-check: {"name": "start", "verdict": "fail", "found": "no room", "remedy": "make some"}'"""


def test_findings_are_shown_and_decide_the_exit_code(doctor, stand_in):
    code, out, _ = doctor(stand_in(FINDINGS))
    assert code == 2
    assert out.splitlines() == [
        f"pass  {'simulator: versions':<24}  3.7  ",
        f"fail  {'simulator: start':<24}  no room  -> make some",
        "1 failed, 1 passed: this will not run as it is",
    ]


def test_a_probe_that_says_nothing(doctor, stand_in, tmp_path):
    code, out, _ = doctor(stand_in("echo No module named stages >&2; exit 1"))
    assert code == 2
    assert "its probe did not answer: No module named stages  -> see docs/behavior.md" in out
    code, out, _ = doctor(f"simulator.python={tmp_path / 'gone'}")
    assert code == 2
    assert f"{tmp_path / 'gone'} does not run: No such file or directory  -> set simulator.python to an" in out


def test_a_job_is_asked_for_where_slurm_starts_stages(make, monkeypatch, stand_in, commands, tmp_path):
    commands("sbatch", "#!/bin/sh\n")
    commands(
        "srun",
        f'#!/bin/bash\nprintf "%s\\n" "$@" > {tmp_path}/asked\nwhile [ "$1" != bash ]; do shift; done\nexec "$@"\n',
    )
    python = stand_in(FINDINGS)
    setup = "slurm.setup=[export FROM_SETUP=1]"
    overrides = [
        "simulator.name=omnigibson",
        "demonstrate.imported=shards",
        python,
        "slurm.launcher=slurm",
        setup,
    ]
    base = ["simulator.tasks=[turning_on_radio]", "policy.action_dim=14", "simulator.action_frequency=30"]
    rates = ["simulator.physics_frequency=120", "simulator.rendering_frequency=30"]
    config = make(*base, *rates, *overrides)
    checks = list(simulator.examine(config, "omnigibson", 7.0, lambda line: None))
    assert [check.verdict for check in checks] == ["pass", "fail"]
    asked = (tmp_path / "asked").read_text().splitlines()
    assert "--partition=sim" in asked
    assert "--gres=gpu:rtx:1" in asked
    assert "--immediate=7" in asked
    assert "export FROM_SETUP=1" in asked


def test_a_simulator_without_a_guide_is_built_again(make, stand_in):
    stand_in("exit 1")
    chosen = ("simulator={name: maniskill, python: stand-in}", "slurm.launcher=local")
    (check,) = simulator.examine(make(*chosen, gpus=False), "maniskill", 0.0, print)
    assert check.found == "its probe did not answer: exit code 1"
    assert check.remedy == "baton env create maniskill"


def test_simulators_without_a_probe_and_configs_of_others(make, doctor):
    with pytest.raises(UserError) as refused:
        list(simulator.examine(make(gpus=False), "fakesim", 0.0, print))
    assert str(refused.value) == (
        "--simulator fakesim: it has no probe of its own; simulators with one: household, libero, maniskill, omnigibson"
    )
    with pytest.raises(UserError) as refused:
        list(simulator.examine(make(gpus=False), "omnigibson", 0.0, print))
    assert str(refused.value) == (
        "--simulator omnigibson: this config has simulator.name=household; give one that has omnigibson"
    )


def test_the_usual_doctor_looks_for_imported_demonstrations_and_the_environment(make, tmp_path, monkeypatch):
    monkeypatch.setenv("BATON_ENVS", str(tmp_path / "envs"))
    shards = tmp_path / "shards"
    config = make(f"demonstrate.imported={shards}", gpus=False)
    (check,) = services.demonstrations(config)
    assert (check.verdict, check.found, check.remedy) == (
        "fail",
        f"demonstrate.imported={shards} holds no imported demonstrations",
        "`baton import` with this config fills it",
    )
    for shard in range(2):
        (shards / imported_unit(shard).marker).mkdir(parents=True)
        (shards / imported_unit(shard).marker / "manifest.json").touch()
    (shards / IMPORT_NOTE).write_text('{"shards": 2}')
    assert [check.found for check in services.demonstrations(config)] == [f"2 imported shards in {shards}"]
    assert space.needs(config)[0].most == 0
    assert list(services.demonstrations(make(gpus=False))) == []

    assert list(services.interpreter(make(gpus=False), on_nodes=False)) == []
    monkeypatch.setattr(environments, "names", lambda: ["household"])
    (check,) = services.interpreter(make(gpus=False), on_nodes=False)
    assert (check.verdict, check.found, check.remedy) == (
        "fail",
        f"no environment of household is built in {tmp_path / 'envs'}, and simulator.python is not set",
        "baton env create household, or set simulator.python",
    )

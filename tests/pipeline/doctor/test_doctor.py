"""The command as a whole: what it prints, its exit code, and that it leaves nothing behind."""

import io
import json
import re

import pytest
from rich.console import Console

from pipeline.doctor import doctor_command, examine, report
from pipeline.doctor.check import Check, failed, passed


def test_a_config_that_will_run(cluster, recipe, tmp_path, capsys):
    doctor_command(recipe, [f"runs_dir={tmp_path / 'runs'}"], as_json=True)
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert record["verdict"] == "pass"
    assert "waiting up to 60 s for a node of sim, train" in printed.err
    verdicts = {check["name"]: check["verdict"] for check in record["checks"]}
    assert {name for name, verdict in verdicts.items() if verdict != "pass"} == {"GPUs: sim", "GPUs: train"}
    subjects = {name.partition(":")[0] for name in verdicts}
    assert subjects == {
        *("config", "run directory", "Slurm", "accounting", "partition", "time", "nodes", "array", "queue", "sbatch"),
        *("files", "python", "GPUs", "simulator", "room", "clock", "disk", "MLflow"),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml"]


def test_a_config_that_will_not(cluster, recipe, capsys):
    with pytest.raises(SystemExit) as ended:
        doctor_command(recipe, ["slurm.sft.partition=nope", "slurm.account=nobody"], as_json=False, wait=0)
    assert ended.value.code == 2
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("fail  partition: nope ") and "-> name one of them" in line for line in lines)
    assert sum(line.startswith("fail  sbatch: ") for line in lines) == 2
    assert lines[-1].endswith("this will not run as it is")


def test_what_slurm_refuses_is_not_probed(cluster, make):
    checks = examine(make("slurm.account=nobody"), say=pytest.fail)
    assert [check.remedy for check in checks if check.verdict == "skip"] == ["first mend what Slurm refuses"]


def test_a_config_with_mistakes(recipe, capsys):
    with pytest.raises(SystemExit) as ended:
        doctor_command(recipe, ["sft.step=1", "sft.batch=x"], as_json=False)
    assert ended.value.code == 2
    out = capsys.readouterr().out
    assert out.count("fail  config") == 2
    assert "did you mean sft.steps?" in out


def test_a_machine_without_slurm(make, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = {check.name: check for check in examine(make(gpus=False), wait=0)}
    assert checks["config"].found.endswith("units for this machine")
    assert checks["machine"].verdict == "pass"
    checks = {check.name: check for check in examine(make("sft.threads=4096", gpus=False), wait=0)}
    assert checks["machine"].verdict == "fail"
    (check,) = examine(make("slurm.launcher=slurm", gpus=False))
    assert check.verdict == "fail"


def test_slurm_that_does_not_answer(cluster, make, monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "scontrol"
    script.write_text("#!/bin/sh\necho 'scontrol: error: Unable to contact slurm controller' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    checks = {check.name: check for check in examine(make(gpus=False))}
    assert checks["Slurm"].verdict == "fail"
    assert "Unable to contact" in checks["Slurm"].found


def test_the_same_said_of_several_is_said_once():
    checks = [passed("time: sft", "short"), failed("disk", "full"), passed("time: update", "short")]
    assert report.merged(checks) == [Check("time: sft, update", "pass", "short"), failed("disk", "full")]


def test_the_table_fits_80_columns():
    checks = [failed(f"nodes: {'stage ' * 9}", "word " * 60, "remedy " * 30), passed("config", "/a/b" * 40)]
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    report.show(checks, console)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
    assert max(map(len, plain.splitlines())) <= 80
    piped = Console(file=io.StringIO())
    report.show(checks, piped)
    assert len(piped.file.getvalue().splitlines()) == 3

"""The `baton` command: what each subcommand prints, and how mistakes and Ctrl-C end."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import cli, orchestrator
from pipeline import rerun as rerun_module
from pipeline.artifacts import Unit
from pipeline.commands import track
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.rundir import create_or_resume
from pipeline.validation import fields

ROOT = Path(cli.__file__).parents[1]


@pytest.fixture
def baton(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty directory: `code, out, err = baton("run", ...)`."""
    monkeypatch.chdir(tmp_path)

    def baton(*arguments):
        monkeypatch.setattr(sys, "argv", ["baton", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return baton


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    text = "epochs: 1\nsft: {threads: 1}\nupdate: {threads: 1}\nevaluate: {episodes: 2}\nslurm: {launcher: local}\n"
    path.write_text(text)
    return path


def make_run(folder: Path, name: str, **values: object) -> Path:
    values = {"name": name, "runs_dir": str(folder / "runs"), "epochs": 1, "slurm": {"launcher": "local"}, **values}
    return create_or_resume(Config.model_validate(values))


def test_help_answers_at_once_and_without_torch():
    code = "import sys; sys.argv = ['baton', '--help']\nfrom pipeline import cli\n"
    code += "try: cli.main()\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'mlflow', 'pydantic', 'rich.live') if name in sys.modules])"
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds = time.monotonic() - begin
    assert done.stdout.splitlines()[-1] == "[]"
    listed = [line.split()[0] for line in done.stdout.partition("Commands:\n")[2].splitlines()[:-1]]
    assert listed == list(cli.COMMANDS)
    assert listed[:4] == ["run", "submit", "status", "logs"]
    assert "..." not in done.stdout.partition("Commands:\n")[2]
    assert seconds < 2


def test_as_a_module_it_is_the_same_command(tmp_path):
    """As the job that looks after a run starts it."""
    command = [sys.executable, "-m", "pipeline.cli", "config"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("baton: config needs a CONFIG")


def test_no_command_imports_torch():
    code = "import sys\nimport pipeline.cli, pipeline.compose, pipeline.explain, pipeline.report.live\n"
    code += "import pipeline.report.results, pipeline.orchestrator, pipeline.cancel, pipeline.rerun, pipeline.chain\n"
    code += "import pipeline.report.status, pipeline.report.standing, pipeline.logs, pipeline.retry, pipeline.parent\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_mistake_is_a_line_on_stderr_and_exit_code_2(baton, recipe):
    code, out, err = baton("run", str(recipe), "epoch=3", "sft.steps=-1")
    assert (code, out) == (2, "")
    assert [line.partition(": override")[0] for line in err.splitlines()] == ["baton", "baton"]


def test_dry_run_shows_the_plan_and_writes_nothing(baton, recipe, tmp_path):
    code, out, err = baton("run", str(recipe), "--dry-run", "rollout.shards=2")
    assert (code, err) == (0, "")
    row = next(line.split() for line in out.splitlines() if line.split()[:2] == ["1", "rollout"])
    assert row[2] == "2"
    assert "sft 0" in out
    assert "7 units into runs/tiny" in out
    assert list(tmp_path.iterdir()) == [recipe]


def test_dry_run_refuses_what_the_machine_cannot_hold(baton, recipe):
    code, out, err = baton("run", str(recipe), "--dry-run", "update.threads=100000")
    assert (code, out) == (2, "")
    assert "update.threads=100000" in err


def test_dry_run_for_a_cluster_writes_the_scripts(baton, recipe, tmp_path):
    code, out, _ = baton("run", str(recipe), "--dry-run", "slurm.launcher=slurm")
    assert code == 0
    assert f"sbatch {tmp_path}/runs/tiny.dry-run/e0001-rollout.sbatch" in out
    assert "nothing was submitted" in out
    assert "#SBATCH" in (tmp_path / "runs/tiny.dry-run/e0001-rollout.sbatch").read_text()


def test_submit_needs_slurm(baton, recipe):
    code, _, err = baton("submit", str(recipe))
    assert code == 2
    assert "submit needs Slurm" in err


def test_run_drives_and_reports(baton, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(orchestrator, "drive", lambda run, show, conclude: conclude(run))
    code, out, _ = baton("run", str(recipe))
    assert code == 0
    result = (tmp_path / "runs" / "tiny" / "result.json").read_text()
    assert json.loads(result)["run"] == "tiny"
    assert "baton ui runs/tiny" in out
    assert baton("report", "tiny")[1].startswith(out)
    assert baton("report", "tiny", "--json")[1] == result


def test_ctrl_c_detaches_and_says_how_to_go_on(baton, recipe, monkeypatch):
    def interrupted(run, show, conclude):
        raise KeyboardInterrupt

    monkeypatch.setattr(orchestrator, "drive", interrupted)
    code, out, err = baton("run", str(recipe), "epochs=2", "video_cfg.video_base_dir=a b")
    assert (code, out) == (130, "")
    assert f"baton run {recipe} epochs=2 'video_cfg.video_base_dir=a b'" in err
    assert "baton cancel runs/tiny" in err
    assert "go on" in err


def test_a_quoted_log_keeps_its_indentation(baton, recipe, monkeypatch):
    def failing(run, show, conclude):
        raise UserError("it failed\n  Traceback\nfull log: there")

    monkeypatch.setattr(orchestrator, "drive", failing)
    code, _, err = baton("run", str(recipe))
    assert code == 2
    assert err.splitlines() == ["baton: it failed", "  Traceback", "baton: full log: there"]


def test_status_by_name_and_by_path(baton, tmp_path):
    make_run(tmp_path, "first")
    for run in ("first", "runs/first", str(tmp_path / "runs" / "first")):
        code, out, _ = baton("status", run)
        assert code == 0
        assert "epochs 0 to 1: waiting" in out
        heading = " ".join(out.split())  # of a long path on a line of its own
        assert heading.startswith(f"{Path(run) if '/' in run else 'runs/first'}: nobody drives it")
    code, out, _ = baton("status", "first", "--json")
    assert {unit["status"] for unit in json.loads(out)["units"]} == {"waiting"}


def test_an_unknown_run_names_those_there_are(baton, tmp_path):
    assert "holds none; start one with baton run" in baton("status", "first")[2]
    make_run(tmp_path, "first")
    make_run(tmp_path, "second")
    code, _, err = baton("status", "frist")
    assert code == 2
    assert "runs in runs: first, second" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["polish"], "'polish' is not a stage; stages are demonstrate, sft"),
        (["update"], "rerun update needs --epoch"),
        (["update", "--epoch", "1", "--shard", "0"], "update has no shards"),
        (["update", "--epoch", "1"], "not published yet"),
    ],
)
def test_rerun_refuses_what_is_not_there(baton, tmp_path, arguments, complaint):
    make_run(tmp_path, "first")
    code, _, err = baton("rerun", "first", *arguments)
    assert code == 2
    assert complaint in err


def test_rerun_names_what_will_be_done_again(baton, tmp_path, monkeypatch):
    directory = make_run(tmp_path, "first")
    asked = []

    def supersede(*arguments):
        asked.append(arguments)
        return (Unit(1, "rollout", 0), Unit(1, "update"))

    monkeypatch.setattr(rerun_module, "rerun", supersede)
    code, out, _ = baton("rerun", "first", "rollout", "--epoch", "1", "--shard", "0")
    assert code == 0
    assert asked == [(directory.relative_to(tmp_path), "rollout", 1, 0)]
    assert "e0001-rollout-s0000, e0001-update" in out


def test_config_prints_what_can_be_composed_again(baton, recipe, tmp_path):
    code, out, _ = baton("config", str(recipe), "epochs=7")
    assert code == 0
    (tmp_path / "again.yaml").write_text(out)
    assert baton("config", str(tmp_path / "again.yaml"))[1] == out
    assert "\nepochs: 7\n" in out


def test_config_explains_every_field(baton):
    code, out, _ = baton("config", "--explain")
    assert code == 0
    paths = {line.split()[0] for line in out.splitlines() if line.strip()}
    leaves = {".".join(keys) for keys, field in fields() if not hasattr(field.annotation, "model_fields")}
    assert leaves - paths == set()
    assert "openvla_oft" in out
    assert "int >= 1" in out


def test_config_without_a_file_is_refused(baton):
    code, _, err = baton("config")
    assert code == 2
    assert "--explain" in err


def test_ui_opens_the_store_beside_the_runs(baton, tmp_path, monkeypatch):
    make_run(tmp_path, "first")
    assert "does not exist yet" in baton("ui", "first")[2]
    (tmp_path / "runs" / "mlflow.db").touch()
    started = []
    monkeypatch.setattr(track.os, "execv", lambda program, command: started.append(command))
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "as it was")
    monkeypatch.delenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION")
    code, out, _ = baton("ui", "--port", "6001")
    assert code == 0
    store = f"sqlite:///{tmp_path}/runs/mlflow.db"
    open_here = "open http://127.0.0.1:6001/#/experiments?workflowType=machine_learning"
    assert out == f"MLflow shows {store}; Ctrl-C ends it\n{open_here}\n"
    assert started[0][1:5] == ["-m", "mlflow", "ui", "--backend-store-uri"]
    assert started[0][5] == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert started[0][6:] == ["--port", "6001", "--workers", "1"]
    assert os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_ui_of_a_run_on_a_server_gives_its_address(baton, tmp_path):
    make_run(tmp_path, "first", trainer={"logger": {"mlflow": {"uri": "http://host:5000"}}})
    address = "http://host:5000/#/experiments?workflowType=machine_learning"
    assert baton("ui", "first")[1] == f"this run is tracked by a server that runs already: {address}\n"


def test_cancel_of_a_run_at_rest_says_so(baton, tmp_path, recipe, monkeypatch):
    monkeypatch.setattr(orchestrator, "drive", lambda run, show, conclude: conclude(run))
    baton("run", str(recipe))
    code, out, _ = baton("cancel", "tiny")
    assert (code, out.strip()) == (0, "nothing of this run was running")

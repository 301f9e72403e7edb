"""`--json`: one document on stdout and nothing else there, which agrees with what the command is about."""

import json
import math
import sys
from pathlib import Path

import pytest

from pipeline import cli, jobs, ledger, orchestrator, rundir
from pipeline import logs as printing
from pipeline.artifacts import Unit, attempt_directory
from pipeline.compose import compose
from pipeline.config import Config
from pipeline.plan import make_plan
from pipeline.report import records
from pipeline.tasks import catalogue
from pipeline.validation import fields

ROOT = Path(cli.__file__).parents[1]


@pytest.fixture
def baton(tmp_path, monkeypatch, capsys):
    """The document that a command prints: `baton("status", "made")`; with `code=2` its complaint."""
    monkeypatch.chdir(tmp_path)

    def baton(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["baton", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert (ended.value.code or 0) == code, printed.err
        if code:
            assert printed.out == ""
            return printed.err
        assert printed.out.count("\n") == 1
        return json.loads(printed.out, parse_constant=pytest.fail)

    return baton


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("epochs: 2\nsft: {threads: 1}\nupdate: {threads: 1}\nslurm: {launcher: local}\n")
    return path


@pytest.fixture
def begun(run, put, evaluate):
    """The warm start and the first shard are published, the second has failed three times."""
    put("demonstrate", 0, 0)
    put("sft", 0, metrics={"actor/loss": 0.25})
    evaluate(0, {"open": "+---", "close": "++--"})
    put("rollout", 1, 0, metrics={"rollout/success_rate": 0.5, "rollout/return_std": math.nan})
    unit = Unit(1, "rollout", 1)
    for attempt in (1, 2, 3):
        common = {"unit": str(unit), "attempt": attempt, "key": f"k:{unit}:{attempt}", "job": f"7{attempt}"}
        jobs.append(run, "submit", host="login", **{**common, "job": ""})
        jobs.append(run, "submitted", host="slurm", **common)
        jobs.append(run, "ended", outcome="failed", error="no [memory]", seconds=9.0, **common)
        attempt_directory(run, unit, attempt).mkdir(parents=True)
        (attempt_directory(run, unit, attempt) / "log.txt").write_text("said\n")
    return run


def test_status_agrees_with_the_run_directory(begun, baton):
    told, snapshot = baton("status", begun), ledger.read(begun)
    assert [(u["unit"], u["attempts"], u["error"]) for u in told["units"]] == [
        (str(s.unit), s.attempts, s.error) for s in snapshot.units
    ]
    assert {u["unit"]: u["status"] for u in told["units"]} == {str(s.unit): s.status for s in snapshot.units}
    assert (told["name"], told["epoch"], told["epochs"], told["driver"]) == ("made", 1, 2, None)
    assert told["curves"] == {"env/success_rate": [0.375, None, None], "rollout/success_rate": [None, 0.5, None]}
    failed = next(unit for unit in told["units"] if unit["status"] == "failed")
    assert Path(failed["log"]).read_text() == "said\n"
    published = next(unit for unit in told["units"] if unit["unit"] == "e0001-rollout-s0000")
    assert published["metrics"] == {"rollout/success_rate": 0.5, "rollout/return_std": None}


def test_status_of_a_directory_lists_its_runs(begun, baton, tmp_path):
    values = {"name": "new", "runs_dir": str(tmp_path / "runs"), "epochs": 7}
    rundir.create_or_resume(Config.model_validate(values))
    (tmp_path / "runs" / "old").mkdir()
    (tmp_path / "runs" / "old" / "run.json").write_text("{}")
    (tmp_path / "runs" / "old" / "config.yaml").write_text("epochs: many\n")
    told = baton("status")
    assert (told["runs_dir"], told) == ("runs", {**baton("status", "runs"), "runs_dir": "runs"})
    shown = [(run["name"], run["state"], run["epoch"], run["epochs"], run["success"]) for run in told["runs"]]
    assert shown == [
        ("made", "failed", 1, 2, 0.375),
        ("new", "stopped", 0, 7, None),
        ("old", "unreadable", None, None, None),
    ]
    assert told["runs"][2]["trouble"].startswith("runs/old/config.yaml: name = None: Field required")
    assert told["runs"][2]["trouble"].count("runs/old") == 1  # the table prints it as it is
    assert baton("status", "elsewhere", code=2).startswith("baton: 'elsewhere' is neither a run directory nor")


def test_no_runs_are_an_empty_list(baton):
    assert baton("status") == {"runs_dir": "runs", "runs": []}


def test_logs_are_named_and_not_printed(begun, baton):
    told = baton("logs", begun, "rollout", "--attempt", 2)
    unit = Unit(1, "rollout", 1)
    path = attempt_directory(begun, unit, 2) / "log.txt"
    assert told["logs"] == [{"source": str(unit), "attempt": 2, "path": str(path), "bytes": 5}]
    assert printing.find_logs(begun)[0].attempt == 3  # that of the unit that failed
    complaint = "baton: --json names the files of the logs: leave --follow and --lines out\n"
    assert baton("logs", begun, "--follow", code=2) == complaint
    assert baton("logs", begun, "--lines", 3, code=2) == complaint
    assert "has no log yet" in baton("logs", begun, "orchestrator", code=2)


def test_config_and_its_fields(baton, recipe):
    assert Config.model_validate(baton("config", recipe, "epochs=7")) == compose(recipe, ["epochs=7"])
    told = {field["field"]: field for field in baton("config", "--explain")["fields"]}
    assert told.keys() == {".".join(k) for k, field in fields() if not hasattr(field.annotation, "model_fields")}
    assert (told["epochs"]["type"], told["epochs"]["default"]) == ("int >= 0", "10")


def test_tasks(baton):
    told = baton("tasks", "household")["tasks"]
    assert told == [{"simulator": "household", **task.model_dump()} for task in catalogue("household")]


def test_a_dry_run_is_its_plan(baton, recipe):
    told, config = baton("run", recipe, "--dry-run"), compose(recipe)
    assert [(u["unit"], u["needs"], u["share"]["cores"]) for u in told["units"]] == [
        (str(plan.unit), list(map(str, plan.needs)), plan.share.cores) for plan in make_plan(config)
    ]
    assert (told["run"], told["epochs"], told["slurm"]) == ("runs/tiny", 2, None)
    assert len(told["memory"]) >= 3
    scripts = baton("run", recipe, "--dry-run", "slurm.launcher=slurm")["slurm"]
    assert all(Path(line.removeprefix("sbatch ")).is_file() for line in scripts["sbatch"])
    assert scripts["gpu_hours"] == 0
    assert scripts["core_hours"] > 0
    assert baton("run", recipe, code=2) == (
        "baton: run --json needs --dry-run; what a run came to: baton report RUN --json\n"
    )


def test_what_is_mended(begun, baton):
    assert baton("retry", begun) == {
        "run": str(begun),
        "units": [{"unit": "e0001-rollout-s0001", "mem": None, "minutes": None}],
    }
    every = [str(plan.unit) for plan in ledger.run_plan(begun, rundir.load(begun))]
    assert baton("rerun", begun, "sft") == {"run": str(begun), "units": every[1:]}
    assert not (begun / Unit(0, "evaluate").marker).exists()
    assert baton("cancel", begun) == {"run": str(begun), "units": []}
    assert "not published yet" in baton("rerun", begun, "update", "--epoch", 1, code=2)


def test_demonstrations_and_nothing_of_the_view(baton, recipe, monkeypatch, tmp_path):
    def drive(run, show, **rest):
        show(ledger.read(run))

    monkeypatch.setattr(orchestrator, "drive", drive)
    told = baton("demos", recipe)
    assert told["shards"] == []
    assert told["tasks"] == {task: {"episodes": 0, "success": None, "steps": None} for task in told["tasks"]}
    assert told["all_tasks"] == {"episodes": 0, "success": None, "steps": None}


def test_every_schema_is_written_down(baton, begun, recipe):
    """docs/json.md names every key of the documents that are not made of a config's own fields."""
    text = (ROOT / "docs" / "json.md").read_text()
    documents = [
        baton("status", begun),
        baton("status"),
        baton("logs", begun),
        baton("run", recipe, "--dry-run", "slurm.launcher=slurm"),
        baton("retry", begun),
        baton("config", "--explain"),
        baton("tasks", "household"),
    ]
    keys = {key for document in documents for key in walk(document)}
    assert not {key for key in keys if f"`{key}`" not in text}


def walk(value):
    """The keys of a document, but for those that are names of metrics."""
    if isinstance(value, list):
        for each in value[:1]:
            yield from walk(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if "/" not in key:
                yield key
            if key not in ("metrics", "progress"):
                yield from walk(each)


def test_numbers_that_json_lacks_are_null(capsys):
    records.write({"a": [math.inf, -math.inf, math.nan, 1.5], "b": {1: (2, "x", None, True)}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, None, 1.5], "b": {"1": [2, "x", None, True]}}

"""Environments of simulators: built from a small definition with a package of the test's own, no index and no Isaac."""

import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from pipeline import building, cli, environments, rundir
from pipeline.compose import compose
from pipeline.errors import UserError

VERSION = f"3.{sys.version_info.minor}"
RECIPE = "simulator: {{name: {name}, tasks: [anything]}}\n"


@pytest.fixture
def definitions(tmp_path, monkeypatch):
    """Where definitions lie, with a package that they can install and a log of the steps that were done."""
    monkeypatch.setenv("BATON_ENVS", str(tmp_path / "envs"))
    monkeypatch.setattr(environments, "DEFINITIONS", tmp_path / "definitions")
    folder = tmp_path / "definitions" / "toysim"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "toysim-1.0-py3-none-any.whl", "w") as wheel:
        written = {
            "toysim.py": "ANSWER = 42\n",
            "toysim-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: toysim\nVersion: 1.0\n",
            "toysim-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        for name, text in written.items():
            wheel.writestr(name, text)
        wheel.writestr("toysim-1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in written))
    (folder / "requirements.txt").write_text("toysim==1.0\n")
    define(folder)
    return folder


def define(folder: Path, **changes: object) -> None:
    log = folder / "done"
    install = '"$PYTHON" -m pip install --no-index --find-links "$DEFINITION" -r "$DEFINITION/requirements.txt"'
    definition = {
        "description": "a simulator of the tests",
        "python": VERSION,
        "disk_gb": 0.1,
        "steps": [
            {"name": "tools", "run": f"echo tools >> {log}"},
            {"name": "toysim", "run": f"echo toysim >> {log}; {install}", "files": ["requirements.txt"]},
            {"name": "rest", "run": f"echo rest >> {log}"},
        ],
        "checks": [{"name": "it answers", "run": '"$PYTHON" -c "import toysim; assert toysim.ANSWER == 42"'}],
    }
    (folder / "environment.yaml").write_text(yaml.safe_dump(definition | changes))


def done(folder: Path) -> list[str]:
    steps = (folder / "done").read_text().split()
    (folder / "done").unlink()
    return steps


def baton(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["baton", "env", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    return ended.value.code or 0, told.out, told.err


def test_an_environment_is_built_once_and_used_by_configs(definitions, tmp_path, monkeypatch, capsys):
    (tmp_path / "run.yaml").write_text(RECIPE.format(name="toysim"))
    began = compose(tmp_path / "run.yaml", [f"runs_dir={tmp_path / 'runs'}"])
    assert began.simulator.python is None
    run = rundir.create_or_resume(began)
    code, out, _ = baton(monkeypatch, capsys, "create", "toysim")
    python = tmp_path / "envs/toysim/bin/python"
    assert code == 0
    assert f"toysim is ready: {python}\n" in out
    assert done(definitions) == ["tools", "toysim", "rest"]
    assert subprocess.run([python, "-c", "import toysim"]).returncode == 0
    assert compose(tmp_path / "run.yaml").simulator.python == str(python)
    assert rundir.create_or_resume(compose(tmp_path / "run.yaml", [f"runs_dir={tmp_path / 'runs'}"])) == run
    assert rundir.load(run).simulator.python == str(python), "a run that began without it goes on with it"
    assert compose(tmp_path / "run.yaml", ["simulator.python=/usr/bin/python3"]).simulator.python == "/usr/bin/python3"
    assert baton(monkeypatch, capsys, "create", "toysim")[1].startswith(f"toysim was ready already: {python}\n")
    assert not (definitions / "done").exists()
    assert baton(monkeypatch, capsys, "list")[1] == f"toysim        built{'':26}{tmp_path / 'envs/toysim'}\n"
    assert baton(monkeypatch, capsys, "check", "toysim")[:2] == (0, "pass  it answers\n")

    # What has changed is done again, with all that comes behind it.
    (definitions / "requirements.txt").write_text("toysim>=1.0\n")
    assert baton(monkeypatch, capsys, "list")[1].split()[1:5] == ["built", "from", "another", "definition"]
    assert baton(monkeypatch, capsys, "create", "toysim")[0] == 0
    assert done(definitions) == ["toysim", "rest"]

    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "toysim"], check=True)
    code, out, err = baton(monkeypatch, capsys, "check", "toysim")
    assert code == 2
    assert out == "fail  it answers: ModuleNotFoundError: No module named 'toysim'\n"
    assert err == (
        f"baton: toysim does not work as it is; to build it again: rm -r {tmp_path / 'envs/toysim'}; "
        "baton env create toysim\n"
    )


# Making an environment takes seconds; where nothing is installed into it, one that only has a Python will do.
BARE = 'mkdir -p "$ENVIRONMENT/bin"; ln -sf "$BASE" "$ENVIRONMENT/bin/python"'


def test_a_step_that_fails_is_told_with_its_words_and_gone_on_from(definitions, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(building, "EMPTY", BARE)
    broken = {"name": "toysim", "run": "echo one; echo two >&2; exit 3"}
    (log := tmp_path / "envs/toysim/build.log")
    steps = [{"name": "tools", "run": f"echo tools >> {definitions / 'done'}"}, broken]
    define(definitions, steps=steps, checks=[{"name": "nothing", "run": "true"}])
    code, _, err = baton(monkeypatch, capsys, "create", "toysim")
    assert code == 2
    assert err.splitlines()[-3:] == [
        f"baton: toysim: 'toysim' failed with exit code 3; mend it, and the same command goes on from there; all it "
        f"said: {log}",
        "  one",
        "  two",
    ]
    assert "--- toysim: " in log.read_text()
    assert baton(monkeypatch, capsys, "check", "toysim")[2] == (
        f"baton: toysim is not built in {tmp_path / 'envs/toysim'}: baton env create toysim\n"
    )
    assert done(definitions) == ["tools"]
    define(
        definitions, steps=[steps[0], {"name": "toysim", "run": "true"}], checks=[{"name": "nothing", "run": "true"}]
    )
    assert baton(monkeypatch, capsys, "create", "toysim")[0] == 0
    assert not (definitions / "done").exists(), "what had been done is not done again"


def test_a_killed_build_goes_on_once_its_last_step_has_ended(definitions, tmp_path):
    once, let_go = tmp_path / "once", tmp_path / "let go"
    wait = f"while ! test -e '{let_go}'; do sleep 0.05; done"
    kill = f"test -e {once} || {{ touch {once}; kill -9 $PPID; {wait}; }}"
    first = {"name": "tools", "run": f"echo tools >> {definitions / 'done'}"}
    define(definitions, steps=[first, {"name": "dies", "run": kill}], checks=[{"name": "nothing", "run": "true"}])
    code = (
        f"import sys, pathlib; from pipeline import building, cli, environments; building.EMPTY = {BARE!r}; "
        f"environments.DEFINITIONS = pathlib.Path({str(definitions.parent)!r}); sys.argv = ['baton', 'env', 'create', "
        "'toysim']; cli.main()"
    )

    def create() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert create().returncode == -signal.SIGKILL
    refused = create()
    let_go.touch()
    told = f"baton: {tmp_path / 'envs/toysim'} is being built by another process: wait for it\n"
    assert (refused.returncode, refused.stderr) == (2, told)
    deadline = time.monotonic() + 30
    while (ended := create()).returncode and time.monotonic() < deadline:
        assert ended.stderr == told
    assert ended.returncode == 0
    assert done(definitions) == ["tools"]


def test_all_that_a_machine_lacks_is_told_at_once(definitions, tmp_path, monkeypatch, capsys):
    needs = [
        {"name": "a shell", "test": "true", "remedy": "none"},
        {"name": "a licence", "test": 'test "$TOY_LICENCE" = YES', "remedy": "read it and export TOY_LICENCE=YES"},
    ]
    define(definitions, python="3.99", disk_gb=10**9, needs=needs)
    code, _, err = baton(monkeypatch, capsys, "create", "toysim")
    lines = err.splitlines()
    assert code == 2
    assert lines[:2] == [
        "baton: toysim cannot be built here:",
        "baton: Python 3.99: no python3.99 with venv on PATH; install it (apt-get install python3.99-venv, module "
        "load, or conda create -n py399 python=3.99) and name it: --python PATH",
    ]
    assert lines[2].startswith("baton: disk: ")
    assert lines[2].endswith(f" GB free in {tmp_path}, 1e+09 GB are needed; set BATON_ENVS to a larger disk")
    assert lines[3:] == ["baton: a licence: not here; read it and export TOY_LICENCE=YES"]
    assert not (tmp_path / "envs").exists()
    code, _, err = baton(monkeypatch, capsys, "create", "toysim", "--python", "/nowhere/python")
    assert err.splitlines()[1].startswith("baton: Python 3.99: /nowhere/python is not one with venv and ensurepip; ")


def test_one_process_builds_at_a_time(definitions, tmp_path):
    environment = environments.find("toysim")
    with building._alone(environment), pytest.raises(UserError) as refused:
        building.create(environment, lambda line: pytest.fail(line))
    assert str(refused.value) == f"{environment.path} is being built by another process: wait for it"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": []}, "steps: Tuple should have at least 1 item after validation, not 0; put it right"),
        ({"extra": 1}, "extra: Extra inputs are not permitted; put it right"),
        ({"python": "2"}, r"python: String should match pattern '^3\.\d+$'; put it right"),
        (
            {"steps": [{"name": "one", "run": "true", "files": ["gone.txt"]}]},
            "step 'one' names gone.txt, which is not beside it; put it back",
        ),
    ],
)
def test_wrong_definitions_are_refused(definitions, change, message):
    define(definitions, **change)
    with pytest.raises(UserError) as refused:
        environments.find("toysim")
    assert str(refused.value) == f"{definitions / 'environment.yaml'}: {message}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["destroy"], "env 'destroy': say create, check or list"),
        (["create"], "env create needs a NAME: toysim"),
        (
            ["create", "doom"],
            "env 'doom': there is no {definitions}/doom/environment.yaml; simulators with one: toysim",
        ),
    ],
)
def test_wrong_commands_are_refused(definitions, monkeypatch, capsys, arguments, message):
    code, _, err = baton(monkeypatch, capsys, *arguments)
    assert (code, err) == (2, f"baton: {message.format(definitions=definitions.parent)}\n")


@pytest.mark.parametrize("name", environments.names())
def test_shipped_definitions_are_whole(name):
    environment = environments.find(name)
    pinned = (environment.folder / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in pinned if line and not line.startswith("#"))
    for script in environment.folder.glob("*.sh"):
        assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert len({step.name for step in environment.definition.steps}) == len(environment.definition.steps)

"""What reading commands write to a real terminal of some width, to a pipe, and to encodings without bars."""

import fcntl
import json
import os
import pty
import re
import runpy
import socket
import struct
import subprocess
import sys
import termios
import traceback
import unicodedata
from pathlib import Path

import pytest

from pipeline import cli, jobs, ledger, rundir
from pipeline.artifacts import Unit, attempt_directory, now, publish
from pipeline.config import Config
from pipeline.resolve import resolve
from slurm import processes

ROOT = Path(__file__).parents[3]
NAME = "a-run-with-a-name-that-says-everything-about-it-and-more-2026-11"
COLORS = ("red", "green", "blue", "jaune", "weiß")
TASKS = [f"put_the_{color}_cube_into_the_basket_beside_the_tray_{n:02d}" for n in range(10) for color in COLORS]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ENVIRONMENT = {
    **{
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    },
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'faults'}",
    "TERM": "xterm-256color",
}


class Screen:
    """A terminal that knows what ours writes: text, new lines, cursor up, erase, colours."""

    def __init__(self, columns):
        self.columns, self.lines, self.row, self.column, self.widest = columns, [""], 0, 0, 0

    def feed(self, text):
        for piece in re.split(rf"({CONTROL.pattern}|[\r\n])", text):
            if piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif piece.startswith("\x1b"):
                self._obey(piece[2:-1], piece[-1])
            elif piece:
                line = self.lines[self.row].ljust(self.column)
                width = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in piece)
                self.lines[self.row] = line[: self.column] + piece + line[self.column + len(piece) :]
                self.column += len(piece)
                self.widest = max(self.widest, len(line[: self.column - len(piece)]) + width)

    def _obey(self, number, letter):
        if letter == "A":
            self.row -= int(number or 1)
        elif letter == "K":
            self.lines[self.row] = self.lines[self.row][: 0 if number == "2" else self.column]
        else:
            assert letter in "mhl", f"CSI {number}{letter}"

    def text(self):
        return "\n".join(line.rstrip() for line in self.lines)


def in_terminal(program, folder, columns, **environment):
    """Everything a program writes to a terminal, raw, and its exit code; a fork of this process, to import nothing."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(ENVIRONMENT | environment)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        code = 1
        try:
            program()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    written = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        written += piece
    os.close(terminal)
    return written.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_pipe(command, folder, **environment):
    """What a command writes to pipes, in bytes."""
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env={**ENVIRONMENT, **environment}, capture_output=True, timeout=120
    )


def baton(*arguments):
    """The command line as a program for a terminal."""

    def program():
        sys.argv = ["baton", *arguments]
        cli.main()

    return program


def piped(*arguments):
    """The command line as `in_pipe` takes it."""
    return ["-m", "pipeline.cli", *arguments]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`runs/NAME` of 50 tasks and 12 epochs: two done, one unit of the third runs, one has failed; and an empty run."""
    folder = tmp_path_factory.mktemp("terminal")
    values = {
        "name": NAME,
        "runs_dir": str(folder / "runs"),
        "epochs": 12,
        "simulator": {"name": "lab.worlds", "tasks": TASKS},
        "rollout": {"shards": 2, "episodes": 100, "num_envs": 2},
        "evaluate": {"episodes": 50, "interval": 1},
        "slurm": {"launcher": "local"},
    }
    run = rundir.create_or_resume(resolve(Config.model_validate(values)))
    for plan in ledger.run_plan(run, rundir.load(run)):
        if plan.unit.epoch <= 2:
            deliver(run, plan.unit)
    mine = processes.identity(os.getpid())
    for shard, job in ((0, mine), (1, "1.1.x")):
        unit = Unit(3, "rollout", shard)
        for attempt in range(1, 4 if shard else 2):
            common = {"unit": str(unit), "attempt": attempt, "key": f"{rundir.identity(run)['id']}:{unit}:{attempt}"}
            jobs.append(run, "submit", host=socket.gethostname(), **common)
            jobs.append(run, "submitted", job=job, host=socket.gethostname(), **common)
            attempt_directory(run, unit, attempt).mkdir(parents=True)
            (attempt_directory(run, unit, attempt) / "log.txt").write_text("said\n")
            if shard:
                error = "RuntimeError: " + " ".join(3 * ["the renderer of node sim0 answered nothing"])
                jobs.append(run, "ended", job=job, outcome="failed", error=error, seconds=9.0, **common)
    told = {"done": 17, "total": 50, "metrics": {"rollout/success_rate": 7 / 17, "rollout/reward_mean": None}}
    (attempt_directory(run, Unit(3, "rollout", 0), 1) / "progress.json").write_text(json.dumps(told))
    other = {**values, "name": "small", "epochs": 1, "simulator": {"name": "lab.worlds", "tasks": ["open"]}}
    rundir.create_or_resume(resolve(Config.model_validate(other)))
    (folder / "tiny.yaml").write_text("epochs: 3\nslurm: {launcher: local}\nsft: {threads: 1}\nupdate: {threads: 1}\n")
    return folder


def deliver(run, unit):
    rate = {"evaluate": "env/success_rate", "rollout": "rollout/success_rate"}.get(unit.stage)
    metrics = {rate: unit.epoch / 4} if rate else {"actor/loss": 1 / (1 + unit.epoch)}
    scratch = run / "attempts" / str(unit) / "1" / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "metrics.jsonl").write_text("")
    if unit.stage == "evaluate":
        lines = [
            {"task": task, "seed": number, "success": number % 4 < unit.epoch} for number, task in enumerate(TASKS)
        ]
        (scratch / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    describe = {
        **dict.fromkeys(("config_digest", "code_revision", "host", "job_id"), "0"),
        **{"unit": str(unit), "part": unit.stage, "attempt": 1, "inputs": {}, "seed": 0, "metrics": metrics},
        **{"seconds": {"total": 9.0}, "started": now(), "versions": {}},
    }
    publish(scratch, run / unit.marker, describe)


def prose(text):
    """Lines without those that hold a path or a command, which are not broken so that they can be copied."""
    kept = (line for line in text.splitlines() if NAME not in line)
    return [line for line in kept if not re.match(r"to \w+( \w+)?:|results:|page:|  log:", line)]


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize(
    "arguments",
    [("status", NAME), ("status", NAME, "--all"), ("status",), ("tasks",), ("run", "tiny.yaml", "--dry-run")],
    ids=" ".join,
)
def test_no_line_is_wider_than_the_terminal(folder, columns, arguments):
    written, code = in_terminal(baton(*arguments), folder, columns)
    assert code == 0
    screen = Screen(columns)
    screen.feed(written)
    assert len(screen.lines) > 5 or arguments == ("status",)
    assert max(map(len, prose(screen.text()))) <= columns


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_all_that_matters_is_there_at_any_width(folder, columns):
    screen = Screen(columns)
    screen.feed(in_terminal(baton("status", NAME), folder, columns)[0])
    words = " ".join(screen.text().split())
    assert f"runs/{NAME}: nobody drives it epoch 3 of 12, 11 of 51 units published" in words
    assert re.search(r"env/success_rate ▁▃▅ +0.0 % 50.0 %", words)
    assert "17/50, success 41.2 %" in words
    assert "e0003-rollout-s0001 failed after 3 attempts: RuntimeError: the renderer" in words
    assert f"log: runs/{NAME}/attempts/e0003-rollout-s0001/3/log.txt" in words
    assert f"to see why: baton logs runs/{NAME} rollout --epoch 3 --shard 1 " in words


def test_a_pipe_gets_neither_colours_nor_broken_lines(folder):
    done = in_pipe(piped("status", NAME), folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout
    error = b" ".join(3 * [b"the renderer of node sim0 answered nothing"])
    assert b"e0003-rollout-s0001 failed after 3 attempts: RuntimeError: " + error + b"\n" in done.stdout
    lines = done.stdout.decode().splitlines()
    assert all(line == line.rstrip() for line in lines)
    assert next(line for line in lines if line.startswith("e0003-update")).endswith("s0001, which failed")


def test_colours_are_left_out_where_they_are_not_wanted(folder):
    plain = in_terminal(baton("status", NAME), folder, 80, NO_COLOR="1")[0]
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain)
    assert "\x1b" not in in_terminal(baton("status", NAME), folder, 80, TERM="dumb")[0]
    assert re.search(r"\x1b\[3[0-7]m", in_terminal(baton("status", NAME), folder, 80)[0])
    forced = in_pipe(piped("status", NAME), folder, FORCE_COLOR="1").stdout.decode()
    assert {code[-1] for code in CONTROL.findall(forced)} == {"m"}


def test_a_dumb_terminal_has_its_own_width(folder):
    written, _ = in_terminal(baton("status", NAME), folder, 60, TERM="dumb")
    assert max(map(len, prose(written.replace("\r", "")))) <= 60


@pytest.mark.parametrize("arguments", [("status", NAME), ("status",), ("report", NAME)], ids=" ".join)
def test_an_encoding_without_bars_gets_letters(folder, arguments):
    done = in_pipe(piped(*arguments), folder, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode("ascii")
    if arguments[0] == "status":
        assert "_-+" in text  # success of 0, 25 and 50 percent
    else:
        assert "put_the_wei?_cube" in text


# ----------------------------------------------------------------------------------------------------------------------
# The live view


@pytest.fixture
def live(tmp_path):
    """The program that shows a run whose jobs wait, run and publish without doing anything."""
    values = {
        **{"name": "fake", "runs_dir": str(tmp_path / "runs"), "epochs": 1, "rollout": {"shards": 2}},
        **{"slurm": {"launcher": "local", "poll_seconds": 0.02}, "trainer": {"logger": {"mlflow": {"enable": False}}}},
    }
    rundir.create_or_resume(resolve(Config.model_validate(values)))
    return [str(Path(__file__).with_name("drive_slowly.py")), "runs/fake"]


def shown(live):
    """That program for a terminal."""

    def program():
        sys.argv = live
        sys.path.append(str(ROOT / "tests" / "faults"))
        runpy.run_path(live[0], run_name="__main__")

    return program


@pytest.mark.parametrize("columns", [60, 80])
def test_the_live_view_is_drawn_in_place(live, tmp_path, columns):
    written, code = in_terminal(shown(live), tmp_path, columns)
    assert code == 0, written
    screen = Screen(columns)
    screen.feed(written)
    assert screen.widest <= columns
    pictures = CONTROL.sub("", written).split("runs/fake: ")
    assert len(pictures) > 5
    assert screen.text().count("runs/fake: ") == 1  # each picture over the one before
    assert screen.text().count("a line for people") == 1  # above them all
    assert "all 7 units are published" in " ".join(screen.text().split())
    states = [re.search(r"e0001-rollout-s0001 +(queued|running)", picture) for picture in pictures]
    assert list(dict.fromkeys(found[1] for found in states if found)) == ["queued", "running"]


@pytest.mark.parametrize("where", ["pipe", "dumb terminal", "pipe with colours"])
def test_elsewhere_it_is_a_line_a_change(live, tmp_path, where):
    if where == "dumb terminal":
        text = (
            in_terminal(shown(live), tmp_path, 80, TERM="dumb")[0].replace("\r", "").replace("a line for people\n", "")
        )
    else:
        colours = {"FORCE_COLOR": "1"} if where == "pipe with colours" else {}
        text = in_pipe(live, tmp_path, **colours).stdout.decode()
    assert "\x1b" not in text
    lines = text.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d (epoch [01] of 1|all 7 units)", line) for line in lines)
    said = [line[9:].partition(", about")[0] for line in lines]
    assert all(one != other for one, other in zip(said, said[1:], strict=False))
    assert [line for line in said if "sft" in line] == ["epoch 0 of 1, sft queued", "epoch 0 of 1, sft running"]
    assert said[-1] == "all 7 units are published"


def test_lines_for_people_stay_in_the_file_that_stderr_is(live, tmp_path):
    def program():
        with open("said.txt", "w", buffering=1) as sys.stderr:
            shown(live)()

    written, code = in_terminal(program, tmp_path, 80)
    assert (code, (tmp_path / "said.txt").read_text()) == (0, "a line for people\n")
    assert "a line for people" not in written

"""`baton logs`: which log is meant, what is printed of it, and following it until its unit has ended."""

import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline import cli, jobs, rundir
from pipeline.artifacts import Unit, attempt_directory, now, publish
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.orchestrator import drive

ROOT = Path(cli.__file__).parents[1]
FIRST, SECOND = Unit(1, "rollout", 0), Unit(1, "rollout", 1)
SETTINGS = {
    "name": "talks",
    "epochs": 1,
    "rollout": {"shards": 2},
    "sft": {"threads": 1, "processes": 1},
    "update": {"threads": 1, "processes": 1},
    "slurm": {"launcher": "local"},
    "trainer": {"logger": {"mlflow": {"enable": False}}},
}


@pytest.fixture
def run(tmp_path):
    return rundir.create_or_resume(Config.model_validate({**SETTINGS, "runs_dir": str(tmp_path / "runs")}))


@pytest.fixture
def logs(run, monkeypatch, capsys):
    """`code, out, err = logs("rollout", ...)`."""

    def logs(*arguments):
        monkeypatch.setattr(sys, "argv", ["baton", "logs", str(run), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return logs


def write(run, unit, text, attempt=1, folder=""):
    path = attempt_directory(run, unit, attempt) / folder / "log.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)
    return path


def submit(run, unit, attempt=1):
    key = f"id:{unit}:{attempt}"
    jobs.append(run, "submit", unit=str(unit), attempt=attempt, key=key, host="here")
    jobs.append(run, "submitted", unit=str(unit), attempt=attempt, key=key, job="1", host="elsewhere")


def end(run, unit, outcome, attempt=1, error=None):
    key = f"id:{unit}:{attempt}"
    jobs.append(run, "ended", unit=str(unit), attempt=attempt, key=key, job="1", outcome=outcome, error=error)


def put(run, unit, attempt=1):
    scratch = attempt_directory(run, unit, attempt) / "scratch"
    scratch.mkdir(parents=True)
    empty = dict.fromkeys(("config_digest", "code_revision", "host", "job_id"), "")
    described = {"unit": str(unit), "part": unit.stage, "attempt": attempt, "seed": 0, "started": now(), **empty}
    publish(scratch, run / unit.marker, {**described, "inputs": {}, "metrics": {}, "seconds": {}, "versions": {}})


def test_without_a_stage_it_is_the_unit_that_matters_now(run, logs):
    code, _, err = logs()
    assert code == 2
    assert err == f"baton: e0000-demonstrate-s0000 has no log yet: `baton status {run}` shows how far the run is\n"

    demonstrate = Unit(0, "demonstrate", 0)
    submit(run, demonstrate)
    path = write(run, demonstrate, "expert\n")
    put(run, demonstrate)
    end(run, demonstrate, "published")
    assert logs() == (0, "expert\n", f"log: {path}\n")

    submit(run, Unit(0, "sft"))  # in the queue: it has no log
    assert logs()[1] == "expert\n"
    write(run, Unit(0, "sft"), "loss\n")
    assert logs()[1] == "loss\n"

    for attempt in (1, 2, 3):
        submit(run, SECOND, attempt)
        write(run, SECOND, f"crash {attempt}\n", attempt)
        end(run, SECOND, "failed", attempt, "crash")
    assert logs()[1] == "crash 3\n"
    assert logs("sft")[1] == "loss\n"
    assert logs("--epoch", 0)[1] == "loss\n"


def test_shards_come_with_headers_and_one_alone_without(run, logs):
    for unit in (FIRST, SECOND):
        submit(run, unit)
    write(run, FIRST, "one\n")
    code, out, _ = logs("rollout")
    assert (code, out) == (0, "one\n")
    write(run, SECOND, "two\n")
    _, out, err = logs("rollout", "--epoch", 1)
    assert out == ("==> e0001-rollout-s0000, attempt 1 <==\none\n\n==> e0001-rollout-s0001, attempt 1 <==\ntwo\n")
    assert err.count("log: ") == 2
    assert logs("rollout", "--shard", 1)[1] == "two\n"


def test_attempts_and_last_lines(run, logs):
    for attempt in (1, 2):
        submit(run, FIRST, attempt)
        write(run, FIRST, "".join(f"{attempt}.{line}\n" for line in range(5)), attempt)
        end(run, FIRST, "failed", attempt)
    assert logs("rollout", "-n", 2)[1] == "2.3\n2.4\n"
    assert logs("rollout", "--attempt", 1, "--lines", 1)[1] == "1.4\n"
    submit(run, SECOND)
    write(run, SECOND, "other\n")
    assert logs("rollout", "--attempt", 2, "-n", 1)[1] == "2.4\n"
    code, _, err = logs("rollout", "--attempt", 7)
    assert code == 2
    assert "--attempt 7: e0001-rollout-s0000 has no such attempt, there are 2" in err


def test_of_a_published_unit_it_is_the_attempt_that_published(run, logs):
    submit(run, FIRST)
    write(run, FIRST, "published\n")
    put(run, FIRST)
    end(run, FIRST, "published")
    write(run, FIRST, "somebody by hand\n", attempt=2)
    assert logs("rollout")[1] == "published\n"


def test_links_restarts_and_bytes_that_are_no_text(run, logs):
    submit(run, FIRST)
    path = write(run, FIRST, "")
    path.rename(path.with_name("7_log.out"))
    path.symlink_to("7_log.out")
    path.write_bytes(b"half \xe2\x82 a sign\n")
    assert logs("rollout")[1] == "half � a sign\n"
    write(run, FIRST, "again\n", folder="restart-1")
    assert logs("rollout")[1] == "again\n"


@pytest.mark.parametrize("what", ["orchestrator", "pilot", "tracking", "chain"])
def test_logs_of_what_looks_after_the_run(run, logs, what):
    code, _, err = logs(what)
    assert code == 2
    assert f"{what} has no log yet" in err
    path = run / "attempts" / "chain" / "20" / "log.txt" if what == "chain" else run / f"{what}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("first\nsecond\n")
    if what == "chain":
        (run / "attempts" / "chain" / "3").mkdir()
    assert logs(what, "-n", 1) == (0, "second\n", f"log: {path}\n")
    code, _, err = logs(what, "--shard", 1)
    assert code == 2
    assert err == f"baton: --shard: the log of {what} is no unit's; leave it out\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["polish"], "'polish' has no log: name a stage (demonstrate, sft"),
        (["update", "--epoch", "9"], "has no such unit: `baton status"),
        (["update", "--shard", "0"], "has no such unit: `baton status"),
        (["update"], "e0001-update has no log yet"),
    ],
)
def test_what_is_not_there_is_refused_in_a_line(logs, arguments, complaint):
    code, out, err = logs(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err


def test_a_unit_that_never_came_to_a_log_says_why(run, logs):
    submit(run, FIRST)
    end(run, FIRST, "refused", error="simulator.name=isaac is not installed here")
    code, _, err = logs()
    assert code == 2
    assert err == "baton: e0001-rollout-s0000 left no log; simulator.name=isaac is not installed here\n"


class Followed:
    """`baton logs RUN ... --follow` in a process of its own, its lines as they come."""

    def __init__(self, run, *arguments):
        command = [sys.executable, "-m", "pipeline.cli", "logs", str(run), *arguments, "--follow"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def next(self, seconds=30):
        while not (line := self.lines.get(timeout=seconds)):
            pass
        return line

    def end(self, seconds=30):
        """Exit code, and what else was printed."""
        code = self.process.wait(seconds)
        time.sleep(0.2)
        left = []
        while not self.lines.empty():
            left.append(self.lines.get())
        return code, [line for line in left if line]


@pytest.fixture
def follow(run):
    started = []

    def follow(*arguments):
        started.append(Followed(run, *arguments))
        return started[-1]

    yield follow
    for one in started:
        one.process.kill()


def test_following_goes_from_text_to_text_until_the_unit_is_published(run, follow):
    submit(run, FIRST)
    write(run, FIRST, "old\nnew\n")
    followed = follow("rollout", "--shard", "0", "-n", "1")
    assert followed.next() == "new"
    path = write(run, FIRST, "more\n")
    assert followed.next() == "more"
    path.write_text("anew\n")  # a job that was put back into the queue may begin its file again
    assert followed.next() == "anew"
    end(run, FIRST, "failed")
    submit(run, FIRST, 2)
    write(run, FIRST, "second try\n", attempt=2)
    assert followed.next() == "==> e0001-rollout-s0000, attempt 2 <=="
    assert followed.next() == "second try"
    write(run, FIRST, "published, bye\n", attempt=2)
    put(run, FIRST, 2)
    assert followed.end() == (0, ["published, bye"])


def test_following_waits_for_the_first_line_and_ends_with_a_failure(run, follow):
    followed = follow("update")
    assert "e0001-update has no log yet; waiting for it" in followed.process.stderr.readline()
    for attempt in (1, 2, 3):
        submit(run, Unit(1, "update"), attempt)
        write(run, Unit(1, "update"), f"crash {attempt}\n", attempt)
        end(run, Unit(1, "update"), "failed", attempt)
    code, lines = followed.end()
    assert code == 0
    assert lines[-1] == "crash 3"


def test_following_shards_tells_them_apart(run, follow):
    for unit in (FIRST, SECOND):
        submit(run, unit)
        write(run, unit, f"{unit} begins\n")
    followed = follow("rollout")
    assert [followed.next() for _ in range(4)] == [
        "==> e0001-rollout-s0000, attempt 1 <==",
        "e0001-rollout-s0000 begins",
        "==> e0001-rollout-s0001, attempt 1 <==",
        "e0001-rollout-s0001 begins",
    ]
    write(run, FIRST, "one more\n")
    assert [followed.next(), followed.next()] == ["==> e0001-rollout-s0000, attempt 1 <==", "one more"]
    for unit in (FIRST, SECOND):
        put(run, unit)
    assert followed.end() == (0, [])


@pytest.mark.slow
def test_following_a_unit_on_a_real_cluster(tmp_path, idle_cluster, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'faults'}")
    slurm = {"launcher": "slurm", "query_seconds": 0.5, "poll_seconds": 0.1}
    run = rundir.create_or_resume(
        Config.model_validate({**SETTINGS, "runs_dir": str(tmp_path), "epochs": 0, "slurm": slurm})
    )
    (run / "fake.json").write_text('{"seconds": 1, "crash": {"e0000-sft": 3}}')
    followed = Followed(run, "sft")
    try:
        with pytest.raises(UserError, match="e0000-sft failed 3 times"):
            drive(run, lambda snapshot: None, say=lambda line: None, stages_package="fake_stages")
        code, lines = followed.end()
    finally:
        followed.process.kill()
    assert code == 0
    assert "==> e0000-sft, attempt 3 <==" in lines
    assert "RuntimeError: e0000-sft was asked to crash" in lines

"""Stages that are told to stop: they leave nothing half done, and the same command gives the same result."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest

from pipeline.artifacts import Unit
from stages.signals import STOPPED

pytestmark = pytest.mark.slow

ROLLOUT, UPDATE, EVALUATE = Unit(1, "rollout", 0), Unit(1, "update"), Unit(0, "evaluate")

SLOW_PUBLICATION = """
import pathlib, time
from pipeline import artifacts
real = artifacts.publish
def slow(scratch, target, describe):
    (scratch.parent.parent / "publishing").touch()
    time.sleep(0.3)
    return real(scratch, target, describe)
artifacts.publish = slow
"""


def stop_at_random(tiny, unit, rng):
    """Start a stage and signal it at a random moment, by chance all its processes and by chance twice.

    Not before it has an attempt: until then it imports, and dies of the signal like any process.
    """
    stage = tiny.start(unit)
    stage.wait_for(tiny.run / "attempts" / str(unit) / "1")
    number = rng.choice([signal.SIGTERM, signal.SIGUSR2])
    delay, everyone, twice = rng.uniform(0, 4), rng.random() < 0.5, rng.random() < 0.5
    time.sleep(delay)
    stage.signal(number, everyone)
    if twice:
        time.sleep(rng.uniform(0, 0.3))
        stage.signal(number, everyone)
    code, output = stage.end()
    case = f"{number!r} after {delay:.2f} s, everyone={everyone}, twice={twice}: exit code {code}\n{output}"
    assert "Traceback" not in output, case
    assert "Exception ignored" not in output, case
    assert not [*(tiny.run / "attempts").rglob("scratch")], case
    if tiny.contents(unit) is None:
        assert code == STOPPED, case
        assert number.name in output.splitlines()[-1], case
    else:
        assert code == 0, case


def stop_and_start_again(prepared, folder, unit, ranks, rng):
    tiny = prepared.copy(folder, unit, update={"processes": ranks})
    stop_at_random(tiny, unit, rng)
    code, output = tiny.start(unit).end()
    assert code == 0, output
    return tiny.contents(unit)


def stop_while_publishing(prepared, folder):
    tiny = prepared.copy(folder, UPDATE)
    stage = tiny.start(UPDATE, code=SLOW_PUBLICATION)
    stage.wait_for(tiny.run / "attempts" / str(UPDATE) / "1" / "publishing")
    stage.signal(signal.SIGTERM)
    return *stage.end(), tiny.contents(UPDATE)


CASES = [(ROLLOUT, 1), (UPDATE, 1), (UPDATE, 2), (EVALUATE, 1)]


@pytest.fixture(scope="module")
def found(prepared, side_by_side, tmp_path_factory):
    """What comes of every case; two at a time, because most of each is one thread that imports."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown by pytest when this fails
    rng = random.Random(seed)
    folder = tmp_path_factory.mktemp("stopped")
    cases = {
        case: side_by_side(
            stop_and_start_again, prepared, folder / "-".join(map(str, case)), *case, random.Random(rng.random())
        )
        for case in CASES
    }
    return cases | {"publishing": side_by_side(stop_while_publishing, prepared, folder / "publishing")}


@pytest.mark.parametrize(("unit", "ranks"), CASES, ids=str)
def test_a_stage_stopped_at_any_moment_leaves_all_or_nothing_and_is_done_the_same_again(prepared, found, unit, ranks):
    contents = found[unit, ranks].result()
    if ranks == 1:
        assert contents == prepared.contents(unit)
    else:  # other sums than those of one rank
        assert contents.keys() == prepared.contents(unit).keys()


def test_a_publication_that_has_begun_is_finished(prepared, found):
    code, output, contents = found["publishing"].result()
    assert code == 0, output
    assert contents == prepared.contents(UPDATE)


def python(code):
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def signalled(code, *numbers):
    """Run code, signal it once it prints `now`, and return its exit code and what it printed to stderr."""
    process = python(code)
    assert process.stdout.readline() == "now\n", process.stderr.read()
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.1)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def test_a_shielded_block_is_finished_first_and_later_signals_change_nothing():
    code = """
import time
from stages import signals
try:
    signals.install()
    with signals.shielded():
        print("now", flush=True)
        time.sleep(0.5)
        done = True
    raise AssertionError("the signal was lost")
except signals.Stopped as stop:
    assert done and "SIGUSR2" in str(stop)
    time.sleep(0.5)
    signals.finish()
raise SystemExit(signals.STOPPED)
"""
    assert signalled(code, signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM) == (STOPPED, "")


def test_what_fails_because_the_job_is_ended_is_no_failure():
    code = """
from stages import signals
signals.install()
try:
    print("now", flush=True)
    signals.check(within=5)
except signals.Stopped:
    raise SystemExit(signals.STOPPED)
"""
    assert signalled(code, signal.SIGTERM) == (STOPPED, "")


def test_a_stage_whose_main_thread_does_not_come_back_is_ended_all_the_same():
    code = """
import time
from stages import signals
signals.CLOSING_S = 0.5
signals.install()
try:
    print("now", flush=True)
    time.sleep(60)
except BaseException:  # a library may do that
    time.sleep(60)
"""
    returned, errors = signalled(code, signal.SIGTERM)
    assert returned == STOPPED
    assert "did not close within 0.5 s" in errors

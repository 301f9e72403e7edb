"""Stages that stay up and take orders: the same artifacts as from fresh processes, without their start."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time

import pytest

from pipeline.artifacts import Unit, attempt_directory
from pipeline.errors import UserError
from stages.door import run_stage
from stages.signals import STOPPED

pytestmark = pytest.mark.slow

SHARDS = [Unit(1, "rollout", 0), Unit(1, "rollout", 1)]
UPDATES = [Unit(1, "update"), Unit(2, "update")]


def order(folder, number, unit, attempt=1):
    """Give an order as the pipeline does."""
    (folder / "orders").mkdir(parents=True, exist_ok=True)
    content = {"key": "whatever", "epoch": unit.epoch, "shard": unit.shard, "attempt": attempt}
    partial = folder / "orders" / f".{number:04d}"
    partial.write_text(json.dumps(content))
    os.replace(partial, done(folder, number).with_suffix(".json"))


def done(folder, number):
    return folder / "orders" / f"{number:04d}.done"


def log(tiny, unit, attempt=1):
    return (attempt_directory(tiny.run, unit, attempt) / "log.txt").read_text()


# ----------------------------------------------------------------------------------------------------------------------
# The orders, with work that is none, in this process


def follow(tiny, folder, do, idle=0.1):
    with (  # pytest has put other streams in their place
        open(1, "w", closefd=False) as out,
        open(2, "w", closefd=False) as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        return run_stage("rollout", do, [str(tiny.run), "--follow", str(folder), "--idle", str(idle)])


def produce(work):
    print(f"working on {work.unit}")
    os.system("echo a child speaks")
    print("and complains", file=sys.stderr)
    (work.scratch("rollout") / "content").write_text(str(work.unit))


def test_orders_are_done_in_turn_each_with_its_own_log(prepared, tmp_path, capfd):
    tiny = prepared.copy(tmp_path, *SHARDS)
    for number, unit in enumerate(SHARDS, start=1):
        order(tmp_path, number, unit)
    assert follow(tiny, tmp_path, produce) == 0
    for number, unit in enumerate(SHARDS, start=1):
        assert tiny.contents(unit) is not None
        assert done(tmp_path, number).read_text() == "0\n"
        words = {f"working on {unit}", "a child speaks", "and complains", f"published {tiny.run / unit.marker}"}
        assert set(log(tiny, unit).splitlines()) == words
    assert capfd.readouterr() == ("", "")
    os.system("echo heard again")
    assert capfd.readouterr() == ("heard again\n", "")


def test_an_order_whose_unit_is_published_is_done_at_once(prepared, tmp_path):
    order(tmp_path, 1, SHARDS[0], attempt=7)
    assert follow(prepared, tmp_path, pytest.fail) == 0
    assert done(tmp_path, 1).exists()
    assert not attempt_directory(prepared.run, SHARDS[0], 7).exists()


def test_orders_of_a_former_start_are_not_done_again(prepared, tmp_path):
    tiny = prepared.copy(tmp_path, *SHARDS)
    order(tmp_path, 1, SHARDS[0])
    done(tmp_path, 1).touch()
    order(tmp_path, 2, SHARDS[1])
    assert follow(tiny, tmp_path, produce) == 0
    assert tiny.contents(SHARDS[0]) is None
    assert tiny.contents(SHARDS[1]) is not None


def test_a_resident_that_is_told_to_go_does_first_what_was_ordered(prepared, tmp_path):
    tiny = prepared.copy(tmp_path, SHARDS[0])
    order(tmp_path, 1, SHARDS[0])
    (tmp_path / "orders" / "stop").touch()
    begun = time.monotonic()
    assert follow(tiny, tmp_path, produce, idle=60) == 0
    assert time.monotonic() - begun < 30
    assert done(tmp_path, 1).exists()


def test_a_resident_without_orders_goes(prepared, tmp_path):
    begun = time.monotonic()
    assert follow(prepared, tmp_path, pytest.fail, idle=0.5) == 0
    assert 0.5 <= time.monotonic() - begun < 30


def test_an_order_that_is_refused_ends_the_resident_and_says_why(prepared, tmp_path, capfd):
    def refuse(work):
        raise UserError("the shard is too short; make it longer")

    tiny = prepared.copy(tmp_path, *SHARDS)
    for number, unit in enumerate(SHARDS, start=1):
        order(tmp_path, number, unit)
    assert follow(tiny, tmp_path, refuse) == 2
    attempt = attempt_directory(tiny.run, SHARDS[0], 1)
    assert (attempt / "error.txt").read_text() == "the shard is too short; make it longer\n"
    assert log(tiny, SHARDS[0]) == "baton: the shard is too short; make it longer\n"
    assert not done(tmp_path, 1).exists()
    assert not attempt_directory(tiny.run, SHARDS[1], 1).exists()


def test_an_order_that_fails_leaves_its_traceback_in_its_log(prepared, tmp_path, capfd):
    def fail(work):
        (work.scratch("rollout") / "content").write_text("half")
        raise ZeroDivisionError("nobody thought of this")

    tiny = prepared.copy(tmp_path, *SHARDS)
    order(tmp_path, 1, SHARDS[0])
    assert follow(tiny, tmp_path, fail) == 1
    assert log(tiny, SHARDS[0]).splitlines()[-1] == "ZeroDivisionError: nobody thought of this"
    assert capfd.readouterr() == ("", "")
    assert not done(tmp_path, 1).exists()
    assert not (attempt_directory(tiny.run, SHARDS[0], 1) / "scratch").exists()


@pytest.mark.parametrize("text", ['{"shard": 1}', "[]", "3", "{"])
def test_nonsense_is_refused_in_one_line(prepared, tmp_path, capfd, text):
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "0001.json").write_text(text)
    assert follow(prepared, tmp_path, pytest.fail) == 2
    assert "0001.json is no order" in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--epoch", "1", "--follow", "x"]])
def test_a_stage_is_given_a_unit_or_a_folder_of_orders(arguments, capfd):
    with pytest.raises(SystemExit) as ended:
        run_stage("rollout", pytest.fail, ["run", *arguments])
    assert ended.value.code == 2
    assert "--epoch" in capfd.readouterr().err


# ----------------------------------------------------------------------------------------------------------------------
# The work, in processes of its own


def resident_rollouts(prepared, folder):
    """Two shards by one process, which is stopped while it waits for a third order."""
    tiny = prepared.copy(folder, *SHARDS)
    stage = tiny.start_stage("rollout", "--follow", folder)
    seconds = []
    for number, unit in enumerate(SHARDS, start=1):
        begun = time.monotonic()
        order(folder, number, unit)
        stage.wait_for(done(folder, number))
        seconds.append(time.monotonic() - begun)
    stage.signal(signal.SIGTERM)
    return tiny, seconds, stage.end()


def resident_updates(prepared, folder, ranks):
    """Two updates in a row by the same ranks, which go when no order comes; then the second by fresh processes."""
    tiny = prepared.copy(folder, *UPDATES, update={"processes": ranks})
    for number, unit in enumerate(UPDATES, start=1):
        order(folder, number, unit)
    ended = tiny.start_stage("update", "--follow", folder, "--idle", 1).end()
    fresh = tiny.copy(folder / "fresh", UPDATES[1])
    fresh_ended = fresh.start(UPDATES[1]).end()
    return tiny, ended, fresh, fresh_ended


@pytest.fixture(scope="module")
def found(prepared, side_by_side, tmp_path_factory):
    """What comes of the cases; two at a time, because most of each is one thread that imports."""
    folder = tmp_path_factory.mktemp("residents")
    cases = {ranks: side_by_side(resident_updates, prepared, folder / f"{ranks} ranks", ranks) for ranks in (2, 1)}
    return cases | {"rollouts": side_by_side(resident_rollouts, prepared, folder / "rollouts")}


@pytest.mark.parametrize("ranks", [1, 2])
def test_consecutive_updates_of_a_resident_are_those_of_separate_processes(prepared, found, ranks):
    resident, (code, output), fresh, (fresh_code, fresh_output) = found[ranks].result()
    assert (code, fresh_code) == (0, 0), output + fresh_output
    assert resident.contents(UPDATES[1]) == fresh.contents(UPDATES[1])
    if ranks == 1:
        assert resident.contents(UPDATES[0]) == prepared.contents(UPDATES[0])


def test_resident_rollouts_are_those_of_fresh_processes(prepared, found):
    tiny, _, _ = found["rollouts"].result()
    for unit in SHARDS:
        assert tiny.contents(unit) == prepared.contents(unit)


def test_simulators_stay_warm_between_orders(found):
    tiny, (first, second), _ = found["rollouts"].result()
    assert (attempt_directory(tiny.run, SHARDS[0], 1) / "simulator-0.log").exists()
    assert not (attempt_directory(tiny.run, SHARDS[1], 1) / "simulator-0.log").exists()
    assert second < first / 2


def test_a_resident_that_waits_is_stopped_by_a_signal(found):
    _, _, (code, output) = found["rollouts"].result()
    assert code == STOPPED
    assert output.startswith("baton: rollout was stopped by SIGTERM")
    assert len(output.splitlines()) == 1

"""The pool disturbed: workers crash, hang, return NaN or are killed, and no number changes."""

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.simulators.interface import Episode
from stages.simulators.pool import SimulatorLost, SimulatorPool, Start

FAKES = Path(__file__).parent
ROOT = FAKES.parents[2]
COUNTING = "fakesim.counting"
WORLDS, CHUNK, CHUNKS = 4, 3, 6
TURNS = 2 * CHUNKS  # two groups take turns
WAITED_FOR = ("hang", "stop")


@pytest.fixture(autouse=True, scope="module")
def _fakes() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(FAKES))
        yield


def play(pool: SimulatorPool, kills: dict[int, tuple[int, float]] | None = None) -> list[np.ndarray]:
    """Run two groups of worlds as a rollout does; return every array that came back, in order.

    At turn t, `kills[t]` is the worker to kill and how many seconds after its command was sent.
    """
    random = np.random.default_rng(3)
    groups = [[0, 1, 2], [3]]  # with two workers, the first group has worlds in both
    seeds, told = itertools.count(), []

    def starts(count: int, film: bool = False) -> list[Start]:
        return [Start(Episode("count", next(seeds)), film) for _ in range(count)]

    def reset(slots: list[int]) -> None:
        seen = pool.reset(slots, [start.episode for start in starts(len(slots))])
        told.extend([seen.head, seen.wrist, seen.proprio])

    for slots in groups:
        reset(slots)
    for turn in range(TURNS):
        slots = groups[turn % 2]
        then = starts(len(slots), film=turn == 4) if turn % 3 else []
        if turn % 4 == 3:
            ticket: Any = pool.expert_async(slots, CHUNK, then)
        else:
            ticket = pool.step_async(slots, random.uniform(-1, 1, (len(slots), CHUNK, 3)), then)
        if kills and turn in kills:
            worker, delay = kills[turn]
            time.sleep(delay)
            os.kill(pool.pids[worker], signal.SIGKILL)
        stepped = pool.wait(ticket)
        result, seen = stepped.result, stepped.observation
        told += [result.rewards, result.executed, result.success, result.terminated, result.truncated]
        told += [seen.head, seen.wrist, seen.proprio, *(frame for world in result.frames for frame in world)]
        told += [stepped.restarted, *(last.proprio for last in stepped.last.values())]
        if turn % 4 == 3:
            told += [stepped.actions, stepped.clean]
        rest = (result.terminated | result.truncated) & ~stepped.restarted
        if rest.any():
            reset([slots[row] for row in np.flatnonzero(rest)])
    return told


def assert_same(told: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert len(told) == len(wanted)
    for one, other in zip(told, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def undisturbed() -> list[np.ndarray]:
    with SimulatorPool(COUNTING, {}, WORLDS, 2) as pool:
        told = play(pool)
        assert pool.restarts == 0
    return told


@pytest.mark.parametrize("trouble", ["crash", "segfault", "hang", "stop", "nan", "raise", "shape", "dtype", "type"])
def test_a_worker_in_trouble_is_replaced_and_nothing_changes(
    trouble: str, tmp_path: Path, undisturbed: list[np.ndarray]
) -> None:
    options = {"trouble": trouble, "at": 4, "marker": str(tmp_path / "happened")}
    with SimulatorPool(COUNTING, options, WORLDS, 2, timeout_s=2.0 if trouble in WAITED_FOR else 60.0) as pool:
        assert_same(play(pool), undisturbed)
        assert pool.restarts == 1


@pytest.mark.parametrize(("trouble", "seed"), [("raise", 2), ("crash", 15), ("stop", 15)])  # 2 is reset to, 15 follows
def test_trouble_in_a_reset_heals(trouble: str, seed: int, tmp_path: Path, undisturbed: list[np.ndarray]) -> None:
    options = {"trouble": trouble, "at_reset": seed, "marker": str(tmp_path / "happened")}
    with SimulatorPool(COUNTING, options, WORLDS, 2, timeout_s=2.0 if trouble in WAITED_FOR else 60.0) as pool:
        assert_same(play(pool), undisturbed)
        assert (tmp_path / "happened").exists()
        assert pool.restarts == 1


@pytest.mark.parametrize(
    ("trouble", "follows", "words", "details"),
    [
        ("raise", False, "RuntimeError: the engine lost its contacts", "Traceback"),
        ("raise", True, "RuntimeError: the engine lost its contacts", "Traceback"),
        ("crash", True, "it exited with status 7", "trouble ahead"),
        ("stop", False, "no answer for 2 s", "trouble ahead"),
    ],
)
def test_a_state_that_cannot_be_reset_to_is_given_up_and_named(
    trouble: str, follows: bool, words: str, details: str, tmp_path: Path
) -> None:
    def begin(pool: SimulatorPool) -> None:
        pool.reset([0, 1], [Episode("count", 1), Episode("count", 4 if follows else 77)])
        pool.step([0, 1], np.zeros((2, 8, 3)), [Start(Episode("count", 77)), None])

    options = {"trouble": trouble, "at_reset": 77}
    begun = time.monotonic()
    with SimulatorPool(COUNTING, options, 2, timeout_s=2.0, max_restarts=1000, log_dir=tmp_path) as pool:
        told = rf"simulator worker 0 \(fakesim.counting\) failed 3 times in a row.*'count' from seed 77.*{words}"
        with pytest.raises(SimulatorLost, match=told) as lost:
            begin(pool)
        assert "\n" not in str(lost.value)
        assert details in lost.value.details
        with pytest.raises(RuntimeError, match="closed"):
            pool.observe([0])
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("nan", "NaN or infinity in rewards of task 'count' from seed 4"),
        ("dtype", r"TypeError: the simulator returned success as int64 \[1\], wanted bool \[1\]"),
        ("shape", r"TypeError: the simulator returned rewards as float32 \[1, 1\], wanted float32 \[1, 2\]"),
        ("type", r"TypeError: the simulator returned executed as list, wanted bool \[1, 2\]"),
    ],
)
def test_answers_that_are_always_wrong_are_given_up_and_named(trouble: str, words: str) -> None:
    with SimulatorPool(COUNTING, {"trouble": trouble, "at": 1}, 1, max_restarts=1000) as pool:
        pool.reset([0], [Episode("count", 4)])
        with pytest.raises(SimulatorLost, match=f"3 times in a row, at last stepping .* from seed 4: {words}"):
            pool.step([0], np.zeros((1, 2, 3)))


def test_episodes_tell_the_faults_they_lived_through() -> None:
    """World 0 has a worker of its own; of the other's worlds one ends after 4 steps, one goes on."""
    killed = "it was killed by signal 9 (Killed), as the kernel does when memory runs out"
    then = [None, Start(Episode("count", 1)), None]
    with SimulatorPool(COUNTING, {}, 3, 2) as pool:
        pool.reset([0, 1, 2], [Episode("count", 4), Episode("count", 1), Episode("count", 4)])

        def step() -> list[list[str]]:
            return pool.step([0, 1, 2], np.zeros((3, 2, 3)), then).faults

        assert step() == [[], [], []]
        os.kill(pool.pids[1], signal.SIGKILL)
        assert step() == [[], [killed], [killed]]
        assert step() == [[], [], [killed]]
        os.kill(pool.pids[1], signal.SIGKILL)
        assert step() == [[], [killed], [killed, killed]]
        pool.reset([2], [Episode("count", 4)])
        assert step() == [[], [], []]


moments = st.dictionaries(
    st.integers(0, TURNS - 1), st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.0005, 0.002, 0.01])), max_size=4
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=moments)
def test_killing_workers_at_any_moment_changes_nothing(
    kills: dict[int, tuple[int, float]], undisturbed: list[np.ndarray]
) -> None:
    with SimulatorPool(COUNTING, {}, WORLDS, 2, max_restarts=10) as pool:
        assert_same(play(pool, kills), undisturbed)
        assert pool.restarts <= len(kills)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.dictionaries(st.integers(0, TURNS - 1), st.tuples(st.integers(0, 1), st.just(0.0)), max_size=1))
def test_recycling_workers_changes_nothing(kills: dict[int, tuple[int, float]], undisturbed: list[np.ndarray]) -> None:
    with SimulatorPool(COUNTING, {}, WORLDS, 2, recycle_episodes=3) as pool:
        before = pool.pids
        assert_same(play(pool, kills), undisturbed)
        assert pool.recycled >= 2
        assert pool.restarts <= len(kills)
        assert not set(before) & set(pool.pids)


def test_recycling_is_no_fault_and_nobody_waits_for_it_in_vain() -> None:
    with SimulatorPool(COUNTING, {}, 2, 2, recycle_episodes=1, max_restarts=0) as pool:
        for seed in range(3):
            pool.reset([0, 1], [Episode("count", 4 + seed)] * 2)
            pids = pool.pids
            assert pool.step([0, 1], np.zeros((2, 2, 3))).faults == [[], []]
            assert pool.pids == pids
        assert pool.recycled == 6
        assert pool.restarts == 0


def test_a_worker_killed_between_commands_is_noticed_at_the_next(undisturbed: list[np.ndarray]) -> None:
    with SimulatorPool(COUNTING, {}, WORLDS, 2) as pool:
        os.kill(pool.pids[0], signal.SIGKILL)
        os.kill(pool.pids[1], signal.SIGKILL)
        assert_same(play(pool), undisturbed)
        assert pool.restarts == 2


def test_filmed_episodes_keep_their_frames(tmp_path: Path) -> None:
    options = {"trouble": "crash", "at": 2, "marker": str(tmp_path / "happened")}
    with SimulatorPool(COUNTING, options, 1) as pool:
        pool.reset([0], [Episode("count", 4)], film=[True])
        numbers = [int(f[0, 0, 0]) for _ in range(2) for f in pool.step([0], np.zeros((1, 3, 3))).result.frames[0]]
        assert numbers == [1, 2, 3, 4, 5, 6]
        assert pool.restarts == 1


def test_a_worker_that_keeps_failing_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    with SimulatorPool(COUNTING, {"trouble": "crash", "at": 2}, 1, max_restarts=1, log_dir=tmp_path) as pool:
        pool.reset([0], [Episode("count", 4)])
        pool.step([0], np.zeros((1, 2, 3)))
        with pytest.raises(SimulatorLost, match="failed after 1 restarts, .*: it exited with status 7") as lost:
            pool.step([0], np.zeros((1, 2, 3)))
        assert "trouble ahead" in lost.value.details
        assert pool.restarts == 1


def test_a_failing_simulator_tells_its_traceback() -> None:
    with SimulatorPool(COUNTING, {"trouble": "raise", "at": 1}, 1, max_restarts=0) as pool:
        pool.reset([0], [Episode("count", 4)])
        with pytest.raises(SimulatorLost, match="RuntimeError: the engine lost its contacts") as lost:
            pool.step([0], np.zeros((1, 2, 3)))
        assert lost.value.details.startswith("Traceback")
        assert "in step_chunk" in lost.value.details


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("os.write(int(sys.argv[3]), b'half')", "its answer was not whole after 0.3 s"),
        ("pass", "it was not up after 1 s"),
    ],
)
def test_no_wait_is_endless(code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that stops amid a message, and one that takes none; the options are more than a socket holds."""
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nimport os, sys, time\n{code}\ntime.sleep(1000)\n")
    program.chmod(0o755)
    monkeypatch.setattr("stages.simulators.process.MESSAGE_SECONDS", 0.3)
    begun = time.monotonic()
    with pytest.raises(SimulatorLost, match=f"3 times in a row, at last coming up: {words}"):
        SimulatorPool(COUNTING, {"marker": "x" * 1_000_000}, 1, python=str(program), start_timeout_s=1.0)
    assert time.monotonic() - begun < 20


def test_only_terminate_and_kill_end_a_worker() -> None:
    with SimulatorPool(COUNTING, {}, 1) as pool:
        wanted = pool.reset([0], [Episode("count", 4)]).proprio
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(pool.pids[0], number)
        np.testing.assert_array_equal(pool.observe([0]).proprio, wanted)
        assert pool.restarts == 0
        os.kill(pool.pids[0], signal.SIGTERM)
        np.testing.assert_array_equal(pool.observe([0]).proprio, wanted)
        assert pool.restarts == 1


@pytest.mark.parametrize("trouble", ["none", "hang", "hold"])
def test_workers_die_with_a_stage_that_is_killed(trouble: str) -> None:
    code = f"""
        import sys, time
        sys.path.insert(0, {str(ROOT)!r})
        import numpy as np
        from stages.simulators.interface import Episode
        from stages.simulators.pool import SimulatorPool
        pool = SimulatorPool({COUNTING!r}, {{"trouble": {trouble!r}, "at": 1}}, 2, 2)
        pool.reset([0, 1], [Episode("count", 4)] * 2)
        pool.step_async([0, 1], np.zeros((2, 1, 3)))
        time.sleep(0.2)
        print(*pool.pids, flush=True)
        time.sleep(1000)
    """
    stage = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert stage.stdout is not None
    with stage:
        while not (words := stage.stdout.readline().split()) or not all(word.isdigit() for word in words):
            assert stage.poll() is None
        stage.kill()
    deadline = time.monotonic() + 10
    while alive := [pid for pid in words if _alive(int(pid))]:
        assert time.monotonic() < deadline, f"workers {alive} outlived their stage"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # whoever adopted it may not have reaped it yet

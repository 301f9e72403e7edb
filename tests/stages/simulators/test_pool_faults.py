"""The pool disturbed: workers crash, hang, return NaN or are killed, and no number changes."""

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
from stages.simulators.pool import SimulatorLost, SimulatorPool

FAKES = Path(__file__).parent
ROOT = FAKES.parents[2]
COUNTING = "fakesim.counting"
WORLDS, CHUNK, CHUNKS = 4, 3, 6
TURNS = 2 * CHUNKS  # two groups take turns


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
    seed, told = 0, []

    def start(slots: list[int], film: bool) -> None:
        nonlocal seed
        seeds = range(seed, seed + len(slots))
        seed += len(slots)
        seen = pool.reset(slots, [Episode("count", each) for each in seeds], [film] * len(slots))
        told.extend([seen.head, seen.wrist, seen.proprio])

    for slots in groups:
        start(slots, film=False)
    for turn in range(TURNS):
        slots = groups[turn % 2]
        if turn % 4 == 3:
            ticket: Any = pool.expert_async(slots, CHUNK)
        else:
            ticket = pool.step_async(slots, random.uniform(-1, 1, (len(slots), CHUNK, 3)))
        if kills and turn in kills:
            worker, delay = kills[turn]
            time.sleep(delay)
            os.kill(pool.pids[worker], signal.SIGKILL)
        stepped = pool.wait(ticket)
        result, seen = stepped.result, stepped.observation
        told += [result.rewards, result.executed, result.success, result.terminated, result.truncated]
        told += [seen.head, seen.wrist, seen.proprio, *(frame for world in result.frames for frame in world)]
        if turn % 4 == 3:
            told += [stepped.actions, stepped.clean]
        ended = [slot for slot, over in zip(slots, result.terminated | result.truncated, strict=True) if over]
        if ended:
            start(ended, film=turn == 4)
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


@pytest.mark.parametrize("trouble", ["crash", "segfault", "hang", "nan", "raise", "shape"])
def test_a_worker_in_trouble_is_replaced_and_nothing_changes(
    trouble: str, tmp_path: Path, undisturbed: list[np.ndarray]
) -> None:
    options = {"trouble": trouble, "at": 4, "marker": str(tmp_path / "happened")}
    with SimulatorPool(COUNTING, options, WORLDS, 2, timeout_s=2.0 if trouble == "hang" else 60.0) as pool:
        assert_same(play(pool), undisturbed)
        assert pool.restarts == 1


moments = st.dictionaries(
    st.integers(0, TURNS - 1), st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.0005, 0.002, 0.01])), max_size=4
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=moments)
def test_killing_workers_at_any_moment_changes_nothing(
    kills: dict[int, tuple[int, float]], undisturbed: list[np.ndarray]
) -> None:
    with SimulatorPool(COUNTING, {}, WORLDS, 2, max_restarts=10) as pool:
        assert_same(play(pool, kills), undisturbed)
        assert pool.restarts <= len(kills)


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
    with SimulatorPool(COUNTING, {"trouble": "crash", "at": 2}, 1, max_restarts=2, log_dir=tmp_path) as pool:
        pool.reset([0], [Episode("count", 4)])
        pool.step([0], np.zeros((1, 2, 3)))
        with pytest.raises(SimulatorLost, match="(?s)after 2 restarts: it exited with status 7.*trouble ahead"):
            pool.step([0], np.zeros((1, 2, 3)))
        assert pool.restarts == 2


def test_a_failing_simulator_tells_its_traceback() -> None:
    with SimulatorPool(COUNTING, {"trouble": "raise", "at": 1}, 1, max_restarts=0) as pool:
        pool.reset([0], [Episode("count", 4)])
        with pytest.raises(SimulatorLost, match="(?s)Traceback.*the engine lost its contacts"):
            pool.step([0], np.zeros((1, 2, 3)))


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

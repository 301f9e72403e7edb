"""The pool without disturbance: what goes in comes out, where it belongs, and users' mistakes are told in one line."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.simulators import interface
from stages.simulators.interface import Episode, SimulatorConfigError
from stages.simulators.pool import SimulatorLost, SimulatorPool, Start, Ticket

FAKES = Path(__file__).parent
COUNTING = "fakesim.counting"


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    monkeypatch.syspath_prepend(str(FAKES))


def episodes(*seeds: int) -> list[Episode]:
    return [Episode("count", seed) for seed in seeds]


def test_pool_returns_what_the_simulator_returns_in_the_order_of_the_slots() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 4, 3)).astype(np.float32)
    slots = [4, 0, 3, 1, 2]
    direct = interface.make(COUNTING, 5, {})
    direct.reset(slots, episodes(5, 6, 7, 8, 9), [False] * 5)
    first = direct.observe(slots)
    wanted = direct.step_chunk(slots, actions)
    after = direct.observe(slots)
    with SimulatorPool(COUNTING, {}, num_envs=5, num_workers=2) as pool:
        assert pool.spec == direct.spec
        seen = pool.reset(slots, episodes(5, 6, 7, 8, 9))
        stepped = pool.step(slots, actions)
        again = pool.observe([3])
    for name in ("head", "wrist", "proprio"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(first, name))
        np.testing.assert_array_equal(getattr(stepped.observation, name), getattr(after, name))
    for name in ("rewards", "executed", "success", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(stepped.result, name), getattr(wanted, name))
    np.testing.assert_array_equal(again.proprio[0], after.proprio[2])


def test_worlds_that_rest_show_nothing_and_truncated_ones_are_seen_once_more() -> None:
    with SimulatorPool(COUNTING, {}, num_envs=3) as pool:
        pool.reset(range(3), episodes(1, 4, 14))  # done after 4 steps, never, after 17
        stepped = pool.step(range(3), np.zeros((3, 8, 3)))
        assert stepped.result.terminated.tolist() == [True, False, False]
        assert stepped.result.executed.sum(axis=1).tolist() == [4, 8, 8]
        assert not stepped.observation.proprio[0].any()
        assert not stepped.observation.head[0].any()
        assert stepped.observation.proprio[1:].any(axis=1).all()
        assert not stepped.last
        stepped = pool.step([2, 1], np.zeros((2, 12, 3)))
        assert stepped.result.truncated.tolist() == [False, True]
        assert not stepped.observation.proprio.any()
        assert list(stepped.last) == [1]
        np.testing.assert_array_equal(stepped.last[1].proprio, pool.observe([1]).proprio[0])


def test_a_worker_is_at_its_next_command_while_an_answer_is_copied_and_spoils_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    marker, fill, actions = tmp_path / "second chunk", Ticket.fill, np.full((1, 4, 3), 0.5, np.float32)

    def slow(*arguments: Any) -> None:
        deadline = time.monotonic() + 20
        while "rewards" in arguments[2].arrays and not marker.exists():
            assert time.monotonic() < deadline, "the worker waits until its answer is copied"
            time.sleep(0.01)
        time.sleep(0.2)  # in which the second answer is written
        fill(*arguments)

    monkeypatch.setattr(Ticket, "fill", slow)
    direct = interface.make(COUNTING, 2, {})
    direct.reset([0, 1], episodes(5, 6), [False] * 2)
    with SimulatorPool(COUNTING, {"at": 2, "marker": str(marker)}, num_envs=2) as pool:
        pool.reset([0, 1], episodes(5, 6))
        tickets = [pool.step_async([slot], actions) for slot in (0, 1)]
        for slot, ticket in enumerate(tickets):
            stepped = pool.wait(ticket)
            np.testing.assert_array_equal(stepped.result.rewards, direct.step_chunk([slot], actions).rewards)
            np.testing.assert_array_equal(stepped.observation.head, direct.observe([slot]).head)


@pytest.mark.parametrize("expert", [False, True])
def test_an_episode_that_follows_is_the_same_as_after_a_reset(expert: bool) -> None:
    """Seeds 1, 4 and 14 end after 4, 20 (cut off) and 17 steps."""
    slots, first, next_ = [2, 0, 1], episodes(1, 4, 14), episodes(21, 22, 23)

    def chunk(pool: SimulatorPool, slots: list[int], length: int, follow: list[Start | None]) -> Any:
        if expert:
            return pool.expert(slots, length, follow)
        return pool.step(slots, np.full((len(slots), length, 3), 0.5), follow)

    with SimulatorPool(COUNTING, {}, 3, 2) as pool, SimulatorPool(COUNTING, {}, 3) as apart:
        for each in (pool, apart):
            each.reset(slots, first)
        stepped = chunk(pool, slots, 20, [Start(next_[0]), Start(next_[1], film=True), None])
        alone = chunk(apart, slots, 20, [])
        seen = apart.reset(slots[:2], next_[:2], [False, True])
        assert stepped.restarted.tolist() == [True, True, False]
        assert not alone.restarted.any()
        for name in ("head", "wrist", "proprio"):
            np.testing.assert_array_equal(getattr(stepped.observation, name)[:2], getattr(seen, name))
            assert not getattr(stepped.observation, name)[2].any()
            np.testing.assert_array_equal(getattr(stepped.last[1], name), getattr(alone.last[1], name))
        assert list(stepped.last) == [1]
        after, alone_after = (chunk(each, slots[:2], 3, []) for each in (pool, apart))
        np.testing.assert_array_equal(after.observation.proprio, alone_after.observation.proprio)
        assert [len(frames) for frames in after.result.frames] == [0, 3]
        assert pool.step([2, 0], np.zeros((2, 1, 3)), [Start(next_[0])] * 2).restarted.tolist() == [False, False]


def test_only_filmed_worlds_return_frames_one_an_executed_step() -> None:
    with SimulatorPool(COUNTING, {}, num_envs=4, num_workers=2) as pool:
        pool.reset([3, 2, 1, 0], episodes(1, 2, 3, 4), film=[True, False, False, True])
        frames = pool.step([3, 2, 1, 0], np.zeros((4, 8, 3))).result.frames
        assert [len(world) for world in frames] == [4, 0, 0, 8]
        assert [int(frame[0, 0, 0]) for frame in frames[3]] == list(range(1, 9))
        assert frames[0][0].shape == (448, 672, 3)


def test_answers_are_not_overwritten_by_later_ones() -> None:
    with SimulatorPool(COUNTING, {}, num_envs=2) as pool:
        first = pool.reset([0, 1], episodes(1, 2), film=[True, True])
        kept = first.proprio.copy()
        frames = pool.step([0, 1], np.ones((2, 2, 3))).result.frames
        pool.step([0, 1], np.ones((2, 2, 3)))
        np.testing.assert_array_equal(first.proprio, kept)
        assert [int(frame[0, 0, 0]) for frame in frames[1]] == [1, 2]


def test_workers_simulate_at_the_same_time() -> None:
    with SimulatorPool(COUNTING, {"delay": 1.0}, num_envs=4, num_workers=2) as pool:
        pool.reset(range(4), episodes(4, 8, 12, 16))
        start = time.monotonic()
        tickets = [pool.step_async(slots, np.zeros((2, 1, 3))) for slots in ([0, 1], [2, 3])]
        assert time.monotonic() - start < 0.8
        for ticket in tickets:
            pool.wait(ticket)
        assert time.monotonic() - start < 1.9


def test_commands_of_two_groups_in_one_worker_wait_for_each_other() -> None:
    with SimulatorPool(COUNTING, {}, num_envs=2) as pool, SimulatorPool(COUNTING, {}, num_envs=2) as serial:
        for each in (pool, serial):
            each.reset([0, 1], episodes(4, 8))
        first, second = pool.step_async([0], np.ones((1, 3, 3))), pool.step_async([1], np.ones((1, 3, 3)))
        late, early = pool.wait(second), pool.wait(first)
        np.testing.assert_array_equal(early.result.rewards, serial.step([0], np.ones((1, 3, 3))).result.rewards)
        np.testing.assert_array_equal(late.result.rewards, serial.step([1], np.ones((1, 3, 3))).result.rewards)


@pytest.mark.parametrize(
    ("name", "options", "python", "words"),
    [
        ("nowhere.at_all", {}, None, "no simulator is called 'nowhere.at_all'"),
        ("../counting", {}, None, "no simulator is called"),
        (COUNTING, {"colour": 1}, None, "simulator.colour: the counting simulator has no such option"),
        (COUNTING, {}, "/no/such/python", "simulator.python: '/no/such/python' cannot be run"),
    ],
)
def test_mistakes_in_the_config_are_told_in_one_line(
    name: str, options: dict[str, int], python: str | None, words: str
) -> None:
    with pytest.raises(SimulatorConfigError, match=words) as caught:
        SimulatorPool(name, options, num_envs=2, num_workers=2, python=python)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter without any packages."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return str(folder / "bin/python")


@pytest.mark.parametrize("lacking", ["numpy", "mujoco"])
def test_an_interpreter_that_lacks_what_it_takes_is_told_in_one_line(
    lacking: str, bare_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking == "mujoco":
        for name in ("numpy", "numpy.libs"):
            (tmp_path / name).symlink_to(Path(np.__file__).parents[1] / name)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SimulatorConfigError, match=rf"simulator.python: {bare_python} .*{lacking}.*install") as caught:
        SimulatorPool("household", {}, num_envs=1, python=bare_python)
    assert "\n" not in str(caught.value)


def test_a_program_that_is_no_python_is_given_up_after_three_tries(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho this is not the interpreter you want\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(
        SimulatorLost, match="failed 3 times in a row, at last coming up: it exited with status 3"
    ) as lost:
        SimulatorPool(COUNTING, {}, num_envs=1, python=str(program), log_dir=tmp_path)
    assert lost.value.details == "this is not the interpreter you want"
    assert "\n" not in str(lost.value)


def test_a_refused_command_leaves_the_pool_usable() -> None:
    with SimulatorPool(COUNTING, {}, num_envs=1) as pool:
        with pytest.raises(SimulatorConfigError, match="no task 'dance'"):
            pool.reset([0], [Episode("dance", 1)])
        assert pool.reset([0], episodes(1)).proprio.any()
        assert pool.restarts == 0


def test_misuse_is_refused_before_it_reaches_a_worker() -> None:
    with pytest.raises(SimulatorConfigError, match="3 simulator workers cannot share 2 environments"):
        SimulatorPool(COUNTING, {}, num_envs=2, num_workers=3)
    with SimulatorPool(COUNTING, {}, num_envs=2) as pool:
        pool.reset([0, 1], episodes(1, 2))
        with pytest.raises(ValueError, match=r"actions are \[1, 2, 4\], wanted \[1, K, 3\]"):
            pool.step([0], np.zeros((1, 2, 4)))
        with pytest.raises(ValueError, match="2 slots and 1 episodes that follow"):
            pool.step([0, 1], np.zeros((2, 2, 3)), [None])
        with pytest.raises(ValueError, match="NaN"):
            pool.step([0], np.full((1, 2, 3), np.nan))
        for slots in ([2], [-1], [0, 0]):
            with pytest.raises(ValueError, match="wanted different ones of 0 to 1"):
                pool.observe(slots)
        assert pool.restarts == 0
    with pytest.raises(RuntimeError, match="closed"):
        pool.observe([0])


def test_a_simulator_that_says_why_it_cannot_start_is_not_tried_again() -> None:
    start = time.monotonic()
    with pytest.raises(SimulatorLost, match="no graphics card"):
        SimulatorPool(COUNTING, {"trouble": "no start"}, num_envs=1, max_restarts=1000)
    assert time.monotonic() - start < 20


def test_workers_keep_to_one_thread_and_write_their_logs(tmp_path: Path) -> None:
    with SimulatorPool(COUNTING, {}, 2, 2, log_dir=tmp_path, environments=[{"BATON_TEST": "yes"}] * 2) as pool:
        variables = Path(f"/proc/{pool.pids[0]}/environ").read_text().split("\0")
        assert "OMP_NUM_THREADS=1" in variables
        assert "BATON_TEST=yes" in variables
        pool.reset([0, 1], episodes(1, 2))
        assert all(10 << 20 < peak < 1 << 30 for peak in pool.peak_rss)
    assert [(tmp_path / f"simulator-{index}.log").read_text() for index in (0, 1)] == ["counting is up\n"] * 2


def test_a_worker_with_a_card_of_its_own_draws_on_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "3")
    with SimulatorPool(COUNTING, {}, 2, 2, environments=[{"CUDA_VISIBLE_DEVICES": "GPU-1234"}, {}]) as pool:
        own, other = (Path(f"/proc/{pid}/environ").read_text().split("\0") for pid in pool.pids)
    assert "CUDA_VISIBLE_DEVICES=GPU-1234" in own
    assert "MUJOCO_EGL_DEVICE_ID=3" not in own
    assert "MUJOCO_EGL_DEVICE_ID=3" in other


def test_nothing_is_left_after_closing() -> None:
    before = set(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd"))
    pool = SimulatorPool(COUNTING, {}, num_envs=2, num_workers=2)
    pool.reset([0, 1], episodes(1, 2))
    pids = pool.pids
    pool.close()
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert len(os.listdir("/proc/self/fd")) == before[1]
    assert not {name for name in set(os.listdir("/dev/shm")) - before[0] if name.startswith("baton")}


def test_closing_does_not_wait_for_a_simulator_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.simulators.pool.CLOSE_SECONDS", 0.3)
    pool = SimulatorPool(COUNTING, {"close_delay": 1000.0}, num_envs=1)
    pid, start = pool.pids[0], time.monotonic()
    pool.close()
    assert time.monotonic() - start < 4
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(("module", "needs"), [("worker", ["stages"]), ("serving", ["numpy", "stages"])])
def test_worker_imports_nothing_but_numpy_and_the_standard_library(module: str, needs: list[str]) -> None:
    code = (
        f"import sys, stages.simulators.{module}\n"
        "names = {name.partition('.')[0] for name, module in sys.modules.items() if hasattr(module, '__file__')}\n"
        "print(*sorted(names - set(sys.stdlib_module_names)))"
    )
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-S", "-c", code]
    paths = os.pathsep.join([str(root), str(Path(np.__file__).parents[1])])
    done = subprocess.run(command, env={"PYTHONPATH": paths}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == needs

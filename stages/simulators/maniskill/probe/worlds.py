"""Checks of worlds that stand: what they show, whether they do as told and again the same, how fast, in what memory."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.simulators.interface import Episode, Observation, Simulator
from stages.simulators.maniskill.catalogue import ARM_ACTIONS, ARM_PROPRIO
from stages.simulators.maniskill.probe.order import MOTION, PICTURES, REPEATED, SPEED, START
from stages.simulators.probing import Finding

SEED, OTHER = 0, 1
CHUNK = 4
HAND = slice(9, 12)  # of an arm's proprioception: where its hand is
FINGERS = slice(7, 9)
LEAST_RISE = 0.02  # metres, of the hand that is told to go up
LEAST_OPENING = 0.01  # metres, of the fingers
RESETS = 50
MUCH_A_RESET = 1.0  # MB


@dataclasses.dataclass(frozen=True)
class Begun:
    """Worlds, and the finding that they stand."""

    simulator: Simulator
    finding: Finding


def begin(make: Callable[[int, Mapping[str, Any]], Simulator], num_envs: int, options: Mapping[str, Any]) -> Begun:
    """Build the worlds."""
    start = time.monotonic()
    simulator = make(num_envs, options)
    spec = simulator.spec
    words = f"{num_envs} worlds within {time.monotonic() - start:.1f} s, {spec.version}"
    return Begun(simulator, Finding(START, "pass", words))


def checks(simulator: Simulator, steps: int) -> Iterator[Finding]:
    """Make the checks.

    Args:
        simulator: as it is once built.
        steps: over how many its speed is measured.
    """
    yield _pictures(simulator)
    yield _motion(simulator)
    yield _repeated(simulator)
    yield _speed(simulator, steps)


def _pictures(simulator: Simulator) -> Finding:
    """Whether cameras show something, and something else in another episode."""
    start = time.monotonic()
    seen = [_begin(simulator, seed) for seed in (SEED, OTHER)]
    seconds = time.monotonic() - start
    cameras = {"head": [one.head for one in seen]}
    cameras |= {f"wrist {row}": [one.wrist[:, row] for one in seen] for row in range(simulator.spec.wrist_cameras)}
    for name, (first, second) in cameras.items():
        if first.std() < 1:
            return Finding(PICTURES, "fail", f"the {name} camera shows one colour only", "try renderer: cpu")
        if np.array_equal(first, second):
            remedy = "the tasks draw no two initial states here; give the versions above"
            return Finding(PICTURES, "warn", f"the {name} camera shows the same in two episodes", remedy)
    height, width = simulator.spec.image_size
    words = f"{', '.join(cameras)} of {height} x {width}, the first two within {seconds:.1f} s"
    return Finding(PICTURES, "pass", words)


def _motion(simulator: Simulator) -> Finding:
    """Whether hands go up and fingers open when told to, each arm by its own numbers."""
    arms = simulator.spec.action_dim // ARM_ACTIONS
    for arm in range(arms):
        before = _felt(_begin(simulator, SEED), arm)
        action = np.zeros(simulator.spec.action_dim, np.float32)
        action[arm * ARM_ACTIONS + 2], action[6::ARM_ACTIONS] = 1.0, -1.0
        _do(simulator, action)
        shut = _felt(simulator.observe([0]), arm)
        action[arm * ARM_ACTIONS + 2], action[arm * ARM_ACTIONS + 6] = 0.0, 1.0
        _do(simulator, action)
        opened = _felt(simulator.observe([0]), arm)
        rise, opening = (shut - before)[HAND][2], (opened - shut)[FINGERS].sum()
        if rise < LEAST_RISE or opening < LEAST_OPENING:
            found = (
                f"{CHUNK} steps moved hand {arm} up by {100 * rise:.1f} cm, {CHUNK} opened it by {100 * opening:.1f} cm"
            )
            return Finding(MOTION, "fail", found, "another version counts in another way: baton env create maniskill")
    return Finding(MOTION, "pass", f"{arms} arm{'s' * (arms > 1)}: hands go up and fingers open when told to")


def _repeated(simulator: Simulator) -> Finding:
    """Whether the same episode and actions give the same numbers and pictures."""
    stream = np.random.default_rng(SEED)
    actions = stream.uniform(-1, 1, (CHUNK, simulator.spec.action_dim)).astype(np.float32)
    seen = []
    for _ in range(2):
        _begin(simulator, SEED)
        _do(simulator, actions)
        seen.append(simulator.observe([0]))
    first, second = seen
    alike = np.array_equal(first.proprio, second.proprio)
    if alike and np.array_equal(first.head, second.head) and np.array_equal(first.wrist, second.wrist):
        return Finding(REPEATED, "pass", "the same episode and actions give the same numbers and pictures")
    what = "pictures" if alike else "numbers"
    if not simulator.spec.deterministic:
        return Finding(REPEATED, "pass", f"the same episode and actions give other {what}, as is known of this backend")
    return Finding(
        REPEATED, "warn", f"the same episode and actions give other {what}", "results differ from run to run"
    )


def _speed(simulator: Simulator, steps: int) -> Finding:
    """Steps and decisions a second, and what memory grows by over resets."""
    slots = list(range(simulator.num_envs))
    still = np.zeros((len(slots), CHUNK, simulator.spec.action_dim), np.float32)
    _reset(simulator, SEED)
    start, done = time.monotonic(), 0
    while done < steps:
        result = simulator.step_chunk(slots, still)
        done += int(result.executed.sum())
        if (result.terminated | result.truncated).any():
            _reset(simulator, done)
    stepping = done / (time.monotonic() - start)
    start = time.monotonic()
    for _ in range(3):
        simulator.observe(slots)
    looking = 3 * len(slots) / (time.monotonic() - start)
    held = _memory()
    for seed in range(RESETS):
        _reset(simulator, seed)
    grown = (_memory() - held) / RESETS
    words = (
        f"{stepping:.0f} steps a second without pictures, {looking:.1f} looks a second, {_memory() / 1000:.1f} GB; "
        f"over {RESETS} resets memory grew by {1000 * grown:.0f} kB each"
    )
    if grown > MUCH_A_RESET:
        return Finding(SPEED, "warn", words, "set simulator.recycle_episodes so that processes are replaced in time")
    return Finding(SPEED, "pass", words)


def _begin(simulator: Simulator, seed: int) -> Observation:
    _reset(simulator, seed)
    return simulator.observe([0])


def _reset(simulator: Simulator, seed: int) -> None:
    slots = list(range(simulator.num_envs))
    names = [task.name for task in simulator.spec.tasks]
    episodes = [Episode(names[slot % len(names)], seed) for slot in slots]
    simulator.reset(slots, episodes, [False] * len(slots))


def _do(simulator: Simulator, action: np.ndarray) -> None:
    simulator.step_chunk([0], np.broadcast_to(action, (1, CHUNK, simulator.spec.action_dim)).copy())


def _felt(seen: Observation, arm: int) -> np.ndarray:
    return seen.proprio[0, arm * ARM_PROPRIO : (arm + 1) * ARM_PROPRIO]


def _memory() -> float:
    """MB of main memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

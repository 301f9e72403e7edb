"""Checks 2 to 9: of an environment that was built, made one after the other in the simulator's own process."""

from __future__ import annotations

import dataclasses
import inspect
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson import observations, robot
from stages.simulators.omnigibson.actions import ActionMapping
from stages.simulators.omnigibson.options import Options
from stages.simulators.omnigibson.probe import goals, machine
from stages.simulators.omnigibson.probe.order import (
    INSTANCES,
    LIMIT,
    MOTION,
    OBSERVATIONS,
    PICTURES,
    ROBOT,
    SPEED,
    START,
)
from stages.simulators.omnigibson.proprioception import Selection
from stages.simulators.omnigibson.robot import ARMS, EE_DELTA
from stages.simulators.omnigibson.worlds import Worlds
from stages.simulators.probing import Finding

KNOWN = {"actions", "action", "env_indices", "get_obs", "render", "n_render_iterations"}
LEAST_MEAN, LEAST_SPREAD = 8.0, 1.0  # of a picture's numbers, 0 to 255
STILL_STEPS, MOVING_STEPS, GRIPPER_STEPS = 30, 5, 20
MOST_DRIFT, LEAST_MOVE, LEAST_OPENING = 0.01, 0.01, 0.01  # metres
MOST_TURN = 0.02  # rad that a held joint may move
SLOW_MS = 250.0
LEAK_MB, MUCH_LEAK_MB = 0.1, 1.0  # a step
SAY_WHICH = "say which build it is in an issue of Baton"


@dataclasses.dataclass
class Subject:
    """What is looked at.

    Attributes:
        worlds: the environment.
        options: of the config, with the probe's own step limit.
        steps: how many to measure speed and memory over.
    """

    worlds: Worlds
    options: Options
    steps: int

    def __post_init__(self) -> None:
        """Note what is used throughout."""
        self.mapping = ActionMapping(self.options.action_mode, self.options.trunk)
        self.selection = Selection(self.options.proprio_keys)
        self._instance = 0  # the scene as it is stored, which it was built with

    def fresh(self, instance: int | None = None) -> None:
        """Put the first world at the start of an instance; None: of the one it is in."""
        self._instance = self._instance if instance is None else instance
        self.worlds.reset(0, self._instance)
        self.worlds.settle()

    def act(self, action: np.ndarray, steps: int, draw: bool = False) -> None:
        """Give the first world the same command for some steps; the others get the same."""
        for _ in range(steps):
            self.worlds.step(np.stack([action] * self.worlds.num_envs).astype(np.float32), draw)

    def still(self, gripper: float = 1.0) -> np.ndarray:
        """The command that holds the first world still, with its grippers at a number."""
        return self.mapping.hold(self.worlds.joints(0), np.full(2, gripper))

    def hand(self, arm: str) -> np.ndarray:
        """Where a hand is in the frame of the base, [3]."""
        position, _ = self.worlds.robots[0].get_relative_eef_pose(arm)
        return observations.to_numpy(position).astype(np.float64)


def checks(subject: Subject) -> Iterator[Finding]:
    """Make checks 3 to 9.

    Args:
        subject: what is looked at.

    Yields:
        What each came to. What goes wrong while one is made is what it found.
    """
    fits = True
    for name, check in (
        (ROBOT, of_robot),
        (OBSERVATIONS, of_observations),
        (PICTURES, of_pictures),
        (MOTION, of_motion),
        (LIMIT, of_limit),
        (INSTANCES, of_instances),
        (SPEED, of_speed),
    ):
        if not fits and name in (MOTION, LIMIT, SPEED):
            yield Finding(name, "skip", "a robot that takes other numbers was not moved", "first mend the robot")
            continue
        finding = guarded(name, lambda check=check: check(subject))  # type: ignore[misc]
        fits = fits and (name, finding.verdict) != (ROBOT, "fail")
        yield finding


def guarded(name: str, check: Callable[[], Finding]) -> Finding:
    """A check; whatever it meets becomes its finding."""
    try:
        return check()
    except SimulatorConfigError as error:
        return Finding(name, "fail", str(error).removeprefix("omnigibson: "), SAY_WHICH)
    except Exception as error:  # of a foreign library, which may raise anything
        return Finding(name, "fail", f"{type(error).__name__}: {error}".splitlines()[0], SAY_WHICH)


def of_start(worlds: Worlds, seconds: float) -> Finding:
    """The interface of what was built: Baton knows the keywords of its steps."""
    unknown = []
    for method in (worlds.environment.step, worlds.environment.reset):
        for parameter in inspect.signature(method).parameters.values():
            needed = parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            )
            if needed and parameter.name not in KNOWN:
                unknown.append(f"{method.__name__}({parameter.name})")
    kind = type(worlds.environment).__name__
    words = ", ".join(inspect.signature(worlds.environment.step).parameters)
    count = f"{worlds.num_envs} world{'' if worlds.num_envs == 1 else 's'}"
    found = f"{count} of {kind} {worlds.version} in {seconds:.0f} s, step({words})"
    if unknown:
        remedy = "use a build that Baton knows: `baton env create omnigibson` installs one"
        return Finding(START, "fail", f"{found}: it needs {', '.join(unknown)}, which Baton does not give", remedy)
    return Finding(START, "pass", found)


def of_robot(subject: Subject) -> Finding:
    """Check 3: controllers, their order and their numbers; bounds that let a command through."""
    one = subject.worlds.robots[0]
    dims = {name: int(controller.command_dim) for name, controller in one.controllers.items()}
    try:
        subject.mapping.check(list(one.controller_order), dims, int(one.action_dim))
    except SimulatorConfigError as error:
        found, _, remedy = str(error).removeprefix("omnigibson: ").rpartition(": ")
        return Finding(ROBOT, "fail", found, remedy.partition(", or run")[0])
    order = ", ".join(f"{name} {dims[name]}" for name in one.controller_order)
    return Finding(ROBOT, "pass", f"it takes {one.action_dim} numbers: {order}")


def of_observations(subject: Subject) -> Finding:
    """Check 4: three cameras, bytes of the asked size, and the numbers of proprioception."""
    subject.fresh()
    subject.worlds.render(subject.options.renders_per_observation)
    seen = subject.worlds.look(0)
    size = subject.options.image_size
    observations.pictures(seen, size)
    told = observations.proprioception(seen)
    subject.selection.take(told)
    return Finding(OBSERVATIONS, "pass", f"3 pictures of {size} x {size} and {told.size} numbers of proprioception")


def of_pictures(subject: Subject) -> Finding:
    """Check 5: nothing is black or of one colour, and the head sees as wide as the demonstrations."""
    subject.fresh()
    subject.worlds.render(subject.options.renders_per_observation)
    planes = observations.pictures(subject.worlds.look(0), subject.options.image_size).astype(np.float64)
    means, spreads = planes.mean(axis=(1, 2, 3)), planes.std(axis=(1, 2, 3))
    names = ("head", "left wrist", "right wrist")
    words = ", ".join(f"{n} {m:.0f} +- {s:.0f}" for n, m, s in zip(names, means, spreads, strict=True))
    if (means < LEAST_MEAN).any() or (spreads < LEAST_SPREAD).any():
        dark = [n for n, m, s in zip(names, means, spreads, strict=True) if m < LEAST_MEAN or s < LEAST_SPREAD]
        remedy = "install libegl1, libvulkan1, libsm6 and libglu1-mesa, and NVIDIA_DRIVER_CAPABILITIES=all"
        return Finding(PICTURES, "fail", f"{' and '.join(dark)} show nothing (brightness: {words})", remedy)
    (head,) = [one for name, one in subject.worlds.robots[0].sensors.items() if name.endswith(robot.HEAD)]
    aperture = float(head.horizontal_aperture)
    if abs(aperture - robot.HEAD_APERTURE) > 0.1:
        found = f"the head's aperture is {aperture:g} mm, the demonstrations have {robot.HEAD_APERTURE:g}"
        return Finding(PICTURES, "fail", found, SAY_WHICH)
    return Finding(PICTURES, "pass", f"brightness: {words}; the head's aperture is {aperture:g} mm")


def of_motion(subject: Subject) -> Finding:
    """Check 6: holding still holds, +x of a hand goes forward, and 1 opens the grippers."""
    subject.fresh()
    before, joints = {arm: subject.hand(arm) for arm in ARMS}, subject.worlds.joints(0)
    hands = subject.options.action_mode == EE_DELTA
    subject.act(subject.mapping.command(_grippers(subject, 1.0)) if hands else subject.still(), STILL_STEPS)
    drift = max(float(np.linalg.norm(subject.hand(arm) - before[arm])) for arm in ARMS)
    turned = float(np.abs(subject.worlds.joints(0)[6:24] - joints[6:24]).max())
    if drift > MOST_DRIFT or (not hands and turned > MOST_TURN):
        found = f"a robot told to hold still moved a hand {100 * drift:.1f} cm in {STILL_STEPS} steps"
        return Finding(MOTION, "fail", found, "set simulator.options.trunk=joint_controller, or use joint_23")
    words = f"a hand drifts {1000 * drift:.1f} mm in {STILL_STEPS} steps"
    if hands:
        start = subject.hand("right")
        forward = _grippers(subject, 1.0)
        forward[7] = 1.0
        subject.act(subject.mapping.command(forward), MOVING_STEPS)
        moved = subject.hand("right") - start
        if moved[0] < LEAST_MOVE or moved[0] < np.abs(moved[1:]).max():
            centimetres = ", ".join(f"{100 * number:.1f}" for number in moved)
            found = f"{MOVING_STEPS} steps of +x moved the right hand by ({centimetres}) cm"
            return Finding(MOTION, "fail", found, f"this build counts in another frame; {SAY_WHICH}")
        words += f", +x moves it {100 * moved[0]:.1f} cm forward"
    openings = []
    for number in (-1.0, 1.0):
        subject.act(subject.still(number), GRIPPER_STEPS)
        openings.append(float(subject.worlds.joints(0)[robot.FINGER_JOINTS["right"]].sum()))
    if openings[1] - openings[0] < LEAST_OPENING:
        found = f"gripper number 1 leaves {100 * openings[1]:.1f} cm between fingers, -1 leaves {100 * openings[0]:.1f}"
        return Finding(MOTION, "fail", found, f"this build turns the sign around; {SAY_WHICH}")
    return Finding(MOTION, "pass", f"{words}, 1 opens the grippers by {100 * (openings[1] - openings[0]):.1f} cm")


def of_limit(subject: Subject) -> Finding:
    """Check 7: an episode is cut off exactly at the limit, and outcomes say whether it succeeded."""
    subject.fresh()
    limit = subject.worlds.files.limit
    still = np.stack([subject.still()] * subject.worlds.num_envs)
    cuts = (step for step in range(1, limit + 3) if subject.worlds.step(still, draw=False)[0].truncated)
    step = next(cuts, None)
    if step == limit:
        return Finding(LIMIT, "pass", f"an episode of {limit} steps ends at step {limit}, with its success")
    when = f"at step {step}" if step else f"not within {limit + 2}"
    found = f"an episode of {limit} steps ends {when}"
    return Finding(LIMIT, "fail", found, f"Baton counts steps itself, but episodes may end early; {SAY_WHICH}")


def of_instances(subject: Subject) -> Finding:
    """Check 8: initial states differ, and the goal has as many predicates as BDDL says."""
    files = subject.worlds.files
    if len(files.train) < 2:
        found = f"{files.activity.name} has only the initial state {files.train[0]} to train on"
        return Finding(INSTANCES, "warn", found, f"complete the data: the files of instances in {files.directory}")
    first, second = files.train[:2]
    poses = []
    for instance in (first, second):
        subject.fresh(instance)
        poses.append(np.concatenate([_position(one) for one in _things(subject)] or [np.zeros(0)]))
    words = f"instances {first} and {second} of {files.activity.name}"
    if poses[0].size == 0 or np.allclose(poses[0], poses[1], atol=1e-4):
        remedy = f"complete the data: the files of instances in {files.directory}"
        return Finding(INSTANCES, "fail", f"{words} have every object in the same place", remedy)
    there = len(subject.worlds.predicates(0)[0])
    expected = goals.predicates(files.activity.name, files.definition)
    if expected is None:
        return Finding(INSTANCES, "pass", f"{words} differ; {there} predicates in the goal (no bddl to compare with)")
    if there != expected.number:
        found = f"the goal of {files.activity.name} has {there} predicates, BDDL says {expected.number}"
        remedy = "install the bddl that belongs to this OmniGibson"
        return Finding(INSTANCES, "warn" if expected.open_ended else "fail", found, remedy)
    return Finding(INSTANCES, "pass", f"{words} differ; {there} predicates in the goal, as BDDL says")


def of_speed(subject: Subject) -> Finding:
    """Check 9: milliseconds a step with and without drawing, and what memory grows by."""
    subject.fresh()
    still = subject.still()
    few = min(50, subject.steps)
    times = {}
    for draw in (True, False):
        begin = time.monotonic()
        subject.act(still, few, draw)
        times[draw] = 1000 * (time.monotonic() - begin) / few
    before, held = machine.memory(), machine.gpu_memory({os.getpid()})
    subject.act(still, subject.steps)
    slope = (machine.memory() - before) / subject.steps
    graphics = machine.gpu_memory({os.getpid()})
    words = (
        f"{times[True]:.1f} ms a step drawn, {times[False]:.1f} ms not; over {subject.steps} steps memory grew by "
        f"{slope * 1000:.0f} kB a step, graphics memory by {graphics - held:.0f} to {graphics:.0f} MiB"
    )
    if slope > LEAK_MB:
        remedy = "set simulator.recycle_episodes so that processes are replaced in time"
        return Finding(SPEED, "fail" if slope > MUCH_LEAK_MB else "warn", words, remedy)
    if times[False] > SLOW_MS:
        remedy = "fewer processes a node, caps on threads (simulator.options.carb_threads), or faster cores"
        return Finding(SPEED, "warn", words, remedy)
    return Finding(SPEED, "pass", words)


def _grippers(subject: Subject, number: float) -> np.ndarray:
    """A policy's action that moves nothing and has the grippers at a number."""
    action = np.zeros(subject.mapping.policy_dim, np.float32)
    action[[6, 13]] = number
    return action


def _things(subject: Subject) -> list[Any]:
    """Objects of the task that are somewhere: neither robots, systems nor what does not exist yet."""
    robots = {id(one) for one in subject.worlds.robots}
    scope = [getattr(one, "wrapped_obj", one) for _, one in sorted(subject.worlds.scope(0).items())]
    return [one for one in scope if id(one) not in robots and hasattr(one, "get_position_orientation")]


def _position(thing: Any) -> np.ndarray:
    return observations.to_numpy(thing.get_position_orientation()[0]).astype(np.float64)

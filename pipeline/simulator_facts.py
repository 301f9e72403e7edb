"""What is known of Baton's own simulators before one is up, and the configs that contradict it."""

from __future__ import annotations

import dataclasses

from pipeline import environments, simulator_options
from pipeline.config import Config, Simulator
from pipeline.errors import UserError
from pipeline.tasks import catalogue


@dataclasses.dataclass(frozen=True)
class Robot:
    """A robot's numbers.

    Attributes:
        actions: A, numbers of an action.
        wrist_cameras: V, cameras beside the head's.
    """

    actions: int
    wrist_cameras: int


ROBOTS: dict[str, dict[str | None, Robot]] = {
    "household": {None: Robot(14, 2)},
    "omnigibson": {"ee_delta_14": Robot(14, 2), "joint_23": Robot(23, 2)},
    "libero": {None: Robot(7, 1)},
    "maniskill": {"two_robot": Robot(14, 2), "single_arm": Robot(7, 1)},
}
"""Simulator -> its robots: by its `action_mode`, the default first, by the suite of its tasks, or the only one."""
EXPERTS: dict[str, tuple[str, ...]] = {
    "omnigibson": (),
    "libero": ("libero_spatial", "libero_object"),
    "maniskill": ("two_robot", "PickCube-v1", "StackCube-v1", "PushCube-v1", "PullCube-v1"),
}
"""Simulator -> its suites and tasks that a scripted expert solves; those left out have one for every task."""
HELD_OUT_STATES = {"libero": 50}
"""Simulator -> the initial states of a task that its suites' files fix for evaluation, where they do."""
UNLIKE_WORLDS = ("PegInsertionSide-v1",)
"""Tasks that draw the sizes of things world by world, when a scene of many worlds is built, and not by episode."""
MIRRORED = ("household",)
"""Simulators whose robot has two arms that are each other's mirror images, so that `sft.mirror` can turn them round."""
ISOLATED = ("libero", "maniskill")
"""Simulators whose packages cannot be installed beside Baton's own."""


def suites(simulator: Simulator) -> dict[str, str]:
    """Task -> suite, of a config's tasks; those that the simulator does not list are left out."""
    listed = {task.task_name: task.suite for task in catalogue(simulator.name) or ()}
    return {task: listed[task] for task in simulator.tasks if task in listed}


def robot(simulator: Simulator) -> Robot | None:
    """The robot that a config's tasks are done by; None where it is not known."""
    robots = ROBOTS.get(simulator.name, {})
    keys = [simulator.options.get("action_mode", next(iter(robots), None)), *suites(simulator).values()]
    found = next((robots[key] for key in reversed(keys) if key in robots), None)
    chosen = simulator.options.get("wrist_cameras")
    return found if found is None or chosen is None else dataclasses.replace(found, wrist_cameras=chosen)


def one_clock(simulator: Simulator) -> bool:
    """Whether the worlds of a process are stepped all together."""
    return simulator.name == "omnigibson" or simulator.options.get("backend") == "physx_cuda"


def check(config: Config) -> None:
    """Refuse what the simulator cannot do, or what would make an evaluation worthless.

    Raises:
        UserError: one line with the key, its value and the remedy.
    """
    _check_robot(config)
    _check_limits(config)
    _check_backend(config)
    _check_expert(config)
    _check_mirror(config)
    _check_states(config)


def require_environment(config: Config) -> None:
    """Refuse a simulator that has no interpreter to run in.

    Raises:
        UserError: its environment is not built, and no other interpreter is named.
    """
    name = config.simulator.name
    if name in ISOLATED and config.simulator.python is None:
        raise UserError(
            f"simulator.python: the environment of {name} is not built, there is no {environments.root() / name}: "
            f"run `baton env create {name}`, or name an interpreter that has it"
        )


def _check_robot(config: Config) -> None:
    """Actions of another length, more images than cameras, two robots at once."""
    simulator, policy = config.simulator, config.policy
    several = list(dict.fromkeys(suites(simulator).values()))
    if len(several) > 1 and set(several) <= ROBOTS.get(simulator.name, {}).keys():
        raise UserError(
            f"simulator.tasks: the tasks are of {' and '.join(several)}, whose robots differ: name tasks of one of them"
        )
    known = robot(simulator)
    if known is None:
        return
    if known.actions != policy.action_dim:
        mode = simulator.options.get("action_mode", next(iter(ROBOTS[simulator.name])))
        by = f" by simulator.options.action_mode={mode}" if simulator.name == "omnigibson" else ""
        raise UserError(
            f"policy.action_dim={policy.action_dim}, but {simulator.name} takes {known.actions} numbers an action{by}:"
            f" set policy.action_dim={known.actions}"
        )
    images, cameras = policy.options.get("images"), 1 + known.wrist_cameras
    if isinstance(images, int) and images > cameras:
        raise UserError(
            f"policy.options.images={images}, but {simulator.name} has {cameras} cameras, {known.wrist_cameras} of "
            f"them at a wrist: set policy.options.images to {cameras} or less"
        )


def _check_limits(config: Config) -> None:
    """Step limits that stages have of their own."""
    possible = simulator_options.FIELDS.get(config.simulator.name, {}).get("max_episode_steps")
    for name in ("demonstrate", "rollout"):
        limit = getattr(config, name).max_episode_steps
        if possible is not None and limit is not None and not possible.takes(limit):
            raise UserError(
                f"{name}.max_episode_steps={limit} is not possible in {config.simulator.name}: set it to {possible}"
            )


def _check_backend(config: Config) -> None:
    """What the worlds of ManiSkill's GPU backend cannot be in, or be drawn by."""
    simulator = config.simulator
    if simulator.options.get("backend") != "physx_cuda":
        return
    by = "with simulator.options.backend=physx_cuda"
    other = "set simulator.options.backend=physx_cpu"
    if len(simulator.tasks) > 1:
        raise UserError(
            f"simulator.tasks names {len(simulator.tasks)} tasks, but {by} all worlds are in one: name one, or {other}"
        )
    if simulator.tasks[0] in UNLIKE_WORLDS:
        raise UserError(
            f"simulator.tasks names {simulator.tasks[0]}, but {by} its worlds differ from each other, whatever their "
            f"seeds: name another, or {other}"
        )
    if simulator.options.get("renderer") == "cpu":
        raise UserError(
            f"simulator.options.renderer=cpu, but {by} a GPU draws: set simulator.options.renderer=gpu, or {other}"
        )


def _check_expert(config: Config) -> None:
    """Demonstrations that nobody gives."""
    simulator, solved = config.simulator, EXPERTS.get(config.simulator.name)
    if not config.sft.steps or config.demonstrate.imported is not None or solved is None:
        return
    others = [task for task, suite in suites(simulator).items() if not {task, suite} & set(solved)]
    if solved and not others:
        return
    which = f" for {others[0]}, only for {', '.join(solved)}" if solved else ""
    raise UserError(
        f"sft.steps={config.sft.steps} needs demonstrations, and {simulator.name} has no scripted expert{which}: set "
        "demonstrate.imported to what `baton import` writes, or sft.steps=0 and policy.checkpoint"
    )


def _check_mirror(config: Config) -> None:
    """Robots that look another way in a mirror."""
    if not config.sft.mirror:
        return
    name, known = config.simulator.name, robot(config.simulator)
    if name not in MIRRORED:
        raise UserError(
            f"sft.mirror=true needs two arms that are each other's mirror images, which is known of "
            f"{', '.join(MIRRORED)}, not of {name}: set sft.mirror=false"
        )
    if known is not None and known.wrist_cameras == 1:
        raise UserError(
            "sft.mirror=true makes the left wrist's camera the right one's, but there is only one: set "
            "simulator.options.wrist_cameras to 2 or 0, or sft.mirror=false"
        )


def _check_states(config: Config) -> None:
    """Held-out states that are met twice."""
    name, tasks, episodes = config.simulator.name, len(config.simulator.tasks), config.evaluate.episodes
    states = HELD_OUT_STATES.get(name)
    if states is not None and episodes > states * tasks:
        raise UserError(
            f"evaluate.episodes={episodes}, but {name} holds {states} initial states a task out for evaluation, "
            f"{states * tasks} in all: set evaluate.episodes to {states * tasks} or less"
        )

"""A ManiSkill environment of a task, built so that nothing is drawn or downloaded unasked."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from stages.simulators.interface import SimulatorConfigError, SimulatorSpec, Task
from stages.simulators.maniskill import catalogue
from stages.simulators.maniskill.options import CUDA, Options

with warnings.catch_warnings():  # SAPIEN warns of each library of its own that it takes
    warnings.simplefilter("ignore")
    import mani_skill.envs  # noqa: F401, registers the tasks
    import sapien
    from mani_skill.utils.assets import DATA_GROUPS, expand_data_group_into_individual_data_source_ids
    from mani_skill.utils.assets import is_data_source_downloaded as is_there
    from mani_skill.utils.logging_utils import logger
    from mani_skill.utils.registration import REGISTERED_ENVS

CONTROL = "pd_ee_delta_pose"
DENSE = "normalized_dense"


def check(tasks: Iterable[str], reward: str) -> None:
    """Refuse tasks that lack files, which ManiSkill would offer to download, or the wanted reward.

    Raises:
        SimulatorConfigError: with the name of the task.
    """
    for name in tasks:
        registered = REGISTERED_ENVS[name]
        if lacking := [asset for asset in _assets(registered.asset_download_ids or ()) if not is_there(asset)]:
            raise SimulatorConfigError(
                f"maniskill: {name} needs files that are not here: {', '.join(lacking)}; download them with "
                f"`python -m mani_skill.utils.download_asset {name}` in ManiSkill's interpreter, or leave the task out"
            )
        if reward == "dense" and DENSE not in registered.cls.SUPPORTED_REWARD_MODES:
            raise SimulatorConfigError(f"maniskill: reward is 'dense', which {name} does not have; set reward: sparse")


def build(task: str, options: Options, drawn_by: str, count: int = 1) -> Any:
    """Build ManiSkill's BaseEnv.

    Args:
        task: its name.
        options: the simulator's.
        drawn_by: gpu or cpu.
        count: worlds in it; one on physx_cpu.
    """
    logger.setLevel(logging.ERROR)  # it warns of robots and poses that are meant
    check([task], options.reward)
    arms = catalogue.entries()[task].arms
    return REGISTERED_ENVS[task].cls(
        num_envs=count,
        robot_uids=arms if len(arms) > 1 else arms[0],
        obs_mode="none",
        reward_mode=DENSE if options.reward == "dense" else "sparse",
        control_mode=CONTROL,
        sim_backend=options.backend,
        render_backend=drawn_by,
        sensor_configs={"width": options.image_size, "height": options.image_size},
        sim_config={"sim_freq": options.physics_frequency, "control_freq": options.action_frequency},
    )


def step_limit(task: str, options: Options) -> int:
    """How many steps an episode of a task may take."""
    return options.max_episode_steps or REGISTERED_ENVS[task].max_episode_steps


def spec(options: Options, renderer: str) -> SimulatorSpec:
    """What to tell of worlds with these options.

    Args:
        options: the simulator's.
        renderer: the device that draws, in words.
    """
    entries, arms = catalogue.entries(), len(options.arms)
    return SimulatorSpec(
        name="maniskill",
        version=f"mani_skill {version('mani_skill')}, SAPIEN {sapien.__version__}, {options.backend}",
        renderer=renderer,
        tasks=tuple(Task(name, entries[name].instruction) for name in options.tasks),
        action_dim=catalogue.ARM_ACTIONS * arms,
        proprio_dim=catalogue.ARM_PROPRIO * arms,
        image_size=(options.image_size, options.image_size),
        max_episode_steps=max(step_limit(task, options) for task in options.tasks),
        deterministic=options.backend != CUDA,
        one_clock=options.backend == CUDA,
        wrist_cameras=arms,
    )


def _assets(names: Iterable[str]) -> list[str]:
    return [
        source
        for name in names
        for source in (expand_data_group_into_individual_data_source_ids(name) if name in DATA_GROUPS else [name])
    ]

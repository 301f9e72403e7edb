"""The simulators of a unit, as the config describes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pipeline.config import Simulator, Workers
from pipeline.errors import UserError
from stages.simulators.interface import SimulatorConfigError
from stages.simulators.pool import SimulatorPool
from stages.unit import Work


@contextlib.contextmanager
def open_pool(work: Work, layout: Workers, **extra: Any) -> Iterator[SimulatorPool]:
    """Start the worker processes of a unit and stop them at the end.

    Args:
        work: the unit; worker logs go to its attempt, lost workers into its summary.
        layout: the stage's environments and processes.
        extra: options of the simulator that the stage itself decides.

    Yields:
        The pool.

    Raises:
        UserError: the config asks for something the simulator does not have.
    """
    simulator = work.config.simulator
    try:
        with work.phases("start simulators"):
            pool = SimulatorPool(
                simulator.name,
                simulator_options(simulator) | extra,
                layout.num_envs,
                layout.num_workers,
                simulator.python,
                timeout_s=simulator.timeout,
                start_timeout_s=simulator.start_timeout,
                max_restarts=simulator.max_restarts,
                log_dir=work.directory,
            )
    except SimulatorConfigError as error:
        raise UserError(f"{work.run / 'config.yaml'}: simulator: {error}") from error
    with pool:
        spec = pool.spec
        print(f"{spec.name} {spec.version}, rendered by {spec.renderer}: {pool.num_envs} environments", flush=True)
        yield pool
        work.summary["time/worker_restarts"] = float(pool.restarts)


def simulator_options(simulator: Simulator) -> dict[str, Any]:
    """The config's block as the simulator takes it."""
    return {
        "tasks": list(simulator.tasks),
        "image_size": simulator.image_size,
        "action_frequency": simulator.action_frequency,
        "physics_frequency": simulator.physics_frequency,
        "rendering_frequency": simulator.rendering_frequency,
        "max_episode_steps": simulator.max_episode_steps,
        **simulator.options,
    }

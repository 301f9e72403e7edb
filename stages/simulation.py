"""The simulators of a unit, as the config describes them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from pipeline.config import Simulator, Workers
from pipeline.errors import UserError
from stages.devices import simulator_devices
from stages.simulators.interface import SimulatorConfigError
from stages.simulators.pool import SimulatorPool
from stages.unit import Work


@dataclasses.dataclass
class _Running:
    """A pool and how many of its lost workers have been reported."""

    pool: SimulatorPool
    reported: int = 0


@contextlib.contextmanager
def open_pool(work: Work, layout: Workers, **extra: Any) -> Iterator[SimulatorPool]:
    """Have the worker processes of a unit running.

    They end with the stage, not with the unit: a stage that stays up keeps them warm for its next unit.

    Args:
        work: the unit; worker logs go to the attempt that started them, lost workers into its summary.
        layout: the stage's environments and processes.
        extra: options of the simulator that the stage itself decides.

    Yields:
        The pool.

    Raises:
        UserError: the config asks for something the simulator does not have, or the job has too few GPUs.
        SimulatorLost: a worker failed too often.
    """
    simulator = work.config.simulator
    settings: dict[str, Any] = {
        "name": simulator.name,
        "options": simulator_options(simulator) | extra,
        "num_envs": layout.num_envs,
        "num_workers": layout.num_workers,
        "python": simulator.python,
        "timeout_s": simulator.timeout,
        "start_timeout_s": simulator.start_timeout,
        "max_restarts": simulator.max_restarts,
        "recycle_episodes": simulator.recycle_episodes,
        "environments": simulator_devices(layout.num_workers),
    }

    @contextlib.contextmanager
    def start() -> Iterator[_Running]:
        with SimulatorPool(**settings, log_dir=work.directory) as pool:
            yield _Running(pool)

    def has_restarts_left(running: _Running) -> bool:
        return running.pool.restarts <= simulator.max_restarts // 2

    try:
        with work.phases("start simulators"):
            running = work.kept.take("simulators", settings, start, has_restarts_left)
        pool, spec = running.pool, running.pool.spec
        print(f"{spec.name} {spec.version}, rendered by {spec.renderer}: {pool.num_envs} environments", flush=True)
        yield pool
    except SimulatorConfigError as error:
        raise UserError(f"{work.run / 'config.yaml'}: simulator: {error}") from error
    work.summary["time/worker_restarts"] = float(pool.restarts - running.reported)
    running.reported = pool.restarts


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

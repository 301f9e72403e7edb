"""The household as Gymnasium environments, one a task. Importing this module registers them.

    import gymnasium
    import stages.simulators.household.gym

    env = gymnasium.make("household/Object-0-v0", image_size=128)

Gymnasium 1 has no plugins, so something has to import the module; the id can name it as well:
`gymnasium.make("stages.simulators.household.gym:household/Object-0-v0")`.
"""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from stages.simulators.household import catalogue
from stages.simulators.household.options import parse
from stages.simulators.household.simulator import Household
from stages.simulators.interface import HELD_OUT, Episode, SimulatorConfigError, split_of

FIRST_SEED = {"train": 0, "evaluation": HELD_OUT}
RESET_OPTIONS = ("split", "index")
PROPRIO_BOUND = 10.0  # no arm reaches ten times as far as half its workspace, which counts as one

Seen = dict[str, Any]  # of arrays


class HouseholdEnv(gymnasium.Env[Seen, np.ndarray]):
    """One task in one world, one action a step.

    An observation holds `head`, `left_wrist` and `right_wrist`, uint8 [H, W, 3] in RGB, fewer with `wrist_cameras`, and
    `proprio`, float32 [P]; an action is float32 [A] in [-1, 1]. Every `info` says what the robot is asked to do
    (`instruction`), whether that is done (`success`), and which initial state the episode began from (`split`, `seed`).

    Attributes:
        task: its name in a config.
        instruction: one sentence.
        step_limit: steps after which an episode is truncated.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        task: str,
        split: str = "train",
        render_mode: str | None = None,
        step_limit: int | None = None,
        **options: Any,
    ) -> None:
        """Build the world.

        Args:
            task: a name in tasks.jsonl; the registered ids fill it in.
            split: where resets draw initial states from unless they say otherwise, train or evaluation.
            render_mode: rgb_array lets `render` return frames.
            step_limit: steps before truncation, None: the task's own. (`gymnasium.make` keeps `max_episode_steps` to
                itself, for a wrapper that can only shorten episodes.)
            options: of the simulator, e.g. image_size, reward, renderer, action_frequency.

        Raises:
            SimulatorConfigError: an argument has a value that does not exist, or the renderer cannot start here.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise SimulatorConfigError(f"household: render_mode is {render_mode!r}; it must be 'rgb_array' or None")
        self._split = _known(split)
        if step_limit is not None:
            options["max_episode_steps"] = step_limit
        chosen = parse({**options, "tasks": [task]})
        self._simulator, self._cameras = Household(1, chosen), chosen.cameras
        self._closed = False
        self._seed = FIRST_SEED[split]
        self._success = False
        spec = self._simulator.spec
        self.task = task
        self.instruction = spec.tasks[0].instruction
        self.step_limit = spec.max_episode_steps
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": options.get("action_frequency", self.metadata["render_fps"])}
        image = spaces.Box(0, 255, (*spec.image_size, 3), np.uint8)
        proprio = spaces.Box(-PROPRIO_BOUND, PROPRIO_BOUND, (spec.proprio_dim,), np.float32)
        self.observation_space = spaces.Dict({**dict.fromkeys(self._cameras, image), "proprio": proprio})
        self.action_space = spaces.Box(-1, 1, (spec.action_dim,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Seen, dict[str, Any]]:
        """Begin an episode from an initial state of one split.

        Args:
            seed: of the generator that draws initial states; None goes on with the one there is.
            options: `split`: train or evaluation, instead of the environment's own; `index`: the initial state by its
                number within the split instead of a drawn one. Evaluations of a run use evaluation's first ones.

        Raises:
            SimulatorConfigError: an option or its value does not exist.
        """
        super().reset(seed=seed)
        chosen = options or {}
        unknown = [name for name in chosen if name not in RESET_OPTIONS]
        if unknown:
            raise SimulatorConfigError(f"household: reset has no option {unknown[0]!r}; valid: split, index")
        drawn = int(self.np_random.integers(HELD_OUT))
        index = chosen.get("index", drawn)
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or not 0 <= index < HELD_OUT:
            raise SimulatorConfigError(f"household: index is {index!r}; it must be an integer from 0 to {HELD_OUT - 1}")
        self._seed = FIRST_SEED[_known(chosen.get("split", self._split))] + int(index)
        self._success = False
        self._simulator.reset([0], [Episode(self.task, self._seed)], [False])
        return self._look(), self._info()

    def step(self, action: np.ndarray) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """Carry out one action.

        Args:
            action: float32 [A] in [-1, 1]; what is beyond is clipped.

        Returns:
            Observation, reward, whether the task is done, whether the step limit ended the episode, info.

        Raises:
            ResetNeeded: the episode is over.
            ValueError: the action has another shape or is not finite.
        """
        result = self._simulator.step_chunk([0], np.asarray(action, np.float32)[None, None])
        if not result.executed[0, 0]:
            raise gymnasium.error.ResetNeeded("the episode is over: call reset before step")
        self._success = bool(result.success[0])
        ended = bool(result.terminated[0]), bool(result.truncated[0])
        return self._look(), float(result.rewards[0, 0]), *ended, self._info()

    def render(self) -> np.ndarray | None:
        """Return what the world looks like to an audience: the wrist cameras on the left, the head camera on the right.

        Returns:
            uint8 [448, 672, 3], RGB; None where the environment was made without a render mode.
        """
        if self.render_mode is None:
            gymnasium.logger.warn('render needs gymnasium.make(..., render_mode="rgb_array")')
            return None
        return self._simulator.frame(0)

    def save_state(self) -> bytes:
        """Return everything needed to put this or another environment of the task back exactly to where this one is.

        The generator that draws initial states is no part of it.
        """
        return pickle.dumps((self.task, self._seed, self._success, self._simulator.save_state(0)))

    def restore_state(self, state: bytes) -> tuple[Seen, dict[str, Any]]:
        """Put the world back to where `save_state` was called.

        Args:
            state: trusted bytes: they are unpickled.

        Returns:
            Observation and info, as `reset` gives them.

        Raises:
            SimulatorConfigError: the state is another task's.
        """
        task, seed, success, world = pickle.loads(state)
        if task != self.task:
            raise SimulatorConfigError(
                f"household: this state is of the task {task!r}, the environment of {self.task!r}"
            )
        self._simulator.restore_state(0, world)
        self._seed, self._success = seed, success
        return self._look(), self._info()

    def close(self) -> None:
        """Free the simulator; may be called twice."""
        if not self._closed:
            self._closed = True
            self._simulator.close()

    def _look(self) -> Seen:
        seen = self._simulator.observe([0])
        images = zip(self._cameras, [seen.head[0], *seen.wrist[0]], strict=True)
        rows_first = {name: np.ascontiguousarray(image.transpose(1, 2, 0)) for name, image in images}
        return {**rows_first, "proprio": seen.proprio[0]}

    def _info(self) -> dict[str, Any]:
        return {
            "instruction": self.instruction,
            "success": self._success,
            "split": split_of(self._seed),
            "seed": self._seed,
        }


def _known(split: Any) -> str:
    if split not in FIRST_SEED:
        raise SimulatorConfigError(f"household: split is {split!r}; it must be one of: {', '.join(FIRST_SEED)}")
    return str(split)


for _entry in catalogue.entries().values():
    gymnasium.register(
        id=f"household/{_entry.suite.capitalize()}-{_entry.index}-v0",
        entry_point=f"{__name__}:{HouseholdEnv.__name__}",
        kwargs={"task": _entry.name},
    )

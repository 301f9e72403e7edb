"""OmniGibson's config block: its fields, their defaults and what is wrong with a bad one.

OmniGibson itself drops keys that it does not know without a word. So nothing reaches it that is not a field here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from stages.simulators import options as checks
from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson import frequencies, proprioception
from stages.simulators.omnigibson.robot import ACTION_DIM, EE_DELTA, JOINT, POSITION_LIMIT, ROTATION_LIMIT

NO_EXPERT = (
    "omnigibson: there is no scripted expert to demonstrate with; bring demonstrations in with "
    "`baton import PATH`, or start from a trained policy with sft.steps=0 and policy.checkpoint"
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What can be chosen about OmniGibson.

    Attributes:
        tasks: BEHAVIOR activities.
        image_size: height and width of every camera, in pixels.
        action_frequency: actions a second; the demonstrations have 30.
        physics_frequency: physics steps a second.
        rendering_frequency: frames a second that a step renders, where it renders.
        max_episode_steps: step limit of an episode; None: `step_budget`.
        action_mode: ee_delta_14: both hands by pose deltas, base and trunk held; joint_23: base velocity and absolute
            joint angles, as the public demonstrations and checkpoints have them.
        position_limit: metres that the number 1 of a pose delta moves a hand.
        rotation_limit: radians that it turns one.
        trunk: what holds the trunk in ee_delta_14; joint_controller where a build has no null_controller for it.
        proprio_keys: keys of the robot's proprioception, or the name of a list of them; resolved to keys.
        grasping_mode: assisted (as demonstrated), physical or sticky.
        base_mass: of the robot's base in kg, as demonstrated; None leaves the model's.
        reward: potential pays the share of goal predicates gained by a step, sparse 1 at the step that succeeds.
        reward_scale: factor on the reward.
        tasks_file: JSONL of task_index, task_name and task; None: the challenge's 50.
        scene_model: the house; None: the one that the task's files are for.
        activity_definition: which definition of the activity.
        train_instances: initial states for training; None: the challenge's. 0 is the scene as it is stored, to which a
            world does not go back from another.
        evaluation_instances: those for evaluation; None: the challenge's public test instances.
        instance_directory: where the files of instances lie; None: where OmniGibson's download puts them.
        step_budget: step limit as a multiple of the mean human length; 2000 steps where that is not known.
        viewport: open a viewport.
        observe_every_step: read the sensors at every step, not once a chunk.
        render_every_step: draw at every step, not once a chunk.
        renders_per_observation: frames drawn before a picture is taken; it lags behind by up to two.
        carb_threads: threads of Kit's task pool; None leaves Kit's.
        tbb_threads: threads of its worker pool; None leaves Kit's.
        numba_cache: keep compiled numpy kernels on disk.
        texture_budget: share of the GPU's memory for textures; None leaves Kit's.
        partial_scene: load only the rooms that the task needs.
        room_types: those rooms; None: as JoyLo's tables have them.
        numpy_controllers: controllers compute with numpy, not torch.
        flatcache: read physics from PhysX' own cache, not through USD.
        gpu_dynamics: physics on the GPU.
        transition_rules: rules that make objects into others, e.g. slicing and cooking.
        step_timeout: seconds for a step, after which the process is given up.
        cache_directory: node-local folder for shader and texture caches; None: below TMPDIR.
    """

    tasks: tuple[str, ...] = ("turning_on_radio",)
    image_size: int = 224
    action_frequency: int = 30
    physics_frequency: int = 120
    rendering_frequency: int = 30
    max_episode_steps: int | None = None
    action_mode: str = EE_DELTA
    position_limit: float = POSITION_LIMIT
    rotation_limit: float = ROTATION_LIMIT
    trunk: str = "null_controller"
    proprio_keys: tuple[str, ...] = ()
    grasping_mode: str = "assisted"
    base_mass: float | None = 250.0
    reward: str = "potential"
    reward_scale: float = 1.0
    tasks_file: str | None = None
    scene_model: str | None = None
    activity_definition: int = 0
    train_instances: tuple[int, ...] | None = None
    evaluation_instances: tuple[int, ...] | None = None
    instance_directory: str | None = None
    step_budget: float = 2.0
    viewport: bool = False
    observe_every_step: bool = False
    render_every_step: bool = False
    renders_per_observation: int = 3
    carb_threads: int | None = 8
    tbb_threads: int | None = 4
    numba_cache: bool = True
    texture_budget: float | None = 0.1
    partial_scene: bool = True
    room_types: tuple[str, ...] | None = None
    numpy_controllers: bool = True
    flatcache: bool = True
    gpu_dynamics: bool = False
    transition_rules: bool = True
    step_timeout: float = 120.0
    cache_directory: str | None = None

    @property
    def action_dim(self) -> int:
        """A."""
        return ACTION_DIM[self.action_mode]


_NUMBERS: dict[str, checks.Bounds] = {
    "image_size": (int, 32, 1440),
    "action_frequency": (int, 1, 240),
    "physics_frequency": (int, 30, 1000),
    "rendering_frequency": (int, 1, 240),
    "max_episode_steps": (int, 1, 1_000_000),
    "position_limit": (float, 0.001, 0.5),
    "rotation_limit": (float, 0.001, 1.5),
    "base_mass": (float, 1.0, 10_000.0),
    "reward_scale": (float, 0.0, 1000.0),
    "activity_definition": (int, 0, 1000),
    "step_budget": (float, 0.1, 100.0),
    "renders_per_observation": (int, 1, 20),
    "carb_threads": (int, 1, 256),
    "tbb_threads": (int, 1, 256),
    "texture_budget": (float, 0.01, 1.0),
    "step_timeout": (float, 1.0, 86_400.0),
}
_CHOICES = {
    "action_mode": (EE_DELTA, JOINT),
    "trunk": ("null_controller", "joint_controller"),
    "grasping_mode": ("assisted", "physical", "sticky"),
    "reward": ("potential", "sparse"),
}
_TEXTS = ("tasks_file", "scene_model", "instance_directory", "cache_directory")
_NAMES, _IDS = ("tasks", "room_types"), ("train_instances", "evaluation_instances")
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Options)}


def parse(options: Mapping[str, Any]) -> Options:
    """Check a config block and fill in its defaults.

    Args:
        options: field names of Options and their values.

    Raises:
        SimulatorConfigError: a field is unknown or its value is out of range; the message says what is possible.
    """
    if "expert_perturbation" in options:  # what the expert's stage adds
        raise SimulatorConfigError(NO_EXPERT)
    checks.known("omnigibson", options, _DEFAULTS)
    values = {name: _checked(name, value) for name, value in options.items()}
    mode = values.get("action_mode", Options.action_mode)
    values["proprio_keys"] = proprioception.keys_of(values.get("proprio_keys"), mode)
    parsed = Options(**values)
    if parsed.tasks == ():
        raise SimulatorConfigError("omnigibson: tasks is empty; name at least one BEHAVIOR activity")
    frequencies.check(parsed.action_frequency, parsed.rendering_frequency, parsed.physics_frequency)
    return parsed


def _checked(name: str, value: Any) -> Any:
    if value is None and (_DEFAULTS[name] is None or name in ("proprio_keys", "base_mass", *_OPTIONAL)):
        return None
    if name == "proprio_keys":
        return value if isinstance(value, str) else _many(name, value, str, "keys")
    if name in _NAMES:
        return _many(name, value, str, "names")
    if name in _IDS:
        return _many(name, value, int, "instance numbers from 0")
    if name in _CHOICES:
        return checks.choice("omnigibson", name, value, _CHOICES[name])
    if name in _TEXTS:
        if not isinstance(value, str) or not value:
            raise SimulatorConfigError(f"omnigibson: {name} is {value!r}; it must be a text")
        return value
    if name in _NUMBERS:
        return checks.number("omnigibson", name, value, _NUMBERS[name])
    return checks.switch("omnigibson", name, value)


_OPTIONAL = ("carb_threads", "tbb_threads", "texture_budget")  # have a default and may be left to Kit


def _many(name: str, value: Any, kind: type, noun: str) -> tuple[Any, ...]:
    fitting = isinstance(value, Iterable) and not isinstance(value, (str, Mapping))
    several: tuple[Any, ...] = tuple(value) if fitting else ()
    alike = all(isinstance(one, kind) and not isinstance(one, bool) for one in several)
    if not several or not alike or (kind is int and min(several) < 0):
        raise SimulatorConfigError(f"omnigibson: {name} is {value!r}; it must be a list of {noun}")
    return several

"""What a shard holds: its arrays, their types and shapes, and the facts that go with them.

A shard is a zarr v3 group of whole episodes, flat over the decisions of all of them. The writer and the reader take
every name, type and shape from `ShardSpec.decision_arrays` and `EPISODE_ARRAYS`.

Shapes: D decisions, E episodes, T decisions of one episode, K actions a chunk, A action numbers, P proprioception
numbers, V wrist cameras, H x W camera pixels, N denoising steps of a flow policy over a horizon of H' >= K actions of
A' >= A numbers.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, get_args

import numpy as np

from stages.simulators.interface import HELD_OUT, split_of

SCHEMA_VERSION = 1
FILE_BYTES, DECISIONS_PER_FILE = 1 << 25, (64, 512)  # of a file: the images' bytes; decisions at least and at most
CHUNK_BYTES = 1 << 20
NO_GROUP = -1
IMAGES = ("head", "wrist")
Kind = Literal["tokens", "chain", "demonstration"]
TAKEN: dict[Kind, tuple[str, ...]] = {"tokens": ("tokens",), "chain": ("chain", "step"), "demonstration": ()}
"""What is kept of a decision so that its policy can judge it again: the names of a policy's `Decision.taken`."""
SPLITS = (split_of(0), split_of(HELD_OUT))


class InconsistentEpisode(ValueError):
    """Data that no shard may hold; the message names the array and what is wrong with it."""


@dataclasses.dataclass(frozen=True)
class ArrayLayout:
    """How one array is stored.

    Attributes:
        path: its name in the shard.
        dtype: numpy's name of its type.
        shape: its shape behind the first axis, which is D or E.
        rows_per_file: decisions in a file of a streamed array, which is large and stored in chunks of some of them; 0:
            the array is not streamed, but one chunk in one file.
    """

    path: str
    dtype: str
    shape: tuple[int, ...] = ()
    rows_per_file: int = 0

    @property
    def chunk_rows(self) -> int:
        """Decisions that a streamed array compresses together, a power of two: what is read to see one of them.

        Images share a chunk of at most `CHUNK_BYTES`, because zarr takes longer over a chunk than zstd over 100 kB:
        even decisions drawn at random are read sooner so.
        """
        rows = CHUNK_BYTES // (np.dtype(self.dtype).itemsize * math.prod(self.shape))
        return min(self.rows_per_file, _power_of_two(rows))


EPISODE_ARRAYS = {
    "start": ArrayLayout("episodes/start", "int64"),
    "length": ArrayLayout("episodes/length", "int64"),
    "task": ArrayLayout("episodes/task", "int64"),
    "seed": ArrayLayout("episodes/seed", "int64"),
    "group": ArrayLayout("episodes/group", "int64"),
    "success": ArrayLayout("episodes/success", "bool"),
    "total_reward": ArrayLayout("episodes/return", "float32"),
    "terminated": ArrayLayout("episodes/terminated", "bool"),
    "truncated": ArrayLayout("episodes/truncated", "bool"),
    "bootstrap_value": ArrayLayout("episodes/bootstrap_value", "float32"),
}


@dataclasses.dataclass(frozen=True)
class ShardSpec:
    """The sizes that decide every array of a shard.

    Attributes:
        kind: who acted: a policy over `tokens`, a flow policy with a `chain`, or an expert (`demonstration`).
        image_size: (H, W) of every camera.
        proprio_dim: P.
        chunk: K.
        action_dim: A.
        chain_shape: (N + 1, H', A') of a flow policy that draws at all of its N steps, (2, H', A') of one that draws
            at one; None for the others.
        entropies: whether the entropy of every token is stored, to mask by it.
        wrist_cameras: V, from 0 to 2; a shard that does not say has 2.
    """

    kind: Kind
    image_size: tuple[int, int]
    proprio_dim: int
    chunk: int
    action_dim: int
    chain_shape: tuple[int, int, int] | None = None
    entropies: bool = False
    wrist_cameras: int = 2

    def __post_init__(self) -> None:
        """Refuse sizes that do not belong together."""
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind is {self.kind!r}: it must be one of {', '.join(get_args(Kind))}")
        if (self.chain_shape is not None) != (self.kind == "chain"):
            raise ValueError(f"chain_shape is {self.chain_shape} for {self.kind!r}: a chain needs one, no other kind")
        if self.entropies and self.kind == "demonstration":
            raise ValueError("entropies is true for kind 'demonstration': an expert has none")
        sizes = (*self.image_size, self.proprio_dim, self.chunk, self.action_dim, *(self.chain_shape or ()))
        if min(sizes) < 1:
            raise ValueError(f"sizes must be at least 1: {self}")
        if not 0 <= self.wrist_cameras <= 2:
            raise ValueError(f"wrist_cameras is {self.wrist_cameras}: it must be 0, 1 or 2")
        if self.chain_shape is not None and (
            self.chain_shape[0] < 2 or self.chain_shape[1] < self.chunk or self.chain_shape[2] < self.action_dim
        ):
            raise ValueError(
                f"chain_shape is {self.chain_shape}: it must be (2 or more, chunk={self.chunk} or more, "
                f"action_dim={self.action_dim} or more)"
            )

    def image_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of a decision's images.

        Returns:
            Each of `IMAGES` -> its shape; without wrist cameras `wrist` has no element.
        """
        image = (3, *self.image_size)
        return {"head": image, "wrist": (self.wrist_cameras, *image)}

    @property
    def decisions_per_file(self) -> int:
        """Decisions whose images share a file, a power of two.

        Small images share it with more of their kind: zarr's own work is by the file and by the chunk, and takes one
        thread at a time.
        """
        least, most = DECISIONS_PER_FILE
        images = sum(math.prod(shape) for shape in self.image_shapes().values())
        return min(most, max(least, _power_of_two(FILE_BYTES // images)))

    def decision_arrays(self) -> dict[str, ArrayLayout]:
        """The arrays with one row a decision.

        Returns:
            Field of `EpisodeRecord` and of `Trajectories` -> how it is stored; images that have no element are not.
        """
        step, number, rows = (self.chunk,), (self.chunk, self.action_dim), self.decisions_per_file
        arrays = {
            **{
                field: ArrayLayout(f"observations/{field}", "uint8", shape, rows)
                for field, shape in self.image_shapes().items()
                if math.prod(shape)
            },
            "proprio": ArrayLayout("observations/proprio", "float32", (self.proprio_dim,)),
            "actions": ArrayLayout("actions/executed", "float32", number),
            "rewards": ArrayLayout("rewards", "float32", step),
            "executed": ArrayLayout("executed", "bool", step),
        }
        if self.kind == "demonstration":
            return arrays | {"clean": ArrayLayout("clean", "bool", step)}
        if self.chain_shape is None:
            arrays["tokens"] = ArrayLayout("actions/tokens", "int16", number)
        else:
            arrays["chain"] = ArrayLayout("actions/chain", "float32", self.chain_shape, rows)
            arrays["step"] = ArrayLayout("actions/step", "int16")
        arrays["log_probs"] = ArrayLayout("log_probs", "float32", number)
        arrays["values"] = ArrayLayout("values", "float32")
        if self.entropies:
            arrays["entropies"] = ArrayLayout("entropies", "float32", number)
        return arrays

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> ShardSpec:
        """The spec whose fields JSON brought back; tuples come as lists.

        Raises:
            TypeError: a field is missing or unknown.
            ValueError: the fields do not belong together.
        """
        return cls(**_with_tuples(stored))


@dataclasses.dataclass(frozen=True)
class ShardAttributes:
    """Where a shard comes from. No times and no hosts: the same content is the same bytes.

    Attributes:
        run: name of the run.
        epoch: of the unit that wrote it.
        shard: index of the shard within the epoch.
        policy_version: of the policy that acted, None for an expert.
        simulator: its name in a config.
        simulator_version: version of the simulator and of the engine below it.
        renderer: what drew the images.
        tasks: names of the tasks; an episode's `task` is an index into them.
        instructions: one sentence a task.
        split: which initial states the episodes were drawn from, as `split_of` their seeds says.
    """

    run: str
    epoch: int
    shard: int
    policy_version: int | None
    simulator: str
    simulator_version: str
    renderer: str
    tasks: tuple[str, ...]
    instructions: tuple[str, ...]
    split: str

    def __post_init__(self) -> None:
        """Refuse tasks that cannot be told apart or have no instruction, and a split that there is not."""
        if self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}: it must be one of {', '.join(SPLITS)}")
        if len(self.tasks) != len(self.instructions):
            raise ValueError(f"{len(self.tasks)} tasks have {len(self.instructions)} instructions: give one a task")
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks are {list(self.tasks)}: name each once, and at least one")

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> ShardAttributes:
        """The attributes that JSON brought back; tuples come as lists.

        Raises:
            TypeError: a field is missing or unknown.
            ValueError: the fields do not belong together.
        """
        return cls(**_with_tuples(stored))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One whole episode, ready to be stored. Fields that the shard's kind does not have stay None.

    Attributes:
        task: its name, one of the shard's tasks.
        seed: of the initial state.
        group: episodes of one group start from the same state; unique within the epoch, not only within the shard;
            `NO_GROUP` for an episode that stands alone.
        success: whether the task's predicate held at the last executed step.
        terminated: the episode ended by itself.
        truncated: a limit cut it off.
        bootstrap_value: value of the observation after the last step; 0 without a critic.
        head: uint8 [T, 3, H, W].
        wrist: uint8 [T, V, 3, H, W], left and right where there are two.
        proprio: float32 [T, P].
        actions: float32 [T, K, A], what the simulator was given.
        rewards: float32 [T, K], zero where not executed.
        executed: bool [T, K]; a chunk is executed from its first action up to some action.
        tokens: int16 [T, K, A].
        chain: float32 [T, N + 1, H', A'], the noisy actions from pure noise to those taken, or [T, 2, H', A'], those
            before and after the step that was drawn.
        step: int16 [T], the denoising step of the chain that was drawn; 0 where all of them were.
        log_probs: float32 [T, K, A].
        values: float32 [T]; zeros without a critic.
        entropies: float32 [T, K, A].
        clean: bool [T, K], False where an expert's action was perturbed.
    """

    task: str
    seed: int
    success: bool
    terminated: bool
    truncated: bool
    head: np.ndarray
    wrist: np.ndarray
    proprio: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    executed: np.ndarray
    group: int = NO_GROUP
    bootstrap_value: float = 0.0
    tokens: np.ndarray | None = None
    chain: np.ndarray | None = None
    step: np.ndarray | None = None
    log_probs: np.ndarray | None = None
    values: np.ndarray | None = None
    entropies: np.ndarray | None = None
    clean: np.ndarray | None = None

    def __len__(self) -> int:
        """How many decisions: T."""
        return len(self.executed)


OPTIONAL_FIELDS = tuple(field.name for field in dataclasses.fields(EpisodeRecord) if field.default is None)


def _power_of_two(limit: int) -> int:
    """The greatest that is not above a limit, and at least 1."""
    return 1 << (max(1, limit).bit_length() - 1)


def _with_tuples(stored: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}

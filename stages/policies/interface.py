"""What every policy offers: decide on chunks of actions, judge chunks taken before, imitate, and be saved and loaded.

Shapes: B observations, K actions a chunk, A action numbers, P proprioception numbers, H x W camera pixels.
"""

from __future__ import annotations

import abc
import dataclasses
import difflib
import importlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from stages.blocks import prepare_blocks
from stages.policies.statistics import PolicyFileError, Statistics

Precision = Literal["fp32", "mixed", "bf16"]
"""fp32 throughout; bf16 arithmetic on fp32 weights; bf16 weights too. Logits, log-probs and values are fp32 in all."""

PUBLISHED = {"openvla": "openvla_oft"}
"""`model_type` of published policies -> the package that reads them."""
OPENPI = "action_horizon"
"""A key of openpi's config.json, which has no `model_type`."""


class PolicyConfigError(UserError):
    """The user asked for something this policy does not have; the message says what it has."""


class PolicyInputError(UserError):
    """An observation or an action does not fit the policy; the message says which and what fits."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """What a policy sees at a batch of decisions.

    Attributes:
        head: uint8 [B, 3, H, W], RGB of the head camera.
        wrist: uint8 [B, V, 3, H, W], RGB of the V wrist cameras: left and right, the only one, or none.
        proprio: float32 [B, P].
        instructions: B sentences.
    """

    head: Tensor
    wrist: Tensor
    proprio: Tensor
    instructions: Sequence[str]

    def __post_init__(self) -> None:
        """Refuse parts of different lengths."""
        lengths = {name: len(getattr(self, name)) for name in ("head", "wrist", "proprio", "instructions")}
        if len(set(lengths.values())) != 1:
            raise PolicyInputError(f"an observation's parts must have one length, not {lengths}")

    @classmethod
    def from_arrays(
        cls, head: np.ndarray, wrist: np.ndarray, proprio: np.ndarray, instructions: Sequence[str]
    ) -> Observation:
        """Wrap a simulator's or a shard's arrays without copying them.

        Args:
            head: uint8 [B, 3, H, W].
            wrist: uint8 [B, V, 3, H, W].
            proprio: float32 [B, P].
            instructions: B sentences.

        Returns:
            The observation, on the CPU.
        """
        return cls(torch.from_numpy(head), torch.from_numpy(wrist), torch.from_numpy(proprio), instructions)

    def __len__(self) -> int:
        """How many decisions: B."""
        return len(self.head)

    def cameras(self, images: int) -> list[Tensor]:
        """The pictures that a policy looks at.

        Args:
            images: how many a decision: 1 the head's, 2 and the first wrist's, 3 and the second's.

        Returns:
            uint8 [B, 1, 3, H, W] of the head, and [B, images - 1, 3, H', W'] of the wrists.

        Raises:
            PolicyInputError: there are fewer cameras.
        """
        there = 1 + self.wrist.shape[1]
        if images > there:
            wrists = f"{there - 1 or 'none'} at a wrist"
            raise PolicyInputError(
                f"the policy looks at {images} images, the simulator has {there} camera{'s' * (there > 1)}, {wrists}: "
                f"set policy.options.images={there}, or start from another policy.checkpoint"
            )
        return [self.head[:, None], self.wrist[:, : images - 1]]

    def __getitem__(self, rows: slice | Tensor | np.ndarray | Sequence[int]) -> Observation:
        """Some of the rows, in the order asked for.

        Args:
            rows: a slice, or indices [n].

        Returns:
            An observation of n decisions.
        """
        if isinstance(rows, slice):
            chosen = list(self.instructions[rows])
            return Observation(self.head[rows], self.wrist[rows], self.proprio[rows], chosen)
        index = torch.as_tensor(rows, dtype=torch.int64)
        chosen = [self.instructions[row] for row in index.tolist()]
        there = index.to(self.head.device)
        return Observation(self.head[there], self.wrist[there], self.proprio[there], chosen)

    def to(self, device: torch.device | str) -> Observation:
        """The same observation on another device."""
        head, wrist, proprio = (part.to(device, non_blocking=True) for part in (self.head, self.wrist, self.proprio))
        return Observation(head, wrist, proprio, self.instructions)


Taken = Mapping[str, Tensor]
"""Name -> [B, ...]: see `Decision.taken`."""


class Decision(NamedTuple):
    """What a policy decided.

    Attributes:
        actions: float32 [B, K, A], un-normalised, within the environment's [-1, 1] or, where demonstrations went beyond
            it, within theirs.
        taken: what `evaluate_actions` needs to find the same chunk again, by the names a shard stores it under. Of a
            policy over tokens: `tokens`, int64 [B, K, A] in [0, 256). Of a flow policy: `chain`, float32 [B, S, H, D],
            the noisy actions that its log-probs are of, and `step`, int64 [B], the denoising step that was drawn.
        log_probs: float32 [B, K, A], at the temperature asked for.
        values: float32 [B]; [B, K] of a policy that gives each action of a chunk a value.
    """

    actions: Tensor
    taken: Taken
    log_probs: Tensor
    values: Tensor


class Evaluation(NamedTuple):
    """What a policy now thinks of a chunk taken before; all with gradients.

    Attributes:
        log_probs: float32 [B, K, A].
        entropy: float32 [B, K, A]; None of a policy whose weights do not decide how widely it draws.
        values: float32 [B] or [B, K], as the decision's.
    """

    log_probs: Tensor
    entropy: Tensor | None
    values: Tensor


class Imitation(NamedTuple):
    """How far a policy is from demonstrated actions.

    Attributes:
        loss: float32 [], with gradient.
        metrics: name -> float32 [], without gradient: `action_error`, the mean absolute error of the actions in the
            environment's units, and what else the policy can tell.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor]


class Policy(nn.Module, abc.ABC):
    """A policy: a module whose parameters can be trained, saved and loaded.

    Training engines wrap `forward`, so that gathering parameters and casting happen around it: they call
    `engine("evaluate_actions", observation, taken, temperature=1.0)`, which is `policy.evaluate_actions(...)`.

    Attributes:
        name: its name in a config, a folder under `stages/policies`.
        chunk: K.
        action_dim: A.
        precision: what it computes in.
        chain_shape: (S, H, D) of a flow policy: S noisy actions, N + 1 where all N denoising steps draw and 2, before
            and after, where one does, over a horizon of H >= K steps of D >= A numbers. None of a policy over tokens.
    """

    name: ClassVar[str]
    chunk: int
    action_dim: int
    precision: Precision
    chain_shape: tuple[int, int, int] | None = None
    statistics: Statistics

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(self, call: str, *args: Any, **kwargs: Any) -> Any:
        """Run `act`, `evaluate_actions` or `imitation_loss` by name, for engines that wrap `forward`."""
        if call not in ("act", "evaluate_actions", "imitation_loss"):
            raise ValueError(f"a policy has no call {call!r}: act, evaluate_actions, imitation_loss")
        return getattr(self, call)(*args, **kwargs)

    def accelerate(self) -> None:
        """Make acting faster for a policy that stays as it is: the first calls take longer, to compile."""
        prepare_blocks(self, compiled=True)

    @property
    @abc.abstractmethod
    def steered(self) -> Tensor:
        """Which action numbers its choices decide, bool [A]; the others were constant in all demonstrations."""

    @abc.abstractmethod
    def draw_noise(self, rng: np.random.Generator, coherent: bool = False) -> np.ndarray:
        """Draw the randomness of one decision from an episode's own stream, so that no batch can change it.

        Args:
            rng: the episode's generator.
            coherent: one number a dimension, shared by the chunk's steps, so that a chunk explores in one direction.

        Returns:
            float32, of a shape that is the policy's own and always the same, to be stacked into `act`'s noise; [K, A]
            of a policy over tokens.
        """

    def draw_imitation_noise(self, rng: np.random.Generator, decisions: int) -> np.ndarray | None:
        """Draw the randomness of `imitation_loss`; rows are drawn in order, whoever gets them.

        Args:
            rng: the training step's generator.
            decisions: B.

        Returns:
            float32 [B, ...] of the policy's own shape; None of a policy whose loss has none.
        """
        return None

    @abc.abstractmethod
    def act(self, observation: Observation, noise: Tensor | None = None, temperature: float = 1.0) -> Decision:
        """Decide, without gradients.

        Args:
            observation: B decisions.
            noise: [B, ...], rows from `draw_noise`; None takes the most likely actions.
            temperature: how widely actions are drawn: it divides the logits of a policy over tokens, and multiplies the
                noise level of a flow policy. Log-probs are those of the distribution sampled from.

        Returns:
            The decision.
        """

    @abc.abstractmethod
    def evaluate_actions(self, observation: Observation, taken: Taken, temperature: float = 1.0) -> Evaluation:
        """Judge chunks taken before, with gradients.

        Args:
            observation: B decisions, as they were seen.
            taken: `Decision.taken` of these decisions.
            temperature: as it was.

        Returns:
            Log-probs, entropy and values; equal to `act`'s for the same parameters.
        """

    @abc.abstractmethod
    def imitation_loss(
        self,
        observation: Observation,
        actions: Tensor,
        mask: Tensor,
        label_sigma_bins: float = 0.0,
        noise: Tensor | None = None,
    ) -> Imitation:
        """Compare with demonstrated actions.

        Args:
            observation: B decisions.
            actions: float32 [B, K, A] in the environment's units.
            mask: bool [B, K], which of the steps count.
            label_sigma_bins: width of the label around the demonstrated action, in token bins; 0 is a hard label. A
                flow policy has no bins and takes no notice.
            noise: [B, ...], rows of `draw_imitation_noise`; None where that gives none.

        Returns:
            The loss over the steps that count, and how near the actions are.
        """

    @abc.abstractmethod
    def save(self, directory: Path | str, state: Mapping[str, Tensor] | None = None) -> None:
        """Write the policy in a Hugging Face layout: config, weights, dataset statistics, tokenizer; nothing pickled.

        Args:
            directory: an existing directory; files of the same name are replaced.
            state: parameters by name to write instead of this module's own (gathered by an engine that split them).
        """


def make(name: str, options: Mapping[str, Any], statistics: Statistics, seed: int) -> Policy:
    """Create a fresh policy.

    Args:
        name: folder name under `stages/policies`.
        options: fields of the policy's config, and `preset` to start from.
        statistics: of the demonstrations it will imitate.
        seed: decides every initial weight.

    Returns:
        The policy, on the CPU.

    Raises:
        PolicyConfigError: no policy has this name, or an option is wrong.
    """
    policy: Policy = _package(name).make(options, statistics, seed)
    return policy


def load(
    directory: Path | str,
    device: torch.device | str = "cpu",
    precision: Precision | None = None,
    options: Mapping[str, Any] | None = None,
    statistics: Statistics | str | None = None,
    seed: int | None = None,
    name: str | None = None,
) -> Policy:
    """Load what `save` wrote, or a policy that someone published.

    Args:
        directory: of the policy.
        device: where to put it.
        precision: what to compute in; None keeps what the config says.
        options: fields of the policy's config that are to differ.
        statistics: to normalise by, or the name of a data set that the policy knows; None for the only one it knows.
        seed: draws parts that a policy to start from may lack, as its value head; None refuses a policy that lacks any.
        name: of the policy that it must be, and that reads files without a config.json; None: what config.json says.

    Returns:
        The policy.

    Raises:
        PolicyFileError: a file is missing or damaged, a tensor is missing, unknown or of another shape, or the policy
            is another than `name`.
    """
    path = Path(directory) / "config.json"
    found = _family(path) or name
    if found is None:
        raise PolicyFileError(f"{path} is missing: is {directory} a saved policy?")
    if name not in (None, found):
        raise PolicyFileError(f"{directory} holds a policy of {found}, not of {name}: set policy.name={found}")
    policy: Policy = _package(found).load(Path(directory), device, precision, options, statistics, seed)
    return policy


def _family(path: Path) -> str | None:
    """The package that reads the policy of a config.json; None where there is no such file, as beside openpi's."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if "action_horizon" in record and "baton" not in record:  # openpi's own converter names no model
            return "pi0"
        if "baton" in record:
            return str(record["baton"]["policy"])
        return "pi0" if OPENPI in record else PUBLISHED[record["model_type"]]
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise PolicyFileError(f"{path} is damaged ({error!r}): take the policy from its artifact again") from None


def nearest(word: str, known: Sequence[str]) -> str:
    """A remedy for a name nobody knows: the nearest known one, or all of them."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _package(name: str) -> Any:
    package = f"stages.policies.{name}"
    if not isinstance(name, str) or not name.isidentifier() or importlib.util.find_spec(package) is None:
        raise PolicyConfigError(f"no policy is called {name!r}: openvla_oft and pi0 are there")
    return importlib.import_module(package)

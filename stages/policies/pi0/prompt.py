"""The prompt of a decision and its tokens, in pi0's form and in pi0.5's, which can spell out the proprioception.

Any `tokenizer.json` serves: the small one that ships with this package, or PaliGemma's
(google/paligemma-3b-pt-224), whose conventions it shares: 0 is padding, 2 begins a text.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stages.policies import tokenizer_files
from stages.policies.interface import PolicyInputError
from stages.policies.pi0.config import Pi0Config
from stages.policies.statistics import PolicyFileError

DIRECTORY = Path(__file__).parent / "tokenizer"
COMPANIONS = ("tokenizer.model", "special_tokens_map.json", "added_tokens.json")
"""Files that other tools look for beside a policy; Baton only copies them."""
PAD, BOS = 0, 2
BINS = 256
"""Of each number of the proprioception, over [-1, 1]."""


class Prompts(NamedTuple):
    """The prompts of a batch, padded on the right to a common length L.

    Attributes:
        ids: int64 [B, L].
        valid: bool [B, L], False at padding; None when nothing is padded.
    """

    ids: Tensor
    valid: Tensor | None


class PromptTokenizer:
    """Turns instructions into token ids."""

    def __init__(self, config: Pi0Config, directory: Path = DIRECTORY) -> None:
        """Read a tokenizer.

        Args:
            config: says which ids there may be, and the form of a prompt.
            directory: of its `tokenizer.json`.

        Raises:
            PolicyFileError: the file is missing, damaged, or of more tokens than the network has embeddings.
        """
        remedy = "copy PaliGemma's there (of google/paligemma-3b-pt-224), or the policy's own"
        self._tokenizer = tokenizer_files.read(directory, remedy)
        size = self._tokenizer.get_vocab_size()
        if size > config.vocab_size:
            raise PolicyFileError(
                f"{directory / tokenizer_files.FILES[0]} has {size} tokens, the network has {config.vocab_size}: "
                "take both from one policy"
            )
        self._config = config
        self._directory = directory
        self._encoded = functools.lru_cache(maxsize=4096)(self._encode)

    def encode(self, instruction: str, state: np.ndarray | None = None) -> tuple[int, ...]:
        """The ids of a prompt.

        Args:
            instruction: a sentence.
            state: normalised proprioception [P], where the prompt spells it out.

        Returns:
            BOS and the prompt.

        Raises:
            PolicyInputError: the prompt is longer than the config's `prompt_length`.
        """
        ids = self._encoded(text_of(instruction, state))
        if len(ids) > self._config.prompt_length:
            raise PolicyInputError(
                f"the prompt of {instruction!r} has {len(ids)} tokens, prompt_length is "
                f"{self._config.prompt_length}: set it to {len(ids)} or more"
            )
        return ids

    def batch(
        self, instructions: Sequence[str], states: np.ndarray | None, whole: bool, device: torch.device
    ) -> Prompts:
        """The prompts of a batch.

        Args:
            instructions: B sentences.
            states: normalised proprioception [B, P], where prompts spell it out.
            whole: pad to `prompt_length` instead of to the longest prompt.
            device: where the tensors go.

        Returns:
            The prompts.
        """
        vectors = [None] * len(instructions) if states is None else list(states)
        rows = [self.encode(text, state) for text, state in zip(instructions, vectors, strict=True)]
        length = self._config.prompt_length if whole else max(map(len, rows), default=0)
        ids = np.full((len(rows), length), PAD, dtype=np.int64)
        valid = np.zeros((len(rows), length), dtype=bool)
        for row, mask, tokens in zip(ids, valid, rows, strict=True):
            row[: len(tokens)] = tokens
            mask[: len(tokens)] = True
        return Prompts(torch.from_numpy(ids).to(device), None if valid.all() else torch.from_numpy(valid).to(device))

    def save(self, directory: Path) -> None:
        """Copy the tokenizer's files to a policy's directory."""
        tokenizer_files.copy(self._directory, directory, COMPANIONS)

    def _encode(self, text: tuple[str, ...]) -> tuple[int, ...]:
        """BOS and the pieces of a text, each encoded by itself."""
        pieces = self._tokenizer.encode_batch(list(text), add_special_tokens=False)
        return (BOS, *(token for piece in pieces for token in piece.ids))


def text_of(instruction: str, state: np.ndarray | None) -> tuple[str, ...]:
    """The pieces of a prompt, as openpi's `PaligemmaTokenizer` makes them.

    Args:
        instruction: a sentence.
        state: normalised proprioception [P], or None.

    Returns:
        pi0's form without a state: the sentence, and the line's end as a piece of its own. Else pi0.5's in one piece.
    """
    cleaned = instruction.strip().replace("_", " ").replace("\n", " ")
    if state is None:
        return (cleaned, "\n")
    numbers = " ".join(map(str, discrete(state)))
    return (f"Task: {cleaned}, State: {numbers};\nAction: ",)


def discrete(state: np.ndarray) -> list[int]:
    """Bins of normalised numbers [P]: 0 to 255 over [-1, 1), and -1 below it, as openpi's."""
    found = np.digitize(state, bins=np.linspace(-1, 1, BINS + 1)[:-1]) - 1
    return [int(index) for index in found]

"""The prompt of an instruction, its tokens, and batches of them.

Any `tokenizer.json` serves: the tiny preset's own, which ships with this package, or Llama's for the 7B.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stages.policies import tokenizer_files
from stages.policies.interface import PolicyInputError
from stages.policies.openvla_oft.config import OpenVLAOFTConfig
from stages.policies.openvla_oft.sequence import BOS, Prompts
from stages.policies.statistics import PolicyFileError

DIRECTORY = Path(__file__).parent / "tokenizer"
COMPANIONS = (
    *("tokenizer.model", "special_tokens_map.json", "added_tokens.json", "generation_config.json"),
    *("configuration_prismatic.py", "modeling_prismatic.py", "processing_prismatic.py"),
)
"""Files that the originals' tools look for beside a policy; Baton only copies them."""
PROMPT = "In: What action should the robot take to {instruction}?\nOut: "


class PromptTokenizer:
    """Turns instructions into token ids, remembering those it has seen."""

    def __init__(self, config: OpenVLAOFTConfig, directory: Path = DIRECTORY) -> None:
        """Read a tokenizer.

        Args:
            config: says which ids the vocabulary has and how a prompt ends.
            directory: of its `tokenizer.json`.

        Raises:
            PolicyFileError: the file is missing, damaged, or of another vocabulary.
        """
        self._tokenizer = tokenizer_files.read(directory)
        size = self._tokenizer.get_vocab_size()
        if size not in (config.vocab_size, config.vocab_size + 1):
            raise PolicyFileError(
                f"{directory / tokenizer_files.FILES[0]} has {size} tokens, the config's vocab_size is "
                f"{config.vocab_size}: take both from one policy"
            )
        self._config = config
        self._directory = directory
        self._seen: dict[str, list[int]] = {}

    def encode(self, instruction: str) -> list[int]:
        """The ids of an instruction's prompt.

        Args:
            instruction: a sentence; upper case does not matter.

        Returns:
            BOS, the prompt, and the lone space last.

        Raises:
            PolicyInputError: the prompt does not end with the token the config names.
        """
        ids = self._seen.get(instruction)
        if ids is None:
            prompt = PROMPT.format(instruction=instruction.lower())
            ids = [BOS, *self._tokenizer.encode(prompt, add_special_tokens=False).ids]
            if ids[-1] != self._config.prompt_end_id:
                raise PolicyInputError(
                    f"the prompt of {instruction!r} ends with token {ids[-1]}, not {self._config.prompt_end_id}: "
                    "the tokenizer is not the one this policy was trained with"
                )
            self._seen[instruction] = ids
        return ids

    def batch(self, instructions: Sequence[str], device: torch.device) -> Prompts:
        """The prompts of a batch.

        Args:
            instructions: B sentences.
            device: where the tensors go.

        Returns:
            The prompts.
        """
        rows = [self.encode(instruction)[1:] for instruction in instructions]
        length = max(map(len, rows), default=0)
        if self._config.prompt_length:
            if length >= self._config.prompt_length:
                longest = max(instructions, key=lambda instruction: len(self.encode(instruction)))
                raise PolicyInputError(
                    f"the prompt of {longest!r} has {length + 1} tokens, "
                    f"prompt_length is {self._config.prompt_length}: set it to {length + 1} or more"
                )
            length = self._config.prompt_length - 1
        if all(len(row) == length for row in rows):
            return Prompts(torch.tensor(rows, dtype=torch.int64, device=device), None)
        ids = np.full((len(rows), length), self._config.pad_id, dtype=np.int64)
        for row, tokens in zip(ids, rows, strict=True):
            row[length - len(tokens) :] = tokens
        valid = ids != self._config.pad_id
        return Prompts(torch.from_numpy(ids).to(device), torch.from_numpy(valid).to(device))

    def save(self, directory: Path) -> None:
        """Copy the tokenizer's files to a policy's directory."""
        tokenizer_files.copy(self._directory, directory, COMPANIONS)

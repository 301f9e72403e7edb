"""The sequence the language model reads: [BOS][patches][proprioception][padding][prompt][zeroed actions][</s>].

The originals pad in two ways, RLinf's `rlinf` before the prompt and its `official` after the stop token. Padding is
seen by no position and takes up no place in the count of positions, so both give the same numbers everywhere else, and
there is one order here, in which all rows of a batch are read at the same places.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stages.policies.openvla_oft.config import OpenVLAOFTConfig

BOS, STOP = 1, 2


class Prompts(NamedTuple):
    """The prompts of a batch without their BOS, padded on the left to a common length L.

    Attributes:
        ids: int64 [B, L].
        valid: bool [B, L], False at padding; None when nothing is padded.
    """

    ids: Tensor
    valid: Tensor | None


class Inputs(NamedTuple):
    """What the network sees of a batch of decisions.

    Attributes:
        dino: [B n, patches, 3 p p], the images' patches of 0..255 less 128, from `vision.cut`.
        siglip: likewise; the same tensor, unless each tower is given pixels of its own.
        prompts: the instructions.
        proprio: [B, P] in [-1, 1]; None without proprioception.
    """

    dino: Tensor
    siglip: Tensor
    prompts: Prompts
    proprio: Tensor | None


class Sequence(NamedTuple):
    """A batch of sequences.

    Attributes:
        embeddings: [B, S, hidden].
        valid: bool [B, S], False at padding; None when nothing is padded.
        read: the places where actions are read, one early: from the prompt's last token on.
    """

    embeddings: Tensor
    valid: Tensor | None
    read: slice

    def value_places(self, actions: int) -> Tensor:
        """Where RLinf's `official` reads values: `actions` + 1 before the end, were the padding after the stop token.

        Args:
            actions: positions of actions.

        Returns:
            int64 [B]. For a row with more padding than actions that place is padding, and here the first of it: all
            padding of a row is alike.
        """
        rows, length = self.embeddings.shape[:2]
        if self.valid is None:
            return torch.full((rows,), length - 1 - actions, device=self.embeddings.device)
        padding = (~self.valid).sum(dim=1)
        return torch.where(padding <= actions, length - 1 - actions + padding, (~self.valid).long().argmax(dim=1))


def lay(
    config: OpenVLAOFTConfig, words: Tensor, prompts: Prompts, patches: Tensor, proprio: Tensor | None, actions: Tensor
) -> Sequence:
    """Put a batch of sequences together.

    Args:
        config: the policy's.
        words: [B, 1 + L + s, hidden], embeddings of BOS, the prompts and, where there is one (s = 1), the stop token.
        prompts: what the L are.
        patches: [B, n patches, hidden].
        proprio: [B, 1, hidden], or None.
        actions: [B, positions, hidden].

    Returns:
        The sequences.
    """
    length, stops = prompts.ids.shape[1], int(config.stop_token)
    parts = [words[:, :1], patches] if proprio is None else [words[:, :1], patches, proprio]
    parts += [words[:, 1 : 1 + length], actions, words[:, 1 + length :]]
    embeddings = torch.cat(parts, dim=1)
    read = slice(-config.positions - 1 - stops, -1 - stops)  # from the end, where prompts of all lengths are alike
    if prompts.valid is None:
        return Sequence(embeddings, None, read)
    before = embeddings.shape[1] - length - config.positions - stops
    left, right = (prompts.valid.new_ones(len(words), width) for width in (before, config.positions + stops))
    return Sequence(embeddings, torch.cat([left, prompts.valid, right], dim=1), read)


def mean_word(words: Tensor, prompts: Prompts) -> Tensor:
    """The mean of all words that are not padding, which modulates the towers where there is FiLM.

    Args:
        words: [B, 1 + L + s, hidden], as in `lay`.
        prompts: what the L are.

    Returns:
        [B, hidden].
    """
    if prompts.valid is None:
        return words.mean(dim=1)
    stops = words.shape[1] - 1 - prompts.ids.shape[1]
    left, right = (prompts.valid.new_ones(len(words), width) for width in (1, stops))
    weight = torch.cat([left, prompts.valid, right], dim=1).to(words.dtype)[..., None]
    return (words * weight).sum(dim=1) / weight.sum(dim=1)

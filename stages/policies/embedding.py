"""Tables of vectors whose weights are drawn or loaded by whoever builds the policy."""

from __future__ import annotations

from torch import nn


class Embedding(nn.Embedding):
    """`nn.Embedding` that begins with no weights in particular."""

    def reset_parameters(self) -> None:
        """Draw nothing: on the meta device torch would import its compiler for it, which takes every stage a second."""

"""PaliGemma and the action expert, put together under the names of their published tensors.

PaliGemma's `lm_head` is the embedding of the prompt's tokens: the two are tied, and the files hold the one. The
expert's `lm_head` is in the files too, and nothing reads it: the policy carries it along.
"""

from __future__ import annotations

from torch import nn

from stages.policies.embedding import Embedding
from stages.policies.pi0.config import Pi0Config
from stages.policies.pi0.gemma import Stream
from stages.policies.pi0.vision import Projector, VisionTower


class PaliGemmaModel(nn.Module):
    """The tower, the projector and the language model without its embedding."""

    def __init__(self, config: Pi0Config) -> None:
        """Build the parts.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.vision_tower = VisionTower(config)
        self.multi_modal_projector = Projector(config)
        self.language_model = Stream(config, config.vlm, adaptive=False)


class PaliGemma(nn.Module):
    """PaliGemma under its published names."""

    def __init__(self, config: Pi0Config) -> None:
        """Build the parts.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.model = PaliGemmaModel(config)
        self.lm_head = Embedding(config.vocab_size, config.vlm.width)


class Expert(nn.Module):
    """The action expert under its published name."""

    def __init__(self, config: Pi0Config) -> None:
        """Build the stream.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.model = Stream(config, config.expert, adaptive=config.version == "pi05")


class PaliGemmaWithExpert(nn.Module):
    """Both streams."""

    def __init__(self, config: Pi0Config) -> None:
        """Build the streams.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.paligemma = PaliGemma(config)
        self.gemma_expert = Expert(config)

"""pi0 and pi0.5, flow-matching policies, from a laptop's tiny preset to the published 3.3 B parameters.

The networks are modules of this package: transformers' PI0ForConditionalGeneration has no pi0.5, names its parameters
otherwise than the published checkpoints, and grows and crops its cache at every denoising step, which no CUDA graph can
record.
"""

from stages.policies.pi0.checkpoint import load, make

__all__ = ["load", "make"]

"""How the small tokenizer was made: a byte-level BPE over prompts of household instructions.

`python -m stages.policies.pi0.train_tokenizer` writes the same files again. The conventions are PaliGemma's: 0 is
padding, 1 ends a text, 2 begins one, 3 is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer

from stages.policies import tokenizer_training
from stages.policies.pi0.config import PRESETS
from stages.policies.pi0.prompt import BINS, DIRECTORY, text_of

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
PIECES = r"\n| ?[A-Za-z]+:?| ?-?[0-9]+|[^\sA-Za-z0-9]| "
ABOUT = {
    **{"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
    "padding_side": "right",
}


def corpus() -> Iterator[str]:
    """Prompts of both forms: the instructions, and every bin of the proprioception."""
    for instruction in tokenizer_training.instructions():
        yield f"{instruction}\n"
    for start in range(BINS):
        state = ((np.arange(start, start + 14) % BINS) + 0.5) / BINS * 2 - 1
        yield from text_of("put the red cube on the plate", state)


def train() -> Tokenizer:
    """Train the tokenizer.

    Returns:
        The tokenizer, with as many ids as the tiny preset has.
    """
    return tokenizer_training.train(corpus(), PIECES, PRESETS["tiny"].vocab_size, SPECIAL)


if __name__ == "__main__":
    tokenizer_training.write(train(), DIRECTORY, ABOUT)

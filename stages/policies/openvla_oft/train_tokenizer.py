"""How the tiny preset's tokenizer was made: a byte-level BPE over prompts of household instructions.

`python -m stages.policies.openvla_oft.train_tokenizer` writes the same files again. The conventions are those of
OpenVLA's Llama tokenizer: `<s>` is 1, `</s>` is 2, the last 256 ids of the vocabulary are the action tokens, `<PAD>`
comes right after it, and a prompt ends with a token that is one lone space.
"""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer

from stages.policies import tokenizer_training
from stages.policies.openvla_oft.config import ACTION_BINS, PRESETS
from stages.policies.openvla_oft.prompt import DIRECTORY, PROMPT

ABOUT = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<PAD>", "padding_side": "left"}


def train() -> Tokenizer:
    """Train the tokenizer.

    The fixed parts of the prompt are pieces of their own, so that each becomes a single token, and no merge can
    swallow the lone space at the end.

    Returns:
        The tokenizer, with as many ids as the tiny preset says.
    """
    prompts = (PROMPT.format(instruction=instruction) for instruction in tokenizer_training.instructions())
    head, tail = (part.strip() for part in PROMPT.split("{instruction}"))
    pieces = rf"{head}|{tail}".replace("?", r"\?") + r"| \z| ?[^\s?:.,]+"
    size = PRESETS["tiny"].vocab_size - ACTION_BINS
    tokenizer = tokenizer_training.train(prompts, pieces, size, ["<unk>", "<s>", "</s>"])
    names = [f"<action_{index:03d}>" for index in range(ACTION_BINS)]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in [*names, "<PAD>"]])
    return tokenizer


if __name__ == "__main__":
    tokenizer_training.write(train(), DIRECTORY, ABOUT)

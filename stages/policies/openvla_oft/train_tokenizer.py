"""How the tiny preset's tokenizer was made: a byte-level BPE over prompts of household instructions.

`python -m stages.policies.openvla_oft.train_tokenizer` writes the same files again. The conventions are those of
OpenVLA's Llama tokenizer: `<s>` is 1, `</s>` is 2, the last 256 ids of the vocabulary are the action tokens, `<PAD>`
comes right after it, and a prompt ends with a token that is one lone space.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.policies.openvla_oft.config import ACTION_BINS, PRESETS
from stages.policies.openvla_oft.prompt import DIRECTORY, PROMPT


def _words(text: str) -> list[str]:
    return text.split()


OBJECTS = _words(
    "cube block ball bowl plate cup mug bottle can box book apple banana carrot bread pan pot lid spoon fork knife "
    "sponge towel drawer door cabinet shelf table counter sink stove oven microwave fridge basket tray bin trash toy "
    "shoe shirt lamp radio chair button switch handle lever peg hole ring hammer screwdriver marker eraser phone "
    "laptop remote clock candle plant vase jar kettle teapot glass napkin soap brush bag hat key coin card dice "
    "rope wood metal floor window corner middle hand arm object target package can opener cutting board"
)
COLOURS = _words("red green blue yellow orange purple pink black white brown gray")
VERBS = _words(
    "put place move push pull pick lift stack open close turn rotate slide hand insert pour wipe clean sort hang press "
    "throw take bring carry hold give drop store fold assemble hit reach align cover remove fill empty grasp"
)
JOINTS = _words(
    "on onto in into inside under next to beside behind between above from with over to the left of to the right of "
    "near at off up down out back and then both each all two three four arms top bottom left right front a an one"
)


def corpus() -> Iterator[str]:
    """Prompts in which every word of the lists above occurs, with and without a leading object or place."""
    words = list(dict.fromkeys([*OBJECTS, *COLOURS, *VERBS, *JOINTS]))
    for word in words:
        yield from itertools.repeat(PROMPT.format(instruction=f"put the {word} on the plate"), 3)
    for colour, thing in itertools.product(COLOURS, OBJECTS[:12]):
        yield PROMPT.format(instruction=f"pick up the {colour} {thing} and place it onto the plate")
        yield PROMPT.format(instruction=f"stack the {colour} {thing} on the blue cube")
    for verb in VERBS:
        yield PROMPT.format(instruction=f"{verb} the red cube")


def train() -> Tokenizer:
    """Train the tokenizer.

    The fixed parts of the prompt are pieces of their own, so that each becomes a single token, and no merge can
    swallow the lone space at the end.

    Returns:
        The tokenizer, with as many ids as the tiny preset says.
    """
    config = PRESETS["tiny"]
    head, tail = (part.strip() for part in PROMPT.split("{instruction}"))
    pieces = Regex(rf"{head}|{tail}".replace("?", r"\?") + r"| \z| ?[^\s?:.,]+")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size - ACTION_BINS,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    if tokenizer.get_vocab_size() != config.vocab_size - ACTION_BINS:
        raise ValueError(f"the corpus is too small: it gave {tokenizer.get_vocab_size()} tokens")
    names = [f"<action_{index:03d}>" for index in range(ACTION_BINS)]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in [*names, "<PAD>"]])
    return tokenizer


def main(directory: Path = DIRECTORY) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`.

    Args:
        directory: where to; the package's own by default.
    """
    train().save(str(directory / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<PAD>",
        "padding_side": "left",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

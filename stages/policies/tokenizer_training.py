"""Training the small tokenizers: a byte-level BPE over sentences of household instructions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.policies.tokenizer_files import FILES


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


def instructions() -> Iterator[str]:
    """Sentences in which every word of the lists above occurs, with and without a leading object or place."""
    words = list(dict.fromkeys([*OBJECTS, *COLOURS, *VERBS, *JOINTS]))
    for word in words:
        yield from itertools.repeat(f"put the {word} on the plate", 3)
    for colour, thing in itertools.product(COLOURS, OBJECTS[:12]):
        yield f"pick up the {colour} {thing} and place it onto the plate"
        yield f"stack the {colour} {thing} on the blue cube"
    for verb in VERBS:
        yield f"{verb} the red cube"


def train(corpus: Iterable[str], pieces: str, size: int, special: Sequence[str]) -> Tokenizer:
    """Train a tokenizer.

    Args:
        corpus: the texts.
        pieces: regular expression of what a text is split into; no token spans two pieces.
        size: tokens.
        special: the first of them; `<unk>` must be there.

    Returns:
        The tokenizer.

    Raises:
        ValueError: the texts give fewer tokens.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    if tokenizer.get_vocab_size() != size:
        raise ValueError(f"the corpus is too small: it gave {tokenizer.get_vocab_size()} tokens")
    return tokenizer


def write(tokenizer: Tokenizer, directory: Path, about: dict[str, str]) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`.

    Args:
        tokenizer: the tokenizer.
        directory: where to.
        about: its special tokens and the side of padding, as transformers asks for them.
    """
    tokenizer.save(str(directory / FILES[0]))
    record = {"tokenizer_class": "PreTrainedTokenizerFast"} | about
    (directory / FILES[1]).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

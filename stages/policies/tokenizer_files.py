"""Tokenizers beside a policy's weights: reading one, and copying its files along."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from stages.policies.statistics import REMEDY, PolicyFileError

FILES = ("tokenizer.json", "tokenizer_config.json")


def read(directory: Path, remedy: str = REMEDY) -> Tokenizer:
    """Read a directory's tokenizer.

    Args:
        directory: of its `tokenizer.json`.
        remedy: what to do where there is none.

    Returns:
        The tokenizer.

    Raises:
        PolicyFileError: the file is missing or damaged.
    """
    path = directory / FILES[0]
    if not path.is_file():
        raise PolicyFileError(f"{path} is missing: {remedy}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises a bare Exception whatever is wrong with the file
        raise PolicyFileError(f"{path} is damaged ({error}): {REMEDY}") from None


def copy(source: Path, target: Path, companions: Iterable[str]) -> None:
    """Copy a tokenizer to a policy's directory.

    Args:
        source: its directory.
        target: the policy's, which may be the same.
        companions: names of more files that go along where they are there.
    """
    for name in (*FILES, *companions):
        file = source / name
        if file.is_file() and file.resolve() != (target / name).resolve():
            shutil.copyfile(file, target / name)

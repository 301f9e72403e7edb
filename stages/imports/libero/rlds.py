"""OpenVLA's modified LIBERO set: RLDS episodes as TFDS stores them, in TFRecord files.

    SET/1.0.0/{features.json,dataset_info.json,NAME-train.tfrecord-00000-of-00016,...}

A record is an episode of T steps; each feature holds the values of all steps, one behind the other:
steps/{action float [7 T], observation/{image,wrist_image} T JPEG or PNG files, observation/state float [8 T],
language_instruction T strings, reward, is_last, ...}, episode_metadata/file_path.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline import artifacts
from pipeline.errors import UserError
from stages.imports.films import AGAIN, first_line
from stages.imports.libero import tasks
from stages.imports.libero.conventions import ACTION_NUMBERS, STATE_NUMBERS
from stages.imports.libero.formats import Numbers
from stages.imports.libero.tfrecord import Record, records
from stages.imports.source import Episode
from stages.simulators.libero.catalogue import entries

FILE = re.compile(r".+-train\.tfrecord-(\d{5})-of-(\d{5})")
PATTERNS = ("*.tfrecord-*", "*/*.tfrecord-*", "*/*/*.tfrecord-*")  # in 1.0.0, in SET/1.0.0, above both
INFO = "dataset_info.json"
ACTION, STATE, REWARD = "steps/action", "steps/observation/state", "steps/reward"
VIEWS = ("steps/observation/image", "steps/observation/wrist_image")
INSTRUCTION, SOURCE = "steps/language_instruction", "episode_metadata/file_path"


@dataclasses.dataclass(frozen=True)
class _Found:
    """A record and what it says of itself."""

    record: Record
    instruction: str
    source: str


class Rlds:
    """See `stages.imports.libero.formats.Format`. Episodes are numbered as they lie in the files, from 0.

    Args:
        path: the directory with the TFRecord files, or one above it that holds one set.
        chosen: names of the tasks that are wanted.
    """

    name, turned, starts = "rlds", True, False

    def __init__(self, path: Path, chosen: Sequence[str]) -> None:
        """Find out what each record holds.

        Raises:
            UserError: a file is missing or damaged, or an instruction belongs to several tasks.
        """
        self.path = path
        self._files = _files(path)
        lengths = _lengths(self._files[0].with_name(INFO))
        found = []
        for place, file in enumerate(self._files):
            held = [_described(record) for record in records(file)]
            if lengths and len(held) != lengths[place]:
                raise UserError(f"{file} holds {len(held)} records, {INFO} says {lengths[place]}; {AGAIN}")
            found += held
        of_instruction = tasks.ByInstruction(path, {each.instruction for each in found}, chosen)
        self._others = sorted({each.instruction for each in found})
        self._records: dict[int, Record] = {}
        self._episodes = []
        for number, each in enumerate(found):
            named = tasks.of_file(each.source)
            task = named if named in entries() else of_instruction(each.instruction)
            if task in chosen and task is not None:
                self._records[number] = each.record
                self._episodes.append(Episode(number, task, each.record.count_floats(ACTION) // ACTION_NUMBERS))
        self.picture_size = 0
        if self._episodes:
            first = self.pictures(self._episodes[0], np.zeros(1, int))[0]
            self.picture_size = first.shape[1]

    def episodes(self) -> list[Episode]:
        """See Format.episodes."""
        return self._episodes

    def others(self) -> list[str]:
        """See Format.others."""
        return self._others

    def grippers(self) -> Iterator[np.ndarray]:
        """See Format.grippers."""
        for record in self._records.values():
            yield _rows(record, ACTION, ACTION_NUMBERS)[:, -1]

    def numbers(self, episode: Episode) -> Numbers:
        """See Format.numbers."""
        record = self._records[episode.number]
        record.verify()
        actions, states = _rows(record, ACTION, ACTION_NUMBERS), _rows(record, STATE, STATE_NUMBERS)
        if len(actions) != len(states):
            raise UserError(f"{_place(record)} has {len(actions)} actions and {len(states)} states; {AGAIN}")
        rewards = record.floats(REWARD)
        return Numbers(actions, states, success=not len(rewards) or bool(rewards.any()))

    def pictures(self, episode: Episode, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Format.pictures."""
        scene, wrist = (_decoded(self._records[episode.number], view, episode.frames, rows) for view in VIEWS)
        return scene, wrist

    def digests(self) -> dict[str, str]:
        """See Format.digests."""
        info = self._files[0].parent / INFO
        return {info.name: artifacts.checksum(info)}


def holds(path: Path) -> bool:
    """Whether there are TFRecord files in a directory, or not far below it."""
    return any(any(path.glob(pattern)) for pattern in PATTERNS)


def _files(path: Path) -> list[Path]:
    """The files of the one set that is there, all of them."""
    folders = sorted({file.parent for pattern in PATTERNS for file in path.glob(pattern)})
    if len(folders) != 1:
        names = ", ".join(str(folder.relative_to(path)) for folder in folders)
        raise UserError(f"{path} holds several sets of TFRecord files ({names}); name the directory of one of them")
    files = sorted(file for file in folders[0].iterdir() if FILE.fullmatch(file.name))
    if not (folders[0] / INFO).is_file() or not files:
        raise UserError(f"{folders[0]} is no set of TFDS: it has no {INFO}; {AGAIN}")
    total = int(FILE.fullmatch(files[0].name)[2])  # type: ignore[index]
    if len(files) != total:
        raise UserError(f"{folders[0]}: {len(files)} of {total} TFRecord files are there; download the others")
    return files


def _lengths(info: Path) -> list[int]:
    """How many records each file has to hold; empty where that is not said."""
    try:
        splits = json.loads(info.read_bytes()).get("splits", [])
        return [int(length) for split in splits if split["name"] == "train" for length in split["shardLengths"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{info} cannot be read; {AGAIN}") from None


def _described(record: Record) -> _Found:
    instructions = record.texts(INSTRUCTION)
    if not instructions or not record.count_floats(ACTION):
        missing = INSTRUCTION if not instructions else ACTION
        raise UserError(f"{_place(record)} has no feature {missing}; name a set of LIBERO's")
    sources = record.texts(SOURCE)
    return _Found(record, instructions[0].decode(), sources[0].decode() if sources else "")


def _rows(record: Record, name: str, width: int) -> np.ndarray:
    """A feature as float32 [T, width]."""
    numbers = record.floats(name)
    if not len(numbers) or len(numbers) % width:
        raise UserError(f"{_place(record)} has {len(numbers)} numbers of {name}, not {width} a step; {AGAIN}")
    return numbers.reshape(-1, width)


def _decoded(record: Record, view: str, frames: int, rows: np.ndarray) -> np.ndarray:
    """Some pictures of a record, uint8 [n, H, W, 3]."""
    from PIL import Image, UnidentifiedImageError

    files = record.pieces(view)
    if len(files) != frames:
        raise UserError(f"{_place(record)} has {len(files)} pictures of {view} and {frames} actions; {AGAIN}")
    try:
        return np.stack([np.asarray(Image.open(io.BytesIO(files[row])).convert("RGB")) for row in rows])
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise UserError(
            f"{_place(record)}: a picture of {view} cannot be read ({first_line(error)}); {AGAIN}"
        ) from None


def _place(record: Record) -> str:
    return f"{record.path}: the record at byte {record.place}"

"""TFRecord files and the `tf.train.Example`s in them, read without TensorFlow and no further than asked for.

A file is a row of records: length uint64, masked CRC32C of the length, the data, masked CRC32C of the data
(tensorflow/core/lib/io/record_writer.h). The data is a protocol buffer (tensorflow/core/example/example.proto):

    Example.features = 1 -> Features.feature = 1, a map: key = 1 (string), value = 2 (Feature)
    Feature.bytes_list = 1, .float_list = 2, .int64_list = 3 -> value = 1, repeated, numbers packed or not

Files are mapped into memory: finding out what a record holds touches a few pages of it, its pictures are left alone.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from stages.imports.films import AGAIN

HEADER, FOOTER = 12, 4
VARINT, FIXED64, COUNTED, FIXED32 = 0, 1, 2, 5
BYTES, FLOATS, INTEGERS = 1, 2, 3


class Damaged(ValueError):
    """Bytes that are no protocol buffer."""


class Record:
    """A `tf.train.Example` in a file.

    Attributes:
        path: the file.
        place: the byte at which it begins.
    """

    def __init__(self, path: Path, data: memoryview, offset: int, length: int) -> None:
        """Find its features.

        Raises:
            UserError: it is no Example.
        """
        self.path, self.place = path, offset - HEADER
        self._data, self._crc = data[offset : offset + length], data[offset + length : offset + length + FOOTER]
        self._features: dict[str, memoryview] = {}
        try:
            for features in _counted(self._data, 1):
                for entry in _counted(features, 1):
                    key, value = _one(entry, 1), _one(entry, 2)
                    self._features[str(key, "utf-8")] = value
        except (Damaged, UnicodeDecodeError):
            raise self._damaged("it is no tf.train.Example") from None

    def verify(self) -> None:
        """Read all of it and compare its checksum.

        Raises:
            UserError: it differs.
        """
        if struct.pack("<I", _masked(bytes(self._data))) != self._crc:
            raise self._damaged("its checksum differs")

    def texts(self, name: str) -> list[bytes]:
        """The values of a feature of byte strings; empty if there is no such feature."""
        return [bytes(value) for value in self.pieces(name)]

    def pieces(self, name: str) -> list[memoryview]:
        """The same, without copying them."""
        return list(self._values(name, BYTES))

    def floats(self, name: str) -> np.ndarray:
        """The values of a feature of floats, float32 [n]; empty if there is no such feature."""
        return np.frombuffer(b"".join(self._values(name, FLOATS)), "<f4").astype(np.float32)

    def count_floats(self, name: str) -> int:
        """How many there are."""
        return sum(len(value) for value in self._values(name, FLOATS)) // 4

    def _values(self, name: str, kind: int) -> Iterator[memoryview]:
        """The values of a feature's list, packed ones as they lie."""
        if name not in self._features:
            return
        try:
            for values in _counted(self._features[name], kind):
                yield from (value for field, value in _fields(values) if field == 1)
        except Damaged:
            raise self._damaged(f"its feature {name} is no list") from None

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self.path}: the record at byte {self.place} is damaged: {what}; {AGAIN}")


def records(path: Path) -> Iterator[Record]:
    """The records of a file, which stays mapped as long as one of them is held.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if size else memoryview(b"")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {AGAIN}") from None
    offset = 0
    while offset < size:
        header = bytes(data[offset : offset + HEADER])
        length = int.from_bytes(header[:8], "little")
        if len(header) < HEADER or header[8:] != struct.pack("<I", _masked(header[:8])):
            raise UserError(f"{path}: there is no record at byte {offset}; {AGAIN}")
        if offset + HEADER + length + FOOTER > size:
            raise UserError(f"{path} ends within the record at byte {offset}; {AGAIN}")
        yield Record(path, data, offset + HEADER, length)
        offset += HEADER + length + FOOTER


def _masked(data: bytes) -> int:
    """The masked CRC32C of tensorflow/core/lib/hash/crc32c.h."""
    import google_crc32c

    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _one(message: memoryview, number: int) -> memoryview:
    """The last of a message's fields with a number, as protocol buffers have it; empty without one."""
    return ([memoryview(b""), *_counted(message, number)])[-1]


def _counted(message: memoryview, number: int) -> Iterator[memoryview]:
    return (value for field, value in _fields(message) if field == number)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field of a message.

    Raises:
        Damaged: the bytes are no message.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == COUNTED:
            length, at = _varint(message, at)
        elif kind == VARINT:
            length = _varint(message, at)[1] - at
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise Damaged(f"wire type {kind}")
        if at + length > len(message):
            raise Damaged("a field goes on behind the end")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    number = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
    raise Damaged("a number does not end")

"""Writes a run as TensorBoard's event files: one directory for the run by epoch, one in it for each unit by step.

The files themselves are the record of what has been written. A file that begins with what there is to say is written
on; any other, as after a kill or where a unit was superseded, is replaced by a whole one under a later name, which
tells a TensorBoard that looks at it to forget the former.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter

from pipeline.config import Config
from pipeline.tracking.course import completed, stage_points
from pipeline.tracking.record import RunRecord
from pipeline.tracking.sink import SinkError
from pipeline.tracking.units import Point

PREFIX = "events.out.tfevents."
WRITTEN = "baton.written"
FRAME = struct.Struct("<QI")  # length of a record and its checksum
CHECKSUM_BYTES = 4


class TensorboardSink:
    """A directory of event files."""

    shows_live = False

    def __init__(self, directory: Path) -> None:
        """Describe the directory; nothing is opened yet.

        Args:
            directory: of the run.
        """
        self.address = f"tensorboard --logdir {directory.parent}"
        self._directory = directory
        self._written: dict[str, str] = {}
        self._course: _Course | None = None

    @classmethod
    def of(cls, run: Path, config: Config) -> TensorboardSink:
        """The directory that a config names, by default in `tensorboard` beside the run directories."""
        base = config.trainer.logger.tensorboard.log_dir
        folder = run.resolve().parent / "tensorboard" if base is None else Path(base).expanduser().absolute()
        return cls(folder / config.name)

    def write(self, record: RunRecord) -> int:
        """Make the event files show exactly this run.

        Returns:
            How many units were written now.

        Raises:
            SinkError: a file cannot be written.
        """
        try:
            return self._write(record)
        except OSError as error:
            raise SinkError(
                f"TensorBoard: {error.filename or self._directory} cannot be written ({error.strerror}); "
                f"mend that, or set trainer.logger.tensorboard.log_dir to another place"
            ) from error

    def forget(self, record: RunRecord) -> None:
        """Remove the run's directory.

        Raises:
            SinkError: it cannot be removed.
        """
        if not self._directory.exists():
            return
        try:
            shutil.rmtree(self._directory)
        except OSError as error:
            raise SinkError(f"TensorBoard: {self._directory} cannot be removed ({error.strerror})") from error
        self._written.clear()
        self._course = None

    def close(self) -> None:
        """Nothing is open between two writes."""

    def _write(self, record: RunRecord) -> int:
        current = {str(unit.unit): unit for unit in record.units}
        if not self._written:
            self._written = {path.parent.name: path.read_text() for path in self._directory.glob(f"*/{WRITTEN}")}
        published = {name: unit.artifact.manifest.published for name, unit in current.items()}
        for name, stamp in list(self._written.items()):
            if published.get(name) != stamp:
                shutil.rmtree(self._directory / name, ignore_errors=True)
                del self._written[name]
                self._course = None
        pending = [unit for name, unit in current.items() if name not in self._written]
        self._write_course(record)
        for unit in pending:
            name = str(unit.unit)
            bring_up_to(self._directory / name, _head(unit.started), map(_scalar, unit.points()))
            (self._directory / name / WRITTEN).write_text(published[name])
            self._written[name] = published[name]
        return len(pending)

    def _write_course(self, record: RunRecord) -> None:
        """The run by epoch: stages that were completed are appended, in the order of their completion."""
        stages = completed(record)
        known = self._course
        if known is not None and known.path.exists() and known.path.stat().st_size == known.size:
            stages = [stage for stage in stages if stage not in known.stages]
            _append(known.path, _course(record, stages))
        else:
            known = self._course = _Course()
            head = [*_head(record.created), _text("config", _table(record.params), record.created)]
            known.path = bring_up_to(self._directory, head, _course(record, stages))
        known.stages |= set(stages)
        known.size = known.path.stat().st_size


@dataclasses.dataclass
class _Course:
    """The event file of the run itself as this process left it: its stages by epoch, and its size in bytes."""

    path: Path = Path()
    size: int = 0
    stages: set[tuple[int, str]] = dataclasses.field(default_factory=set)


def bring_up_to(directory: Path, head: Iterable[bytes], body: Iterable[bytes]) -> Path:
    """Make a directory hold one event file with these records.

    Args:
        directory: made if need be.
        head: the first records.
        body: those that follow.

    Returns:
        The file.
    """
    expected = [*head, *body]
    there = [path for path in sorted(directory.glob(f"{PREFIX}*")) if path.stat().st_size]
    if len(there) == 1:
        known = list(records(there[0]))
        if known == expected[: len(known)] and there[0].stat().st_size == sum(map(_framed, known)):
            _append(there[0], expected[len(known) :])
            return there[0]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{PREFIX}{time.time_ns():020d}.baton"
    partial = directory / f".{path.name}"
    _append(partial, expected)
    partial.rename(path)
    for old in there:  # emptied and not removed: a TensorBoard that has it open would look at nothing else
        os.truncate(old, 0)
    return path


def records(path: Path) -> Iterator[bytes]:
    """The records of an event file up to the first that is not whole."""
    content = path.read_bytes()
    at = 0
    while at + FRAME.size <= len(content):
        (length, _) = FRAME.unpack_from(content, at)
        end = at + FRAME.size + length + CHECKSUM_BYTES
        if end > len(content):
            return
        yield content[at + FRAME.size : end - CHECKSUM_BYTES]
        at = end


def _framed(record: bytes) -> int:
    return FRAME.size + len(record) + CHECKSUM_BYTES


def _append(path: Path, those: Iterable[bytes]) -> None:
    with path.open("ab") as file:
        writer = RecordWriter(file)
        for record in those:
            writer.write(record)


def _head(began: int) -> list[bytes]:
    """What begins a file, and has whoever read another one before forget it from step 0 on."""
    start = SessionLog(status=SessionLog.START)
    return [
        _bytes(Event(wall_time=began / 1000, file_version="brain.Event:2")),
        _bytes(Event(wall_time=began / 1000, step=0, session_log=start)),
    ]


def _course(record: RunRecord, stages: Iterable[tuple[int, str]]) -> Iterator[bytes]:
    return (_scalar(point) for stage in stages for point in stage_points(record, *stage))


def _table(params: dict[str, str]) -> str:
    return "| key | value |\n|---|---|\n" + "".join(f"| {key} | `{value}` |\n" for key, value in params.items())


def _scalar(point: Point) -> bytes:
    value = Summary.Value(tag=point.name, simple_value=point.value)
    return _bytes(Event(wall_time=point.time / 1000, step=point.step, summary=Summary(value=[value])))


def _text(name: str, markdown: str, began: int) -> bytes:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=shape)
    value = Summary.Value(tag=f"{name}/text_summary", metadata=metadata, tensor=tensor)
    return _bytes(Event(wall_time=began / 1000, step=0, summary=Summary(value=[value])))


def _bytes(event: Event) -> bytes:
    content: bytes = event.SerializeToString(deterministic=True)
    return content

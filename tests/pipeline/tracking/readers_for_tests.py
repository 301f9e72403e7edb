"""Reads back what trackers were given, each in its own format, as (series, step) -> value."""

import json
import math
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from tests.pipeline.tracking.runs_for_tests import store, wait_until

BLOCK = 32768
HEADER = struct.Struct("<IHB")  # checksum, length, type of a fragment, as in LevelDB's logs
BEGINNING = b":W&B\xe1\xbe\x00"

Numbers = dict[tuple[str, str, int], float]


def in_mlflow(runs: Path) -> Numbers:
    """(run or unit, metric, step) -> value."""
    shown = store(runs)
    return {
        (name, metric, point.step): point.value
        for name, run in [("run", shown.parent), *shown.nested.items()]
        for metric in run.data.metrics
        for point in shown.client.get_metric_history(run.info.run_id, metric)
    }


def in_tensorboard(directory: Path) -> Numbers:
    """As `in_mlflow`; TensorBoard keeps 32 bits of a number."""
    found: Numbers = {}
    for folder in [directory, *(path for path in directory.iterdir() if path.is_dir())]:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        for metric in events.Tags()["scalars"]:
            for event in events.Scalars(metric):
                key = ("run" if folder == directory else folder.name, metric, event.step)
                assert key not in found, f"{key} twice"
                found[key] = event.value
    return found


def in_wandb(directory: Path) -> Numbers:
    """As `in_mlflow`, of the one offline run of a directory."""
    (file,) = directory.glob("offline-run-*/*.wandb")
    return in_rows(rows_of(file))


def in_rows(rows: Iterable[dict]) -> Numbers:
    """As `in_mlflow`, of the rows of a W&B run's history."""
    found: Numbers = {}
    for row in rows:
        own = {name: value for name, value in row.items() if not name.startswith("_")}
        if "epoch" in own:
            where, step = "run", own.pop("epoch")
        else:
            where, step = own.pop("steps/unit"), own.pop("steps/step")
            own.pop("steps/epoch")
        for name, value in own.items():
            metric = name if where == "run" else name.split("/", 2)[2]
            key = (where, metric, step)
            assert key not in found, f"{key} twice"
            found[key] = math.nan if value == "NaN" else value
    return found


def rows_of(file: Path) -> list[dict]:
    """Rows of the history in a W&B file, once it is whole: W&B's own process may write its end late."""
    records: list[wandb_internal_pb2.Record] = []
    wait_until(lambda: _ended(records, file))
    histories = [record.history.item for record in records if record.WhichOneof("record_type") == "history"]
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items} for items in histories
    ]


def _ended(records: list[wandb_internal_pb2.Record], file: Path) -> bool:
    records[:] = map(wandb_internal_pb2.Record.FromString, _records(file.read_bytes()))
    return any(record.WhichOneof("record_type") == "exit" for record in records)


def _records(content: bytes) -> Iterator[bytes]:
    assert content[: len(BEGINNING)] in (b"", BEGINNING)
    at, whole = len(BEGINNING), b""
    while at < len(content):
        if BLOCK - at % BLOCK < HEADER.size:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, at)
        at += HEADER.size
        whole += content[at : at + length]
        at += length
        if kind in (1, 4):  # a whole record, or the last fragment of one
            yield whole
            whole = b""

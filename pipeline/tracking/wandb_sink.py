"""Writes a run to Weights & Biases, online or as files for `wandb sync`: one run, by epoch and by step of each stage.

W&B takes rows one after another and gives none back, so `baton-RUN.json` beside its files notes what was handed over,
in which order, and whether all of it is known to be there. Online, a writer that starts again asks how many rows have
arrived and goes on behind them. Offline, each start writes one whole file under the same id and removes its
predecessors. Where something written was superseded, a new W&B run begins.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import wandb
from wandb.sdk.mailbox.mailbox_handle import ServerResponseError

from pipeline.artifacts import write_synced
from pipeline.config import Config
from pipeline.output_config import WandbLogger
from pipeline.tracking.course import completed, stage_points
from pipeline.tracking.record import RunRecord
from pipeline.tracking.sink import SinkError
from pipeline.tracking.units import Point, UnitRecord

STEPS = "steps"
INIT_SECONDS = 20.0
FINISH_SECONDS = 30.0  # for what is not yet sent; without a limit W&B waits for a lost server for hours
SETTINGS = "trainer.logger.wandb"

Row = dict[str, Any]


class WandbSink:
    """A run of a W&B project."""

    shows_live = False

    def __init__(self, settings: WandbLogger, directory: Path) -> None:
        """Describe the run; nothing is opened yet.

        Args:
            settings: of the config.
            directory: where W&B keeps files, in a directory `wandb`.
        """
        self._settings, self._directory = settings, directory
        self.address = (
            f"wandb sync {directory / 'wandb'}/offline-run-*"
            if settings.mode == "offline"
            else f"W&B project {settings.project_name}"
        )
        self._run: Any = None
        self._id = ""
        self._order: list[str] = []
        self._whole = False
        self._note = Path()
        self._defined: set[str] = set()

    @classmethod
    def of(cls, run: Path, config: Config) -> WandbSink:
        """The run that a config names; its files lie in `wandb` beside the run directories by default."""
        settings = config.trainer.logger.wandb
        base = settings.log_dir
        return cls(settings, run.resolve().parent if base is None else Path(base).expanduser().absolute())

    def write(self, record: RunRecord) -> int:
        """Make W&B show exactly this run.

        Returns:
            How many units were written now.

        Raises:
            SinkError: it cannot be reached or refuses.
        """
        there = dict(_parts(record))
        self._note = self._directory / "wandb" / f"baton-{record.run_id}.json"
        if self._run is None:
            self._recall(record)
        if not there.keys() >= set(self._order):
            self.close()
            self._id, self._order, self._whole = f"{record.run_id}-{time.time_ns():x}", [], False
        done = set(self._order)
        new = [part for part in there if part not in done]
        if not new and (self._run is not None or self._whole):
            return 0
        self._order += new
        try:
            self._directory.joinpath("wandb").mkdir(parents=True, exist_ok=True)
            self._keep(whole=False)
            if self._run is None:
                arrived = self._begin(record)
                self._send([row for part in self._order for row in there[part]()][arrived:])
            else:
                self._send([row for part in new for row in there[part]()])
            if record.finished:
                self.close()
        except (wandb.Error, ServerResponseError) as error:
            self._run = None
            wandb.teardown()  # its own process holds on to the run, and would refuse to take it up again
            raise SinkError(explain(error)) from error
        except OSError as error:
            self._run = None
            raise SinkError(
                f"W&B: {error.filename} cannot be written ({error.strerror}); set {SETTINGS}.log_dir to another place"
            ) from error
        return sum(part.startswith("unit") for part in new)

    def forget(self, record: RunRecord) -> None:
        """Begin a new W&B run the next time; what was written offline is removed, what is online stays there."""
        self.close()
        self._note = self._directory / "wandb" / f"baton-{record.run_id}.json"
        self._recall(record)
        self._remove_files(self._id)
        self._directory.joinpath("wandb").mkdir(parents=True, exist_ok=True)
        self._id, self._order = f"{record.run_id}-{time.time_ns():x}", []
        self._keep(whole=False)

    def close(self) -> None:
        """Send what is left and end the run; it is taken up again where there is more.

        Raises:
            SinkError: not everything has arrived.
        """
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.finish()  # waits until everything has arrived
        except (TimeoutError, wandb.Error, ServerResponseError) as error:
            wandb.teardown()  # see `write`
            raise SinkError(explain(error)) from error
        self._keep(whole=True)

    def _begin(self, record: RunRecord) -> int:
        """Open the W&B run; returns how many rows it has."""
        settings, offline = self._settings, self._settings.mode == "offline"
        if offline:
            self._remove_files(self._id)
        self._defined = set()
        self._run = wandb.init(
            entity=settings.entity,
            project=settings.project_name,
            name=settings.experiment_name or record.config.name,
            id=self._id,
            resume=None if offline else "allow",
            mode="offline" if offline else "online",
            dir=str(self._directory),
            config=record.config.model_dump(mode="json"),
            tags=[record.config.simulator.name, record.config.policy.name, record.config.algorithm.name],
            notes=f"{record.path}, {record.run_id}",
            allow_val_change=True,
            settings=wandb.Settings(
                console="off",
                disable_code=True,
                disable_git=True,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
                init_timeout=INIT_SECONDS,
                silent=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        self._run.define_metric("epoch", hidden=True)
        return int(self._run.starting_step)  # `step` is 0 here, whatever has arrived

    def _send(self, rows: list[Row]) -> None:
        for row in rows:
            for name in row:
                self._define(name)
            self._run.log(row)

    def _define(self, name: str) -> None:
        """Say over what a metric is drawn: the epoch, or the part of it that is done."""
        family = name.rpartition("/")[0].split("/")[0]
        if family and family not in self._defined:
            self._defined.add(family)
            self._run.define_metric(f"{family}/*", step_metric=f"{STEPS}/epoch" if family == STEPS else "epoch")

    def _keep(self, whole: bool) -> None:
        """Note what has been handed over."""
        self._whole = whole
        write_synced(self._note, json.dumps({"id": self._id, "order": self._order, "whole": whole}).encode())

    def _recall(self, record: RunRecord) -> None:
        """Take up what was noted."""
        noted: dict[str, Any] = {"id": record.run_id, "order": []}
        if self._note.exists():
            noted = json.loads(self._note.read_text())
        self._id, self._order, self._whole = noted["id"], noted["order"], noted.get("whole", False)
        if self._settings.mode == "offline" and not any(self._files(self._id)):
            self._order = []  # somebody removed what was written

    def _files(self, run: str) -> Iterator[Path]:
        yield from self._directory.glob(f"wandb/offline-run-*-{run}")

    def _remove_files(self, run: str) -> None:
        for directory in self._files(run):
            shutil.rmtree(directory, ignore_errors=True)


def explain(error: Exception) -> str:
    """What went wrong and what to do about it, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, wandb.errors.UsageError) and "api" in text.lower() and "key" in text.lower():
        return f"W&B: no API key; run `wandb login` or set WANDB_API_KEY, or {SETTINGS}.mode=offline"
    if isinstance(error, wandb.errors.CommError | wandb.errors.AuthenticationError | TimeoutError):
        server = os.environ.get("WANDB_BASE_URL", "api.wandb.ai")
        return f"W&B: {server} does not answer or refuses; without a network set {SETTINGS}.mode=offline"
    return f"W&B: {text[:500]}"


def _parts(record: RunRecord) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """What there is to hand over, in order: name -> its rows; a unit comes before the stage that it completes."""
    ends = {
        f"stage {epoch} {stage} {max(unit.published for unit in record.by_stage[epoch, stage])}": (epoch, stage)
        for epoch, stage in completed(record)
    }
    found: list[tuple[int, int, str, Callable[[], list[Row]]]] = []
    for unit in record.units:
        name = f"unit {unit.unit} {unit.artifact.manifest.published}"
        found.append((unit.published, 0, name, functools.partial(unit_rows, unit)))
    for name, (epoch, stage) in ends.items():
        found.append((int(name.rpartition(" ")[2]), 1, name, functools.partial(stage_rows, record, epoch, stage)))
    for _, _, name, make in sorted(found, key=lambda part: part[:3]):
        yield name, make


def stage_rows(record: RunRecord, epoch: int, stage: str) -> list[Row]:
    """What a stage adds to the course of the run, as one row."""
    points = list(stage_points(record, epoch, stage))
    return (
        [{"epoch": epoch, "_timestamp": points[0].time / 1000, **{p.name: p.value for p in points}}] if points else []
    )


def unit_rows(unit: UnitRecord) -> list[Row]:
    """What a unit logged, a row for each step of each of its logs; metrics are `steps/<stage>/<metric>`."""
    steps: dict[tuple[int, int], list[Point]] = {}
    for point in unit.points():
        steps.setdefault((point.time, point.step), []).append(point)
    first, last = unit.started, max(unit.published, unit.started + 1)
    rows = []
    for (moment, step), points in steps.items():
        done = min(max((moment - first) / (last - first), 0.0), 1.0)
        row: Row = {
            "_timestamp": moment / 1000,
            f"{STEPS}/epoch": unit.unit.epoch + done,
            f"{STEPS}/unit": str(unit.unit),
            f"{STEPS}/step": step,
        }
        rows.append(row | {f"{STEPS}/{unit.unit.stage}/{point.name}": point.value for point in points})
    return rows

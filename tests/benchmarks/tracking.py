"""What tracking costs: CPU and wall seconds to write a run, per epoch, and how that grows with the number of epochs.

    python tests/benchmarks/tracking.py RUN [--epochs 10 100 1000] [--trackers mlflow tensorboard]

The run is copied as often as need be: its last epoch, with its logs, is repeated under other numbers, without films and
policies. Each copy is written once from nothing, then an epoch at a time as the follower does.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from pipeline.artifacts import MANIFEST, Unit
from pipeline.tracking.record import Reader
from pipeline.tracking.writer import Writer

FOLLOWED = 5


def grow(run: Path, folder: Path, epochs: int, trackers: list[str]) -> Path:
    """A run of so many epochs in a folder, made of the last epoch of another one."""
    copy = folder / f"grown-{epochs}"
    copy.mkdir(parents=True)
    shutil.copy(run / "run.json", copy)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config |= {"name": copy.name, "runs_dir": str(folder), "epochs": epochs + FOLLOWED}
    config["trainer"]["logger"] = {name: {"enable": name in trackers} for name in ("mlflow", "tensorboard", "wandb")}
    if "wandb" in trackers:
        config["trainer"]["logger"]["wandb"]["mode"] = "offline"
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    for epoch in range(1, epochs + 1):
        add_epoch(run, copy, epoch)
    return copy


def add_epoch(run: Path, copy: Path, epoch: int) -> None:
    """Publish an epoch more, with times of its own."""
    last = max((run / "epochs").iterdir())
    for manifest in [*last.glob(f"*/{MANIFEST}"), *last.glob(f"*/*/{MANIFEST}")]:
        content = json.loads(manifest.read_text())
        unit = Unit.parse(content["unit"])
        if manifest.parent != run / unit.marker:
            continue
        moved = Unit(epoch, unit.stage, unit.shard)
        target = copy / moved.marker
        partial = copy / "partial"
        partial.mkdir()
        kept = {
            name: file for name, file in content["files"].items() if name.endswith(("metrics.jsonl", "usage.jsonl"))
        }
        for name in kept:
            shutil.copy(manifest.parent / name, partial)
        content |= {"unit": str(moved), "files": kept}
        content["published"] = _shifted(content["published"], epoch * 60.0)
        (partial / MANIFEST).write_text(json.dumps(content))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(target)


def _shifted(iso: str, seconds: float) -> str:
    return (datetime.datetime.fromisoformat(iso) + datetime.timedelta(seconds=seconds)).isoformat()


def measured(do: Callable[[], list[str]]) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = time.monotonic(), time.process_time()
    problems = do()
    assert not problems, problems
    return time.monotonic() - wall, time.process_time() - cpu


def main() -> None:
    """Measure and print a line for each number of epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--epochs", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--trackers", nargs="+", default=["mlflow", "tensorboard"])
    arguments = parser.parse_args()
    published = Reader(arguments.run).read()
    seconds = sum(unit.seconds for unit in published.units if unit.unit.epoch) / max(published.config.epochs, 1)
    print(f"an epoch of {arguments.run} is {seconds:.1f} s of work in its stages")
    for epochs in arguments.epochs:
        with tempfile.TemporaryDirectory() as folder:
            copy = grow(arguments.run, Path(folder), epochs, arguments.trackers)
            writer = Writer(copy)
            whole = measured(writer.catch_up)
            steps, quiet = [], []
            for epoch in range(epochs + 1, epochs + 1 + FOLLOWED):
                add_epoch(arguments.run, copy, epoch)
                steps.append(measured(writer.catch_up))
                quiet.append(measured(writer.catch_up))
            again = measured(Writer(copy).catch_up)
            writer.close()
        wall, cpu = (sum(column) / FOLLOWED for column in zip(*steps, strict=True))
        nothing = 1000 * sum(one[1] for one in quiet) / FOLLOWED
        print(
            f"{epochs:5d} epochs from nothing: {whole[0]:.1f} s wall, {whole[1]:.1f} s CPU "
            f"({1000 * whole[1] / epochs:.0f} ms CPU an epoch); one epoch more: {wall:.2f} s wall, {cpu:.2f} s CPU; "
            f"a look that finds nothing: {nothing:.1f} ms CPU; a new writer that finds nothing: {again[1]:.1f} s CPU",
            flush=True,
        )


if __name__ == "__main__":
    main()

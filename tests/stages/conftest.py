"""A tiny prepared run and its stages as real processes, for the tests of what happens around the work."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import compose, rundir
from pipeline.artifacts import Unit, open_artifact

ROOT = Path(__file__).parents[2]
FAKES = Path(__file__).parent / "simulators"
RECIPE = """
epochs: 2
simulator:
  tasks: [pick_onto_plate]
  image_size: 32
  max_episode_steps: 24
  rendering_frequency: 20
  options: {object_size: 0.05, plate_radius: 0.09, spread: 0.2, arms: right, renderer: raycast}
policy: {precision: fp32, chunk: 8}
demonstrate: {episodes: 4, num_envs: 2, stride: 8, max_episode_steps: 60}
sft: {steps: 2, batch: 8, threads: 1, processes: 1}
rollout: {episodes: 8, shards: 2, num_envs: 2}
update: {minibatch: 8, threads: 1, processes: 1}
evaluate: {episodes: 4, num_envs: 4, num_workers: 2, threads: 1}
video_cfg: {episodes: 2}
trainer: {logger: {mlflow: {enable: false}}}
"""
ALONE = ("SLURM_", "SUBMITIT_", "RANK", "WORLD_SIZE", "LOCAL_", "BATON_")  # variables that would tell who we are


@pytest.fixture(scope="module")
def fakes() -> Iterator[None]:
    """Simulators for tests can be named: `fakesim.counting`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(FAKES))
        yield


@dataclasses.dataclass
class Stage:
    """A stage that runs, with all its processes: they carry its mark."""

    process: subprocess.Popen[str]
    mark: str

    @property
    def pids(self) -> list[int]:
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    marked = f"BATON_TEST={self.mark}".encode() in Path("/proc", entry, "environ").read_bytes()
                    state = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                if marked and state not in "ZX":
                    found.append(int(entry))
        return found

    def signal(self, number: int, everyone: bool = False) -> None:
        for pid in self.pids if everyone else [self.process.pid]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def end(self, timeout: float = 100) -> tuple[int, str]:
        """Exit code and what it printed; nothing of it may be left."""
        try:
            output = self.process.communicate(timeout=timeout)[0]
            assert not self.pids, f"processes outlived the stage, which printed:\n{output}"
        finally:
            self.signal(signal.SIGKILL, everyone=True)
        return self.process.returncode, output

    def wait_for(self, path: Path, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not path.exists():
            assert self.process.poll() is None, f"it ended before {path} was there:\n{self.process.communicate()[0]}"
            assert time.monotonic() < deadline, f"{path} did not come"
            time.sleep(0.005)


@dataclasses.dataclass
class Tiny:
    """A tiny run and its stages."""

    run: Path

    def start(self, unit: Unit, *arguments: object, code: str | None = None, **environment: str) -> Stage:
        """Start a stage for a unit; `code` is run before it in the same process."""
        shard = [] if unit.shard is None else ["--shard", unit.shard]
        return self.start_stage(module(unit), "--epoch", unit.epoch, *shard, *arguments, code=code, **environment)

    def start_stage(self, stage: str, *arguments: object, code: str | None = None, **environment: str) -> Stage:
        mark = uuid.uuid4().hex
        clean = {key: value for key, value in os.environ.items() if not key.startswith(ALONE)}
        variables = {**clean, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "BATON_TEST": mark, **environment}
        program = ["-m", f"stages.{stage}"]
        if code is not None:
            program = ["-c", f"{code}\nimport runpy\nrunpy.run_module('stages.{stage}', run_name='__main__')"]
        process = subprocess.Popen(
            [sys.executable, *program, str(self.run), *map(str, arguments)],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return Stage(process, mark)

    def contents(self, unit: Unit) -> dict[str, str] | None:
        """Checksums of all that a unit published, but for logs, which hold times; None if it published nothing."""
        artifacts = {part: open_artifact(self.run / relative) for part, relative in unit.outputs.items()}
        if not any(artifacts.values()):
            return None
        found = {}
        for part, artifact in artifacts.items():
            assert artifact is not None, f"{part} of {unit} is missing where other parts are published"
            found |= {f"{part}/{name}": record.sha256 for name, record in artifact.verify().manifest.files.items()}
        logs = ("metrics.jsonl", "usage.jsonl")
        return {name: sha256 for name, sha256 in found.items() if not name.endswith(logs)}

    def copy(self, folder: Path, *without: Unit, **blocks: dict[str, object]) -> Tiny:
        """The run in another folder, without what some units published, and with other settings in some blocks."""
        other = Tiny(folder / self.run.name)
        shutil.copytree(self.run, other.run)
        for unit in without:
            for relative in unit.outputs.values():
                shutil.rmtree(other.run / relative, ignore_errors=True)
            shutil.rmtree(other.run / "attempts" / str(unit), ignore_errors=True)
        config = yaml.safe_load((other.run / "config.yaml").read_text())
        for block, settings in blocks.items():
            config[block] |= settings
        (other.run / "config.yaml").write_text(yaml.safe_dump(config))
        return other


def module(unit: Unit) -> str:
    return "rollout" if unit.stage == "demonstrate" else unit.stage


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A run up to its first update, the evaluation of the warm start, and rollouts for a second update.

    The first of pytest's workers that asks makes it, and each has a copy.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prepared by one"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "whole").exists():
            _prepare(Path(tempfile.mkdtemp(dir=shared))).run.rename(shared / "whole")
    return Tiny(shutil.copytree(shared / "whole", tmp_path_factory.mktemp("prepared") / "tiny"))


def _prepare(folder: Path) -> Tiny:
    (folder / "tiny.yaml").write_text(RECIPE)
    tiny = Tiny(rundir.create_or_resume(compose.compose(folder / "tiny.yaml", [f"runs_dir={folder}"])))
    waves = [
        [Unit(0, "demonstrate", 0)],
        [Unit(0, "sft")],
        [Unit(1, "rollout", 0), Unit(1, "rollout", 1)],
        [Unit(1, "update"), Unit(0, "evaluate")],
    ]
    for wave in waves:
        for stage in [tiny.start(unit) for unit in wave]:
            code, output = stage.end()
            assert code == 0, output
    shutil.copytree(tiny.run / "epochs/0001/rollout", tiny.run / "epochs/0002/rollout")  # an update takes any shards
    return tiny


@pytest.fixture(scope="session")
def side_by_side() -> Iterator[Callable[..., Future[Any]]]:
    """Calls functions two at a time: `side_by_side(function, *arguments).result()`."""
    with ThreadPoolExecutor(2) as executor:
        yield executor.submit
        executor.shutdown(cancel_futures=True)

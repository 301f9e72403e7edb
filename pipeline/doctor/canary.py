"""What a node sees: `stages.probe`, started by one tiny job in each place where the run's jobs go."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.doctor.asks import Ask, environment, run_directory
from pipeline.doctor.site import label
from pipeline.launchers import PARENTS
from slurm import client
from slurm.script import gpu_request, header
from slurm.site import Site

ANSWER = "baton-probe: "  # what the probe's line begins with
MODULE = "stages.probe"
MEMORY = "2G"  # torch and a simulator of one environment
RUN_MINUTES = 5  # for the probe, once its job has started
SEEN, WRITTEN = "login", "node"
PATIENCE_SECONDS = 10.0
STAGES = ("rollout", "sft", "update", "evaluate")
MODULES = {
    "demonstrate": ("stages.rollout",),
    "orchestrator": ("pipeline.cli",),
    "pilot": ("pipeline.cli", *(f"stages.{stage}" for stage in STAGES)),
    **{stage: (f"stages.{stage}",) for stage in STAGES},
}


@dataclasses.dataclass(frozen=True)
class Place:
    """A kind of node, as jobs get it that ask alike.

    Attributes:
        label: its name in checks.
        asks: the jobs that go there; empty for this machine.
    """

    label: str
    asks: tuple[Ask, ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs that its probe asks for: one where there are any, so that it starts soon."""
        return min(1, max((ask.gpus for ask in self.asks), default=0))


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of a probe.

    Attributes:
        place: where it was sent.
        seen: what it found; None: it did not answer.
        skew: seconds by which its clock is ahead of this machine's.
        returned: whether this machine sees the file that it wrote.
        said: last lines of what it or Slurm printed beside.
    """

    place: Place
    seen: Mapping[str, Any] | None
    skew: float = 0.0
    returned: bool = False
    said: str = ""


def places(asks: Sequence[Ask], site: Site) -> list[Place]:
    """Where the jobs of a run go: a place for each partition, kind of node and way to start Python."""
    groups: dict[tuple[object, ...], list[Ask]] = {}
    for ask in asks:
        options = ask.options
        where = (label(ask, site), ask.gpu_type, options.constraint, options.nodelist)
        groups.setdefault((*where, options.setup, options.python), []).append(ask)
    partitions = [key[0] for key in groups]
    return [
        Place(str(key[0]) if partitions.count(key[0]) == 1 else f"{key[0]} ({group[0].name})", tuple(group))
        for key, group in groups.items()
    ]


def send(
    config: Config,
    places: Sequence[Place],
    wait: float,
    seen_as: Callable[[Path], Path] = lambda folder: folder,
    patience: float = PATIENCE_SECONDS,
) -> list[Answer]:
    """Start a probe in each place, all at the same time, and wait for their answers.

    Args:
        config: the run's config.
        places: where to; a place without jobs is this machine.
        wait: seconds that a job may wait in the queue.
        seen_as: the path at which a node looks for a directory of this machine.
        patience: seconds a file may take to be seen by another machine.

    Returns:
        Their answers, in the order of the places.

    Raises:
        OSError: runs_dir cannot be written to.
    """
    if not places:
        return []
    with _folder(run_directory(config).parent) as folder, ThreadPoolExecutor(len(places)) as pool:
        content = uuid.uuid4().hex
        (folder / SEEN).write_text(content)
        started = []
        for number, place in enumerate(places):
            question = _question(config, place) | {"patience": patience}
            own = folder / f"{WRITTEN}-{number}"
            if place.asks:
                shared = {"folder": str(seen_as(folder)), "read": SEEN, "write": own.name, "content": content}
                question |= shared
            else:
                question["folder"] = str(folder)
            started.append((place, own, _start(config, place, question, wait)))
        listening = [pool.submit(_listen, place, process, wait) for place, _, process in started]
        try:
            answers = [future.result() for future in listening]
        finally:
            for _, _, process in started:
                process.terminate()  # after Ctrl-C; srun gives its allocation back
        return [
            dataclasses.replace(answer, returned=_arrives(own, content, patience) if place.asks else True)
            if answer.seen is not None and "write_error" not in answer.seen
            else answer
            for answer, (place, own, _) in zip(answers, started, strict=True)
        ]


def _question(config: Config, place: Place) -> dict[str, Any]:
    """What a probe is asked, see `stages.probe`."""
    here = not place.asks
    modules = [module for ask in place.asks for module in MODULES[ask.name]] or list(MODULES["pilot"])
    simulates, decides = (here or any(getattr(ask, what) for ask in place.asks) for what in ("simulates", "decides"))
    uri = config.trainer.logger.mlflow.uri if config.trainer.logger.mlflow.enable else None
    tracks = any(ask.name in PARENTS for ask in place.asks) and uri is not None and uri.startswith("http")
    return {
        "modules": list(dict.fromkeys(modules)),
        "torch": decides,
        "simulator": config.simulator.model_dump(mode="json") if simulates else None,
        "paths": [config.policy.checkpoint] if decides and config.policy.checkpoint else [],
        "url": f"{uri.rstrip('/')}/health" if tracks and uri else None,
    }


def _start(config: Config, place: Place, question: dict[str, Any], wait: float) -> subprocess.Popen[str]:
    probe = ["-u", "-P", "-m", MODULE, json.dumps(question)]
    return subprocess.Popen(
        _srun(place, probe, wait) if place.asks else [sys.executable, *probe],
        env={**client.environment(), **({} if place.asks else environment(config))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _srun(place: Place, probe: Sequence[str], wait: float) -> list[str]:
    """The job of a probe: the setup lines, variables and Python of the jobs it stands for."""
    ask = max(place.asks, key=lambda one: one.gpus)
    asked = dataclasses.replace(ask, options=dataclasses.replace(ask.options, mem=MEMORY))
    python = ask.options.python or shlex.quote(sys.executable)
    return tiny_job(asked, f"{python} {shlex.join(probe)}", wait, RUN_MINUTES, place.gpus)


def tiny_job(ask: Ask, command: str, wait: float, minutes: int, gpus: int, cpus: int = 1) -> list[str]:
    """`srun` for one process where other jobs would go.

    Args:
        ask: the jobs it stands for, whose options, setup lines and variables it takes.
        command: what a shell runs there.
        wait: seconds that it may wait in the queue.
        minutes: how long it may take once it has started.
        gpus: how many it is given.
        cpus: cores.
    """
    options = dataclasses.replace(ask.options, mail_user=None, mail_type=None, extra={}, requeue=True)
    named = header(options, gpu_request(gpus, ask.gpu_type))
    del named["requeue"]  # sbatch's own
    named |= {
        "job-name": "baton-doctor",
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": cpus,
        "time": minutes,
        "immediate": max(1, round(wait)),
        "input": "none",
    }
    variables = [f"export {name}={shlex.quote(value)}" for name, value in sorted(ask.environment.items())]
    shell = "\n".join([*options.setup, *variables, f"exec {command}"])
    return ["srun", "--unbuffered", *(f"--{name}={value}" for name, value in named.items()), "bash", "-c", shell]


def _listen(place: Place, process: subprocess.Popen[str], wait: float) -> Answer:
    """Read what a probe prints until it ends."""
    timer = threading.Timer(wait + 60 * RUN_MINUTES, process.terminate)
    timer.start()
    seen, skew, said = None, 0.0, list[str]()
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            _, mark, answer = line.partition(ANSWER)
            if mark:
                seen = json.loads(answer)
                skew = float(seen["time"]) - time.time()
            elif line.strip():
                said.append(line.strip())
    process.wait()
    timer.cancel()
    return Answer(place, seen, skew, said="; ".join(said[-3:]))


@contextlib.contextmanager
def _folder(runs: Path) -> Iterator[Path]:
    """A directory of its own in runs_dir, which is made if need be; nothing of it stays."""
    made = [path for path in (runs, *runs.parents) if not path.exists()]
    folder = runs / f".doctor-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):  # somebody uses it meanwhile
                path.rmdir()


def _arrives(path: Path, content: str, patience: float) -> bool:
    """Whether a file that a node wrote is seen here."""
    deadline = time.monotonic() + patience
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return path.exists() and path.read_text() == content

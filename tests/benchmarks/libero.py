"""LIBERO's figures: steps a second through Baton beside bare processes and AsyncVectorEnv, and memory over many resets.

    python -m tests.benchmarks.libero [--processes 16] [--steps 160] [--repeats 5] [--resets 2000]

Everyone plays the same random actions with two cameras: bare processes and Baton draw at the end of a chunk, what
AsyncVectorEnv has draws every step. Baton has a policy attached that takes `--policy-ms` a decision without using a
core, as one on a GPU does, two groups of worlds that take turns with it, and writes a shard. Seconds of resets and of
starting up are not counted. Contenders take turns; printed are medians, and a JSON object at the end. On a machine with
other work beside it the steps of a processor's second are what to go by.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import environments
from stages.lineup import Planned
from stages.metrics import Phases
from stages.play import Player, in_order
from stages.policies.interface import Decision, Observation
from stages.policy_actor import PolicyActor
from stages.simulators.interface import Episode
from stages.simulators.libero import catalogue
from stages.simulators.pool import SimulatorPool
from stages.simulators.process import ONE_THREAD
from stages.trajectories import ShardAttributes, ShardSpec, ShardWriter
from tests.benchmarks.libero_alone import READY, processor_seconds
from tests.benchmarks.rollout_engine import record
from tests.benchmarks.rollout_soak import resident

ROOT = Path(__file__).resolve().parents[2]
ALONE = "tests.benchmarks.libero_alone"
CHUNK = 8
BARE, OWN, VECTOR, POOL = "bare LIBERO", "bare adapter", "AsyncVectorEnv, images every step", "Baton, policy attached"
SAMPLES = 20  # times that memory is looked at

Pace = tuple[float, float]
"""Steps a second of all environments, and steps a second that a processor works."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--processes", type=int, default=cores, help="simulator processes; default: one a core")
    parser.add_argument("--worlds", type=int, default=2, help="worlds a process of Baton")
    parser.add_argument("--task", default="pick_up_the_alphabet_soup_and_place_it_in_the_basket")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--renderer", default="auto")
    parser.add_argument("--steps", type=int, default=160, help="of an episode, a multiple of 8")
    parser.add_argument("--repeats", type=int, default=5, help="0: only memory")
    parser.add_argument("--policy-ms", type=float, default=20.0, help="of a decision of a group of worlds")
    parser.add_argument("--resets", type=int, default=2000, help="of each environment, for its memory; 0: none")
    parser.add_argument("--change", type=int, default=100, help="resets after which the next task of the suite follows")
    parser.add_argument("--python", help="LIBERO's interpreter; default: what `baton env create libero` built")
    options = parser.parse_args()
    python = options.python or environments.python_of("libero")
    if python is None:
        parser.error("LIBERO has no environment here: baton env create libero, or --python")
    if options.steps % CHUNK:
        parser.error(f"--steps {options.steps}: it must be a multiple of {CHUNK}")
    os.environ |= ONE_THREAD  # for the simulators' processes
    bench = Bench(options, python)
    result: dict[str, Any] = {
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        **vars(options),
        "python": python,
    }
    if options.repeats:
        result["steps_a_second"] = bench.compare()
    if options.resets:
        result["memory_mb"] = bench.memory()
    print(json.dumps(result))


class Bench:
    """Everything that is measured, with one set of options."""

    def __init__(self, options: argparse.Namespace, python: str) -> None:
        self.options, self.python = options, python

    def compare(self) -> dict[str, dict[str, list[float]]]:
        """Print steps a second of all processes together, and of a second that a processor works."""
        options, count = self.options, self.options.processes
        with contextlib.ExitStack() as stack:
            bare = [stack.enter_context(self.alone("libero")) for _ in range(count)]
            own = [stack.enter_context(self.alone("adapter")) for _ in range(count)]
            vector = [stack.enter_context(self.alone("vector"))]
            for process in (*bare, *own, *vector):  # they build their scenes side by side
                line_of(process, READY)
            pool = stack.enter_context(self.pool([options.task], options.worlds, max_episode_steps=options.steps))
            print(f"{pool.spec.version}, {pool.spec.renderer}; {machine()}, {datetime.date.today()}")
            print(
                f"{options.task}, 2 cameras of {options.image_size}, {options.steps} steps, chunks of {CHUNK}; {count} "
                f"processes; Baton: {options.worlds} worlds a process in 2 groups, policy {options.policy_ms:g} ms"
            )
            contenders = {
                VECTOR: lambda: together(vector),
                BARE: lambda: together(bare),
                OWN: lambda: together(own),
                POOL: lambda: self.roll(pool),
            }
            # The first round warms up.
            rounds = [{name: run() for name, run in contenders.items()} for _ in range(options.repeats + 1)][1:]
        speeds, works = ({name: [found[name][i] for found in rounds] for name in contenders} for i in (0, 1))
        beside = (VECTOR, BARE, OWN)
        for title, found in (("steps a second", speeds), ("steps a second of a processor", works)):
            medians = {name: statistics.median(values) for name, values in found.items()}
            columns = "".join(f"{f'of {name.partition(chr(44))[0]}':>20}" for name in beside)
            print(f"\n{title:36} {'median':>8} {'least':>8} {'most':>8}{columns}")
            for name, values in found.items():
                ratios = "".join(f"{medians[name] / medians[other]:19.2f}x" for other in beside)
                print(f"{name:36} {medians[name]:8.1f} {min(values):8.1f} {max(values):8.1f}{ratios}")
        return {"wall": speeds, "processor": works}

    def memory(self) -> list[list[float]]:
        """Print what each process holds after so many resets of each of its environments."""
        options = self.options
        suite = catalogue.entries()[options.task].suite
        tasks = [entry.name for entry in catalogue.entries().values() if entry.suite == suite]
        every, taken = max(1, options.resets // SAMPLES), []
        with self.pool(tasks, 1) as pool:
            slots = range(pool.num_envs)
            actions = np.random.default_rng(0).uniform(-1, 1, (len(slots), CHUNK, 7)).astype(np.float32)
            print(f"\n{'resets':>8} {'tasks':>6} {'MB of each process, one environment in each'}")
            for number in range(options.resets):
                place = number // options.change
                pool.reset(slots, [Episode(tasks[(place + slot) % len(tasks)], number) for slot in slots])
                pool.step(slots, actions)
                if (number + 1) % every == 0:
                    held = [resident(pid) for pid in pool.pids]
                    taken.append([number + 1, *held])
                    print(f"{number + 1:8} {place + 1:6} {' '.join(f'{each:7.0f}' for each in held)}", flush=True)
        late = np.array(taken)[len(taken) // 4 :]
        if len(late) > 1:
            slopes = np.polyfit(late[:, 0], late[:, 1:], 1)[0] * 1000
            told = ", ".join(f"{slope:+.1f}" for slope in slopes)
            print(f"MB a 1,000 resets, after the first quarter: {told}")
        return taken

    def pool(self, tasks: list[str], worlds: int, **settings: Any) -> SimulatorPool:
        """Baton's pool."""
        options, count = self.options, self.options.processes
        settings |= {"tasks": tasks, "image_size": options.image_size, "renderer": options.renderer}
        return SimulatorPool("libero", settings, worlds * count, count, python=self.python, timeout_s=600)

    @contextlib.contextmanager
    def alone(self, kind: str) -> Iterator[subprocess.Popen[str]]:
        """A process of LIBERO's interpreter that measures when it is told to."""
        options = self.options
        asked = {"task": options.task, "image_size": options.image_size, "renderer": options.renderer}
        asked |= {"steps": options.steps, "chunk": CHUNK, "processes": options.processes}
        command = [self.python, "-m", ALONE, kind, json.dumps(asked)]
        # In a session of its own, as Baton's workers are: Linux shares a busy machine out among sessions.
        how = {"text": True, "cwd": ROOT, "start_new_session": True}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how) as process:
            try:
                yield process
                process.communicate(timeout=60)  # it ends with its input
            finally:
                process.kill()

    def roll(self, pool: SimulatorPool) -> Pace:
        """Play one episode a world with the policy, and write the shard."""
        policy = StandIn(self.options.policy_ms / 1000, pool)
        task = pool.spec.tasks[0]
        plan = [Planned(i, task.name, i, i, np.random.default_rng(i)) for i in range(pool.num_envs)]
        phases = Phases()
        actor = PolicyActor(pool, policy, temperature=1.0, coherent=False, phases=phases)  # type: ignore[arg-type]
        player = Player(pool, actor, groups=2, phases=phases)
        spec = ShardSpec(
            "tokens", pool.spec.image_size, pool.spec.proprio_dim, CHUNK, pool.spec.action_dim, wrist_cameras=1
        )
        origin = ShardAttributes("benchmark", 1, 0, 0, "libero", "", "", (task.name,), (task.instruction,), "train")
        with (
            tempfile.TemporaryDirectory() as directory,
            ShardWriter(Path(directory) / "shard", spec, origin) as writer,
        ):
            for played in in_order(plan, player.play(plan)):
                writer.append(record(played))
                played.forget_images()
        return policy.pace()


class StandIn:
    """A policy that takes its time, moves at random, and remembers when it was asked."""

    device = torch.device("cpu")

    def __init__(self, seconds: float, pool: SimulatorPool) -> None:
        self._seconds, self._shape = seconds, (CHUNK, pool.spec.action_dim)
        self._pids = [os.getpid(), *pool.pids]
        self._asked: list[tuple[float, float, int]] = []

    def draw_noise(self, rng: np.random.Generator, coherent: bool) -> np.ndarray:
        return rng.uniform(-1, 1, self._shape).astype(np.float32)

    def act(self, observation: Observation, noise: torch.Tensor | None, temperature: float) -> Decision:
        rows = len(observation)
        self._asked.append((time.perf_counter(), processor_seconds(self._pids), rows))
        time.sleep(self._seconds)
        zeros = torch.zeros(rows, *self._shape)
        return Decision(zeros if noise is None else noise, {"tokens": zeros.long()}, zeros, torch.zeros(rows))

    def pace(self) -> Pace:
        """Groups are asked in turn; between its first question and its last a group makes all but one chunk."""
        speed = steps = 0.0
        for group in (self._asked[0::2], self._asked[1::2]):
            made = CHUNK * sum(rows for _, _, rows in group[:-1])
            speed, steps = speed + made / (group[-1][0] - group[0][0]), steps + made
        return speed, steps / (self._asked[-1][1] - self._asked[1][1])


def together(processes: list[subprocess.Popen[str]]) -> Pace:
    """The pace of processes that play at the same time, each by its own clock."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = [json.loads(line_of(process, "{")) for process in processes]
    speed = sum(each["steps"] / each["seconds"] for each in found)
    return speed, sum(each["steps"] for each in found) / sum(each["work"] for each in found)


def line_of(process: subprocess.Popen[str], beginning: str) -> str:
    """The next line that a process prints with such a beginning; LIBERO prints others."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return line
    raise SystemExit(f"{process.args!r} ended with {process.wait()}")


def machine() -> str:
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    gpu = subprocess.run(
        ["sh", "-c", "nvidia-smi -L 2>/dev/null | cut -d'(' -f1"], capture_output=True, text=True
    ).stdout
    cores = len(os.sched_getaffinity(0))
    return ", ".join(
        filter(None, [f"{cores} cores {model.partition(':')[2].strip()}", platform.machine(), gpu.strip()])
    )


if __name__ == "__main__":
    main()

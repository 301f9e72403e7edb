"""The pool where memory is short: what can heal does, the rest is one clear line, and /dev/shm is not needed."""

import os
import re
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from stages.simulators.interface import Episode
from stages.simulators.pool import SimulatorPool

FAKES = Path(__file__).parent
ROOT = FAKES.parents[2]
COUNTING = "fakesim.counting"
LARGE = {"image": 600}  # 3.2 MB a world

PROGRAM = f"""
    import sys
    sys.path.insert(0, {str(ROOT)!r})
    from stages.simulators.interface import Episode
    from stages.simulators.pool import SimulatorLost, SimulatorPool
    with SimulatorPool({COUNTING!r}, {LARGE}, 4, 2) as pool:
        try:
            print(pool.reset(range(4), [Episode("count", 4)] * 4).head.shape, pool.restarts)
        except SimulatorLost as error:
            print(error, error.details)
"""


def run(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(FAKES)}
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    done = subprocess.run([*command, *program], env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()[-1]


def test_a_worker_without_memory_for_its_answer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    with SimulatorPool(COUNTING, LARGE, 2) as pool, SimulatorPool(COUNTING, LARGE, 2) as other:
        resource.prlimit(pool.pids[0], resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        episodes = [Episode("count", 4), Episode("count", 8)]
        seen, wanted = pool.reset([0, 1], episodes), other.reset([0, 1], episodes)
        for name in ("head", "wrist", "proprio"):
            np.testing.assert_array_equal(getattr(seen, name), getattr(wanted, name))
        assert pool.restarts == 1
        [fault, _] = pool.step([0, 1], np.zeros((2, 1, 3))).faults
        assert fault[0].startswith("6 MB of shared memory cannot be had for the simulator's arrays (File too large)")


def test_memory_that_is_never_enough_is_told_in_one_line() -> None:
    told = run("prlimit", f"--fsize={1 << 20}")
    words = (
        r"simulator worker [01] \(fakesim.counting\) failed 3 times in a row, at last resetting to task 'count' from "
        r"seed 4, task 'count' from seed 4: 6 MB of shared memory cannot be had for the simulator's arrays "
        r"\(File too large\): give the job more memory or a worker fewer environments"
    )
    assert re.fullmatch(words, told.strip())


def test_a_full_shared_memory_file_system_is_not_needed() -> None:
    fill = "mount -t tmpfs -o size=64k none /dev/shm && head -c 1M /dev/zero >/dev/shm/full 2>/dev/null"
    private = (
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'({fill}); ! echo full >/dev/shm/none 2>/dev/null || exit 9; exec "$@"',
        "sh",
    )
    try:
        subprocess.run(
            ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/dev/shm"], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs leave to mount a file system in a name space of its own")
    assert run(*private) == "(4, 3, 600, 600) 0"

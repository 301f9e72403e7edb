import json
import os
import subprocess
import sys
import time

import pytest

from stages.metrics import MetricsLog
from stages.usage import Meter, devices, gpus, sampled

ALLOCATE = "data = bytearray(200_000_000)\nprint('there', flush=True)\ninput()"
SMI = """#!/bin/sh
echo "$@" > "{place}/asked"
printf '%s' "{answer}"
exit {code}
"""


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """An nvidia-smi that gives an answer; where it was asked, `asked` says what."""

    def install(answer, code=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(SMI.format(place=tmp_path, answer=answer, code=code))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "asked"

    return install


def test_descendants_count_and_what_they_share_counts_once():
    before = Meter(os.getpid()).read()["system/memory_gb"]
    child = subprocess.Popen([sys.executable, "-c", ALLOCATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    after = Meter(os.getpid()).read()["system/memory_gb"]
    child.communicate(b"\n")
    assert 0.2 < after - before < 0.25


def test_cores_are_those_busy_since_the_last_look():
    meter = Meter(os.getpid())
    assert "system/cpu_cores" not in meter.read()
    begun, spent = time.monotonic(), time.process_time()
    while time.process_time() - spent < 0.3:
        pass
    cores = meter.read()["system/cpu_cores"]
    busy = (time.process_time() - spent) / (time.monotonic() - begun)
    assert cores == pytest.approx(busy, rel=0.3)


def test_samples_at_once_and_at_the_end(tmp_path):
    path = tmp_path / "usage.jsonl"
    with sampled(MetricsLog(path), seconds=60):
        deadline = time.monotonic() + 10
        while not lines(path):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    found = lines(path)
    assert [line["step"] for line in found] == [0, 1]
    assert found[1]["metrics"].keys() >= {"system/memory_gb", "system/cpu_cores"}


def test_the_gpus_of_the_job_are_asked_for(smi, monkeypatch):
    asked = smi("50, 1000\n100, 2000\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,GPU-bb")
    found = Meter(os.getpid()).read()
    assert found["system/gpu_utilization"] == 75.0
    assert found["system/gpu_memory_gb"] == pytest.approx(2.097152)
    assert asked.read_text().split()[-1] == "--id=GPU-aa,GPU-bb"


@pytest.mark.parametrize(
    ("answer", "utilization", "memory"),
    [
        ("[N/A], 1000\n", None, 1.048576),  # a GPU shared out in parts
        ("70, [N/A]\n", 70.0, None),  # its memory is the machine's
        ("[Not Supported], 1000\n40, 2000\n", 40.0, 2.097152),
        ("[Unknown Error], [Unknown Error]\n40, 2000\n", 40.0, 2.097152),
    ],
)
def test_what_nvidia_smi_does_not_know_is_left_out_alone(smi, monkeypatch, answer, utilization, memory):
    smi(answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = Meter(os.getpid()).read()
    assert found.get("system/gpu_utilization") == utilization
    assert found.get("system/gpu_memory_gb") == (memory and pytest.approx(memory))


@pytest.mark.parametrize(("answer", "code"), [("", 9), ("[N/A], [N/A]\n", 0), ("No devices were found\n", 6)])
def test_gpus_that_nvidia_smi_does_not_know_are_left_out(smi, monkeypatch, answer, code):
    asked = smi(answer, code)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert all(known == (None, None) for known in gpus(None))
    meter = Meter(os.getpid())
    assert "system/gpu_utilization" not in meter.read()
    asked.unlink()
    meter.read()
    assert not asked.exists()  # nor asked again


def test_a_job_without_gpus_asks_for_none(smi, monkeypatch):
    asked = smi("50, 1000\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices(os.environ) == []
    assert "system/gpu_utilization" not in Meter(os.getpid()).read()
    assert not asked.exists()

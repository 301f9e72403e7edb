import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.metrics import MetricsLog, Phases, plain, write_progress


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_hold_time_step_and_metrics(tmp_path):
    path = tmp_path / "attempt" / "metrics.jsonl"
    log = MetricsLog(path)
    before = time.time()
    log.log(0, {"actor/loss": 1})
    log.log(1, {"actor/loss": 0.5, "actor/lr": 1e-4})
    assert [(line["step"], line["metrics"]) for line in lines(path)] == [
        (0, {"actor/loss": 1.0}),
        (1, {"actor/loss": 0.5, "actor/lr": 1e-4}),
    ]
    assert before <= lines(path)[0]["time"] <= lines(path)[1]["time"] <= time.time()


@given(st.dictionaries(st.text(), st.floats()))
def test_stored_numbers_are_the_given_ones_and_null_where_not_finite(metrics):
    stored = json.loads(json.dumps(plain(metrics), allow_nan=False))
    assert stored == {name: value if math.isfinite(value) else None for name, value in metrics.items()}


@pytest.mark.parametrize("value", ["fast", None, [1.0]])
def test_a_value_that_is_no_number_is_refused_by_name(tmp_path, value):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="metric env/speed is .*not a number"):
        log.log(0, {"env/speed": value})
    assert log.path.read_text() == ""


def test_a_second_writer_goes_on_behind_the_first(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).log(0, {"a": 1})
    MetricsLog(path).log(1, {"a": 2})
    assert [line["step"] for line in lines(path)] == [0, 1]


@pytest.mark.parametrize("torn", ['{"time": 1.0, "st', "{"])
def test_a_torn_line_is_cut_off(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).log(0, {"a": 1})
    with path.open("a") as file:
        file.write(torn)
    MetricsLog(path).log(1, {"a": 2})
    assert [line["step"] for line in lines(path)] == [0, 1]


def test_a_file_with_nothing_but_a_torn_line_starts_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"time"')
    MetricsLog(path).log(0, {"a": 1})
    assert [line["step"] for line in lines(path)] == [0]


def test_a_killed_writer_leaves_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    code = f"""
from pathlib import Path
from stages.metrics import MetricsLog
log = MetricsLog(Path({str(path)!r}))
for step in range(10**9):
    log.log(step, {{"a": step}})
"""
    root = Path(__file__).parents[2]
    writer = subprocess.Popen([sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    deadline = time.monotonic() + 20
    while not path.exists() or path.stat().st_size < 10_000:
        assert time.monotonic() < deadline, "the writer wrote nothing"
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert [line["step"] for line in lines(path)] == list(range(len(lines(path))))


def test_progress_replaces_what_was_there_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "attempt" / "progress.json"
    write_progress(path, 3, 16, {"rollout/success_rate": 0.25})
    write_progress(path, 4, 16, {"rollout/success_rate": math.nan})
    assert json.loads(path.read_text()) == {"done": 4, "total": 16, "metrics": {"rollout/success_rate": None}}
    write_progress(path, 5, 16)
    assert json.loads(path.read_text()) == {"done": 5, "total": 16, "metrics": {}}
    assert [p.name for p in path.parent.iterdir()] == ["progress.json"]


def test_phases_add_up_and_stay_below_the_total(tmp_path):
    phases = Phases()
    for _ in range(2):
        with phases("simulate"):
            time.sleep(0.03)
    time.sleep(0.03)
    seconds = phases.seconds
    assert set(seconds) == {"simulate", "total"}
    assert 0.06 <= seconds["simulate"] <= seconds["total"] - 0.03


def test_an_inner_phase_pauses_the_outer_one(tmp_path):
    path = tmp_path / "phases.jsonl"
    phases = Phases(path)
    with phases("outer"):
        time.sleep(0.01)
        with phases("inner"):
            time.sleep(0.2)
        time.sleep(0.01)
    seconds = phases.seconds
    assert seconds["inner"] >= 0.2
    assert 0.02 <= seconds["outer"] < 0.2
    assert seconds["outer"] + seconds["inner"] <= seconds["total"]
    assert [line["phase"] for line in lines(path)] == ["outer", "inner", "outer"]


def test_seconds_may_be_read_within_a_phase():
    phases = Phases()
    with phases("simulate"):
        time.sleep(0.02)
        assert phases.seconds["simulate"] >= 0.02


def test_an_exception_ends_its_phase(tmp_path):
    phases = Phases(tmp_path / "phases.jsonl")
    with pytest.raises(KeyError), phases("simulate"):
        raise KeyError("lost")
    before = phases.seconds["simulate"]
    time.sleep(0.01)
    assert phases.seconds["simulate"] == before


def test_the_name_of_the_sum_is_taken():
    with pytest.raises(ValueError, match="total"), Phases()("total"):
        pass

"""How far a unit is can be seen at any moment, and costs little when a thousand episodes end together."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import Unit
from pipeline.compose import compose
from stages import unit
from stages.kept import Kept
from stages.unit import Work

ROOT = Path(__file__).parents[2]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path, compose(ROOT / "configs/quickstart.yaml"), Unit(1, "rollout", 0), 1, Kept())


def told(work: Work) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work.directory / "progress.json").read_text())
    return found


def test_of_many_episodes_that_end_together_few_are_told_and_the_last_one_is(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit, "PROGRESS_S", 60.0)
    replaced: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (replaced.append(new), replace(old, new)))
    with work.phases("simulate"):
        pass
    for episode in range(1, 1000):
        with work.phases("write"):
            pass
        work.tell(episode, 2000, {"rollout/success_rate": 0.5})
    assert told(work)["done"] == 1
    with work.phases("simulate"):
        assert told(work) == {"done": 999, "total": 2000, "metrics": {"rollout/success_rate": 0.5}}
    work.tell(2000, 2000, {})
    assert told(work)["done"] == 2000
    assert len(replaced) == 3
    phases = (work.directory / "phases.jsonl").read_text().splitlines()
    assert [json.loads(line)["phase"] for line in phases] == ["simulate", "write", "simulate"]


def test_what_comes_slowly_is_told_as_it_comes(work: Work) -> None:
    for step in range(3):
        work.progress(step, 9)
        assert told(work)["done"] == step
        time.sleep(unit.PROGRESS_S)

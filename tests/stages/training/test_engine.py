"""Training in processes of its own: resuming, ranks, micro-batches, and what is refused.

Starting a process costs more than all that is trained in it, so four starts serve every test: one rank and two ranks,
each before and after the hand-over through the file system.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest

from stages.training.ranks import run_ranks

ROOT = Path(__file__).parents[3]
WORKER = Path(__file__).parent / "worker_for_tests.py"
SETTINGS: dict[str, dict] = {
    "zero0": {"zero": 0},
    "muon": {"zero": 0, "optimizer": "muon"},
    "zero2": {"zero": 2},
    "zero3": {"zero": 3},
    "bf16": {"zero": 2, "precision": "bf16"},
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, dict]:
    """What every job found, by name."""
    folder = tmp_path_factory.mktemp("training")

    def state(name: str) -> str:
        return str(folder / name)

    alone = {f"straight-{name}": setting for name, setting in SETTINGS.items()}
    alone |= {f"half-{n}": {**s, "last": 4, "save": state(n)} for n, s in SETTINGS.items()}
    alone |= {"micro": {"micros": 4}, "nan": {"nan": True}, "unused": {"zero": 3, "last": 1, "unused_value_head": True}}
    alone["bf16-unsplit"] = {"zero": 0, "precision": "bf16"}
    together = {
        "straight-two": {},
        "half-two": {"last": 4, "save": state("two")},
        "split-two": {"zero": 2, "last": 3, "micros": 2, "save": state("split")},
        "from-one-rank": {"first": 4, "load": state("zero0")},
    }
    results = {**run(1, alone, folder), **run(2, together, folder)}
    shutil.copytree(state("zero0"), state("tampered"))
    about = json.loads((folder / "tampered" / "engine.json").read_text())
    about["fingerprints"] = ["0" * 16]
    (folder / "tampered" / "engine.json").write_text(json.dumps(about))
    (folder / "empty").mkdir()
    again = {f"resumed-{n}": {**s, "first": 4, "load": state(n)} for n, s in SETTINGS.items()}
    again |= {
        "other-size": {"zero": 2, "load": state("split")},
        "other-stage": {"zero": 2, "load": state("zero0")},
        "tampered": {"load": state("tampered")},
        "empty": {"load": state("empty")},
    }
    results |= run(1, again, folder)
    results |= run(2, {"resumed-two": {"first": 4, "load": state("two")}}, folder)
    return results


def run(ranks: int, jobs: dict[str, dict], folder: Path) -> dict[str, dict]:
    """Run the jobs in fresh processes."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        argv = [sys.executable, str(WORKER), json.dumps(jobs), str(folder), str(result)]
        assert run_ranks(ranks, argv, threads=1) == 0
    return json.loads(result.read_text())


@pytest.mark.parametrize("name", [*SETTINGS, "two"])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(found, name):
    straight, half, resumed = (found[f"{part}-{name}"] for part in ("straight", "half", "resumed"))
    assert half["digest"] != straight["digest"]
    assert half["norms"] + resumed["norms"] == straight["norms"]
    assert resumed["digest"] == straight["digest"]


@pytest.mark.parametrize("other", ["straight-zero2", "straight-zero3", "straight-two", "micro"])
def test_ranks_stages_and_micro_batches_change_no_more_than_rounding(found, other):
    assert found[other]["norms"] == pytest.approx(found["straight-zero0"]["norms"], rel=1e-4)
    for name, values in found["straight-zero0"]["weights"].items():
        assert found[other]["weights"][name] == pytest.approx(values, rel=1e-3, abs=1e-5)


def test_split_gradients_are_averaged_over_ranks_and_micro_batches_too(found):
    assert found["split-two"]["norms"] == pytest.approx(found["straight-zero0"]["norms"][:3], rel=1e-4)


def test_means_are_taken_over_ranks(found):
    assert found["straight-two"]["mean_rank"] == 0.5
    assert found["straight-zero0"]["mean_rank"] == 0


def test_an_unsplit_state_follows_any_number_of_ranks(found):
    assert found["from-one-rank"]["norms"] == pytest.approx(found["straight-zero0"]["norms"][4:], rel=1e-4)


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (
            "other-size",
            "was written by 2 ranks, this unit has 1, and deepspeed.zero_stage=2 splits its state over them",
        ),
        ("other-stage", "was written with zero_stage=0, not 2; set it back"),
        ("tampered", "the weights loaded are not those saved"),
        ("empty", "engine.json is missing"),
        ("nan", "optimizer step 1: the gradient's norm is nan; lower optimizer.lr"),
        ("unused", "deepspeed.zero_stage=3: value_head.bias was not used in this step"),
        ("bf16-unsplit", "policy.precision=bf16 is trained with deepspeed.zero_stage 1, 2 or 3; or use mixed"),
    ],
)
def test_what_cannot_be_right_is_refused_in_one_line(found, job, says):
    assert says in found[job]["error"]
    assert "\n" not in found[job]["error"]

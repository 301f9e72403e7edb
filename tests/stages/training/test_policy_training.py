"""The tiny policy through the engine: every ZeRO stage, precision and number of ranks trains the same policy.

Weights are compared by what the saved policy does: AdamW turns the rounding noise of a gradient that is zero (a key's
bias changes no attention) into whole steps of a weight that changes nothing.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.training.ranks import run_ranks

ROOT = Path(__file__).parents[3]
WORKER = Path(__file__).parent / "policy_worker_for_tests.py"
ZERO = (0, 1, 2, 3)
ALONE: dict[str, dict] = {f"update-{zero}": {"zero": zero} for zero in ZERO} | {"lora-0": {"zero": 0, "rank": 4}}
TOGETHER: dict[str, dict] = {
    **{f"{stage}-{zero}": {"zero": zero, "stage": stage} for zero in ZERO for stage in ("sft", "update")},
    **{f"bf16-{zero}": {"zero": zero, "precision": "bf16"} for zero in ZERO[1:]},
    **{f"lora-{zero}": {"zero": zero, "rank": 4} for zero in (2, 3)},
    "mixed": {"precision": "mixed"},
    "mlp": {"zero": 3, "recompute": "mlp"},
    "block": {"zero": 3, "recompute": "block"},
    "half": {"zero": 3, "rank": 4, "steps": 2},
    "resumed": {"zero": 3, "start": "half", "steps": 1},
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, dict]:
    """What one rank found, by job."""
    return run(1, ALONE, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> dict[str, dict]:
    """What two ranks found, by job."""
    return run(2, TOGETHER, tmp_path_factory.mktemp("together"))


def run(ranks: int, jobs: dict[str, dict], folder: Path) -> dict[str, dict]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        assert run_ranks(ranks, [sys.executable, str(WORKER), json.dumps(jobs), str(folder)], threads=1) == 0
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in jobs}


def agree(one: dict, other: dict, relative: float, absolute: float) -> None:
    assert one["norms"] == pytest.approx(other["norms"], rel=relative)
    for what in ("log_probs", "values"):
        np.testing.assert_allclose(one[what], other[what], rtol=relative, atol=absolute)


@pytest.mark.parametrize("zero", ZERO[1:])
def test_what_is_split_changes_nothing(alone, zero):
    agree(alone[f"update-{zero}"], alone["update-0"], 1e-4, 1e-4)


@pytest.mark.parametrize("zero", ZERO)
def test_two_ranks_update_as_one_does(alone, together, zero):
    agree(together[f"update-{zero}"], alone["update-0"], 1e-4, 1e-4)


@pytest.mark.parametrize("zero", ZERO[1:])
def test_imitation_is_split_alike(together, zero):
    agree(together[f"sft-{zero}"], together["sft-0"], 1e-4, 1e-4)


@pytest.mark.parametrize("zero", ZERO[1:])
def test_bf16_weights_with_split_masters_follow_fp32(together, zero):
    agree(together[f"bf16-{zero}"], together["update-0"], 0.03, 0.03)


def test_mixed_follows_fp32(together):
    agree(together["mixed"], together["update-0"], 0.03, 0.03)


@pytest.mark.parametrize("recompute", ["mlp", "block"])
def test_recomputing_changes_nothing(together, recompute):
    agree(together[recompute], together["update-3"], 1e-5, 1e-6)


@pytest.mark.parametrize("zero", [2, 3])
def test_additions_are_split_alike(alone, together, zero):
    agree(together[f"lora-{zero}"], alone["lora-0"], 1e-4, 1e-4)


def test_additions_continue_from_a_state_without_the_frozen_weights(together):
    whole, half, resumed = (together[name] for name in ("lora-3", "half", "resumed"))
    assert half["norms"] + resumed["norms"] == whole["norms"]
    assert resumed["log_probs"] == whole["log_probs"]

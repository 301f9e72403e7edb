"""The update stage as a process, where the policy's value head is trained before the rest."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from pipeline.artifacts import Unit


@pytest.mark.slow
def test_the_value_head_is_trained_alone_and_then_everything_from_split_bf16_weights(prepared, tmp_path):
    run = prepared.copy(
        tmp_path,
        Unit(1, "update"),
        # nothing succeeds in so small a run, but weights in training decay all the same
        update={"value_only_epochs": 1, "processes": 2, "recompute": "block", "optimizer": {"weight_decay": 10.0}},
        deepspeed={"zero_stage": 3},
        policy={"precision": "bf16"},
        rollout={"staleness": 1},
    ).run
    for epoch in (1, 2):
        code, output = prepared.__class__(run).start(Unit(epoch, "update")).end()
        assert code == 0, output
    before, warm, after = (load_file(run / "policies" / f"000{epoch}" / "model.safetensors") for epoch in range(3))
    changed = {name for name in before if not before[name].to(warm[name].dtype).equal(warm[name])}
    assert changed
    assert all(name.startswith("value_head.") for name in changed)
    moved = {name for name in warm if not warm[name].equal(after[name])}
    assert any(name.startswith("language_model.") for name in moved)

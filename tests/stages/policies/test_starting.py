"""What a run's config makes the warm start begin with."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.config import Config
from stages.policies.interface import load
from stages.sft import warm
from tests.stages.policies.layout_for_tests import OPTIONS, SIDE


def demonstrations(action_dim: int = 3, proprio: int = 4) -> SimpleNamespace:
    rng = np.random.default_rng(0)
    return SimpleNamespace(
        actions=rng.uniform(-1, 1, (6, 2, action_dim)).astype(np.float32),
        valid=np.ones((6, 2), dtype=bool),
        proprio=rng.normal(size=(6, proprio)).astype(np.float32),
        spec=SimpleNamespace(image_size=(SIDE, SIDE)),
    )


def config(**policy) -> Config:
    given = {"chunk": 2, "precision": "fp32", "options": {"prompt_end_id": 0, "images": 2}}
    made = Config.model_validate({"name": "run", "policy": given | policy})
    # three numbers an action, as the published checkpoint has: no simulator of ours takes so few
    return made.model_copy(update={"policy": made.policy.model_copy(update={"action_dim": 3})})


def test_a_published_checkpoint_gets_what_it_lacks_and_keeps_its_statistics(original) -> None:
    policy = warm(config(checkpoint=str(original)), demonstrations())
    assert (policy.config.proprio_dim, policy.config.chunk, policy.statistics.dataset) == (4, 2, "mine")
    same = warm(config(checkpoint=str(original)), demonstrations())
    other = load(original, precision="fp32", options=OPTIONS, seed=1)
    assert torch.equal(policy.proprio_projector.fc1.weight, same.proprio_projector.fc1.weight)
    assert torch.equal(policy.projector.fc1.weight, other.projector.fc1.weight)


def test_demonstrations_can_replace_the_statistics(original) -> None:
    chosen = config(checkpoint=str(original), statistics="demonstrations")
    policy = warm(chosen, demonstrations())
    assert policy.statistics.dataset == "household"
    assert policy.statistics.action.maximum == pytest.approx(demonstrations().actions.max(axis=(0, 1)))


def test_lora_of_the_config_is_the_policys(original) -> None:
    chosen = config(checkpoint=str(original), lora={"rank": 2, "targets": ["qkv"]}, proprio=False)
    policy = warm(chosen, demonstrations())
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert any(".attn.qkv.lora_A." in name for name in trained)
    assert all(".attn.qkv.lora_" in name or name.startswith("value_head.") for name in trained)


def test_a_policy_of_lora_goes_on_as_one(original, tmp_path) -> None:
    first = warm(config(checkpoint=str(original), lora={"rank": 2}), demonstrations())
    first.save(tmp_path)
    again = warm(config(checkpoint=str(tmp_path)), demonstrations())
    assert again.config.lora == first.config.lora
    assert torch.equal(again.projector.fc1.lora_A.weight, first.projector.fc1.lora_A.weight)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"lora": {"adapter": "somewhere"}}, "policy.checkpoint"),
        ({"lora": {"adapter": "somewhere", "rank": 4}, "checkpoint": "here"}, "leave them out"),
        ({"options": {"value_level": "action"}}, "one value a decision"),
        ({"options": {"action_head": "l1"}}, "no probabilities to train"),
    ],
)
def test_what_the_stages_cannot_train_is_refused_in_the_config(policy, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**policy)

"""Which package reads a saved policy, and what is said where another was expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.policies import interface as policies
from stages.policies.statistics import PolicyFileError


def saying(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("config", [{"model_type": "openvla"}, {"baton": {"policy": "openvla_oft"}}])
def test_a_policy_of_another_family_is_refused_before_its_weights_are_looked_at(tmp_path, config):
    with pytest.raises(PolicyFileError) as refused:
        policies.load(saying(tmp_path, **config), name="pi0")
    assert str(refused.value) == f"{tmp_path} holds a policy of openvla_oft, not of pi0: set policy.name=openvla_oft"


def test_openpis_config_names_no_model_and_is_known_by_its_horizon(tmp_path):
    with pytest.raises(PolicyFileError) as refused:
        policies.load(saying(tmp_path, action_dim=32, action_horizon=50), name="openvla_oft")
    assert str(refused.value) == f"{tmp_path} holds a policy of pi0, not of openvla_oft: set policy.name=pi0"


def test_without_a_config_only_a_name_tells(tmp_path):
    with pytest.raises(PolicyFileError) as refused:
        policies.load(tmp_path)
    assert str(refused.value) == f"{tmp_path / 'config.json'} is missing: is {tmp_path} a saved policy?"
    with pytest.raises(PolicyFileError, match="model.safetensors"):
        policies.load(tmp_path, name="pi0")

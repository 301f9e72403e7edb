"""Fixtures of the policies' tests."""

from pathlib import Path

import pytest
import torch

from tests.stages.policies.layout_for_tests import SIDE, TEXT, entry, publish, random_policy, tensors_of


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small networks are faster in one thread, and tests run beside one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Path:
    """What others published: shards, no value head."""
    folder = tmp_path_factory.mktemp("original") / "policy"
    return publish(folder, tensors_of(random_policy()), {"mine": entry()}, text=TEXT, image_size=SIDE)

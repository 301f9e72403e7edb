"""Make one policy of a frozen base and LoRA's additions, in the layout of the originals.

    python -m stages.policies.openvla_oft.merge runs/quickstart/policies/0009 merged

The originals' tools read the result as they read any checkpoint. Sums are taken in float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from stages.policies.openvla_oft import checkpoint, lora
from stages.policies.openvla_oft.config import LoRAConfig
from stages.policies.openvla_oft.policy import OpenVLAOFT
from stages.policies.statistics import PolicyFileError


def main(arguments: list[str] | None = None) -> int:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description="Merge a policy's LoRA additions into its weights.")
    parser.add_argument("policy", type=Path, help="directory of a policy in training with LoRA")
    parser.add_argument("into", type=Path, help="directory to write; it must not exist")
    parser.add_argument("--bf16", action="store_true", help="write bfloat16, as the originals do")
    given = parser.parse_args(arguments)
    if given.into.exists():
        parser.error(f"{given.into} exists: name a directory that does not")
    try:
        policy = merged(checkpoint.load(given.policy, precision="fp32"))
    except PolicyFileError as error:
        parser.error(str(error))
    state = policy.state_dict()
    if given.bf16:
        state = {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}
        policy.config = dataclasses.replace(policy.config, precision="bf16")
    given.into.mkdir(parents=True)
    policy.save(given.into, state)
    return 0


def merged(policy: OpenVLAOFT) -> OpenVLAOFT:
    """Merge a policy's additions into its weights; it is then as if trained without LoRA.

    Args:
        policy: changed in place.

    Returns:
        The same policy.
    """
    lora.merge(policy)
    policy.config = dataclasses.replace(policy.config, lora=LoRAConfig())
    policy.base = None
    return policy


if __name__ == "__main__":
    sys.exit(main())

"""OpenVLA-OFT, from a laptop's tiny preset to 7B."""

from stages.policies.openvla_oft.checkpoint import load, make

__all__ = ["load", "make"]

"""The arms of a ManiSkill environment: what they are told and what they feel, for b worlds at once, left arm first."""

from __future__ import annotations

from typing import Any

import torch

from stages.simulators.maniskill.catalogue import ARM_ACTIONS


def split(env: Any, actions: torch.Tensor) -> Any:
    """What `env.step` takes.

    Args:
        env: ManiSkill's BaseEnv.
        actions: float32 [b, A] in [-1, 1], A = 7 an arm: the hand's way along x, y and z of the arm's base, 1 is 10 cm,
            its turn about the same, -1 is 0.1 rad, and the gripper, 1 opens. ManiSkill's `pd_ee_delta_pose` as it is.
    """
    arms = getattr(env.agent, "agents_dict", None)
    return dict(zip(arms, actions.split(ARM_ACTIONS, dim=1), strict=True)) if arms else actions


def proprioception(env: Any) -> torch.Tensor:
    """What the robot feels of itself.

    Returns:
        float32 [b, P], P = 16 an arm: angles of its 7 joints and places of its 2 fingers, place of the point between
        the fingers in the frame of the arm's base (3), and its rotation there as a quaternion w, x, y, z, x >= 0: a
        hand that points down never comes near where the sign changes.
    """
    parts = []
    for agent in getattr(env.agent, "agents", [env.agent]):
        hand = agent.robot.pose.inv() * agent.tcp.pose
        rotation = torch.where(hand.q[:, 1:2] < 0, -hand.q, hand.q)
        parts += [agent.robot.get_qpos(), hand.p, rotation]
    return torch.cat(parts, dim=1).float()

"""What the cameras of a ManiSkill environment show, for b worlds at once.

ManiSkill hides the marker of a task's goal from a policy and tells it where the goal is in numbers instead. Here a
policy has its cameras only, so the marker is drawn.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mani_skill.sensors.camera import Camera

HEAD, HAND = "base_camera", "hand_camera"
_HEAD_FRAME, _HAND_FRAME = 448, 224


def draw(env: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What a policy sees.

    Args:
        env: ManiSkill's BaseEnv.

    Returns:
        head: uint8 [b, 3, H, W], RGB of the camera before the table.
        wrist: uint8 [b, V, 3, H, W], of the cameras at the hands, left arm first.
    """
    sensors: dict[str, Camera] = env._sensors
    head, *hands = _take(env, [sensors[HEAD], *(sensors[name] for name in _hands(env))])
    return head.permute(0, 3, 1, 2), torch.stack(hands, dim=1).permute(0, 1, 4, 2, 3)


class Film:
    """Cameras of an environment that take larger pictures, for an audience."""

    def __init__(self, env: Any) -> None:
        """Put a camera for films beside each of ManiSkill's; gone when ManiSkill builds its scene anew."""
        self._env, self._scene = env, env.scene
        sizes = {HEAD: _HEAD_FRAME, **dict.fromkeys(_hands(env), _HAND_FRAME)}
        self._cameras = [self._beside(name, size) for name, size in sizes.items()]

    @property
    def lost(self) -> bool:
        """Whether the scene is another one by now."""
        return self._env.scene is not self._scene

    def frames(self) -> torch.Tensor:
        """What the worlds look like: uint8 [b, 448, 672, 3], the hands' cameras on the left, the other on the right."""
        head, *hands = _take(self._env, self._cameras)
        left = torch.zeros((len(head), _HEAD_FRAME, _HAND_FRAME, 3), dtype=torch.uint8, device=head.device)
        for row, hand in enumerate(hands):
            left[:, row * _HAND_FRAME : (row + 1) * _HAND_FRAME] = hand
        return torch.cat([left, head], dim=2)

    def _beside(self, name: str, size: int) -> Camera:
        config = copy.copy(self._env._sensors[name].config)
        config.uid, config.width, config.height = f"film-{name}", size, size
        return Camera(config, self._scene)


def _hands(env: Any) -> list[str]:
    return sorted(name for name in env._sensors if name.endswith(HAND))


def _take(env: Any, cameras: Sequence[Camera]) -> list[torch.Tensor]:
    """Pictures of some cameras, uint8 [b, H, W, 3] each."""
    for marker in env._hidden_objects:
        marker.show_visual()
    env.scene.update_render(update_sensors=True, update_human_render_cameras=False)
    for camera in cameras:
        camera.capture()
    return [camera.get_obs(depth=False, position=False, segmentation=False)["rgb"] for camera in cameras]

"""What the expert sees of a world: the hand, the thing to move, where it belongs and what stands around."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np

_CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))

_SLIDING = 0.05  # metres a second
_TURNING = 0.5  # radians a second


@dataclasses.dataclass(frozen=True)
class Boxes:
    """G boxes around collision geoms, turned as the geoms are.

    Attributes:
        center: [G, 3] in the world, in metres.
        rotation: [G, 3, 3].
        half: [G, 3] half their edges.
    """

    center: np.ndarray
    rotation: np.ndarray
    half: np.ndarray

    def corners(self) -> np.ndarray:
        """[8 G, 3] in the world."""
        local = _CORNERS * self.half[:, None]
        return (local @ self.rotation.transpose(0, 2, 1) + self.center[:, None]).reshape(-1, 3)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corners [G, 3] along the world's axes."""
        reach = np.einsum("gij,gj->gi", np.abs(self.rotation), self.half)
        return self.center - reach, self.center + reach

    def distance(self, points: np.ndarray) -> float:
        """From the nearest of points [P, 3] to the nearest box; negative inside one, infinite without boxes."""
        if not len(self.center):
            return float("inf")
        local = np.einsum("pgi,gij->pgj", points[:, None] - self.center, self.rotation)
        over = np.abs(local) - self.half
        outside = np.linalg.norm(np.maximum(over, 0.0), axis=-1)
        return float((outside + np.minimum(over.max(axis=-1), 0.0)).min())


@dataclasses.dataclass(frozen=True)
class Body:
    """A thing in the world.

    Attributes:
        position: [3] of its origin, which is what LIBERO's predicates judge.
        rotation: [3, 3].
        boxes: what it is made of.
    """

    position: np.ndarray
    rotation: np.ndarray
    boxes: Boxes


@dataclasses.dataclass(frozen=True)
class Hand:
    """The gripper.

    Attributes:
        position: [3] of the point between the finger pads.
        rotation: [3, 3]; the first column is where the fingers open, the third where they point.
        opening: metres between the pads.
        closing: metres a second at which they come together.
    """

    position: np.ndarray
    rotation: np.ndarray
    opening: float
    closing: float


class Scene:
    """One world at one moment, read from robosuite's environment of a LIBERO task."""

    def __init__(self, env: Any) -> None:
        self._env, self._sim = env, env.sim
        self._predicate, self._item, self._support = env.parsed_problem["goal_state"][0]

    @functools.cached_property
    def hand(self) -> Hand:
        """Where the gripper is."""
        robot, data = self._env.robots[0], self._sim.data
        joints, speeds = robot._ref_gripper_joint_pos_indexes, robot._ref_gripper_joint_vel_indexes
        return Hand(
            position=np.array(data.site_xpos[robot.eef_site_id]),
            rotation=np.array(data.site_xmat[robot.eef_site_id]).reshape(3, 3),
            opening=float(data.qpos[joints[0]] - data.qpos[joints[1]]),
            closing=float(data.qvel[speeds[1]] - data.qvel[speeds[0]]),
        )

    @functools.cached_property
    def base(self) -> np.ndarray:
        """Where the arm stands, [3]."""
        return np.array(self._env.robots[0].base_pos)

    @functools.cached_property
    def item(self) -> Body:
        """What the task is about."""
        return self._body(self._item)

    @functools.cached_property
    def restless(self) -> bool:
        """Whether the item is still falling or sliding by itself."""
        speed = self._sim.data.get_joint_qvel(self._env.get_object(self._item).joints[-1])
        return bool(np.linalg.norm(speed[:3]) > _SLIDING or np.linalg.norm(speed[3:]) > _TURNING)

    @functools.cached_property
    def others(self) -> Boxes:
        """Everything that stands around except what the task is about: other things and furniture, not the floor."""
        names = [name for name in (*self._env.objects_dict, *self._env.fixtures_dict) if name != self._item]
        return self._boxes([self._root(name) for name in names if name in self._env.obj_body_id])

    def place(self, item: Body) -> np.ndarray:
        """Where the item's origin belongs, [3], if it is set down as it is turned."""
        hanging = item.position[2] - item.boxes.bounds()[0][:, 2].min()
        if self._support in self._env.object_sites_dict:
            site = self._sim.data.get_site_xpos(self._support)
            turned = self._sim.data.get_site_xmat(self._support)
            reach = np.abs(turned @ self._env.object_sites_dict[self._support].size)[2]
            floor = site[2] + (reach if self._predicate == "on" else -reach)
            return np.array([site[0], site[1], floor + hanging])
        support = self._body(self._support)
        low, high = support.boxes.bounds()
        middle = np.all((low[:, :2] < support.position[:2]) & (support.position[:2] < high[:, :2]), axis=1)
        floor = high[middle, 2].max() if middle.any() else support.position[2]
        return np.array([*support.position[:2], floor + hanging])

    def _root(self, name: str) -> int:
        return self._env.obj_body_id[name]

    def _body(self, name: str) -> Body:
        root, data = self._root(name), self._sim.data
        return Body(
            position=np.array(data.body_xpos[root]),
            rotation=np.array(data.body_xmat[root]).reshape(3, 3),
            boxes=self._boxes([root]),
        )

    def _boxes(self, roots: list[int]) -> Boxes:
        """Of all collision geoms of bodies and what hangs on them."""
        model, data = self._sim.model._model, self._sim.data
        solid = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
        chosen = np.flatnonzero(solid & np.isin(model.body_rootid[model.geom_bodyid], roots))
        rotation = np.array(data.geom_xmat[chosen]).reshape(-1, 3, 3)
        middle = np.einsum("gij,gj->gi", rotation, model.geom_aabb[chosen, :3])
        return Boxes(data.geom_xpos[chosen] + middle, rotation, np.array(model.geom_aabb[chosen, 3:]))

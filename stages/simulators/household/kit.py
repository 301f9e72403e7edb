"""Everything that the tasks of one config speak of, numbered: objects, drawers and the frames that places refer to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from stages.simulators.household.props import Drawer, Fixture, Place, Prop
from stages.simulators.household.state import Snapshot

_FAR = 3.0  # where objects are that a world does not have, in metres


@dataclasses.dataclass(frozen=True)
class Scene:
    """What stands on a table: one model for every task that shares it.

    Attributes:
        props: free bodies, in the order of the model; what a task does not place waits on the floor.
        fixtures: what stands fixed.
    """

    props: tuple[Prop, ...]
    fixtures: tuple[Fixture, ...] = ()

    @property
    def drawers(self) -> tuple[Drawer, ...]:
        """Those of all its fixtures."""
        return tuple(drawer for fixture in self.fixtures for drawer in fixture.drawers)


class Kit:
    """The union of scenes.

    O objects and D drawers are numbered in the order of their first appearance. F frames: the objects, the drawers'
    handles, the drawers' insides, the fixtures' spots and the world.

    Attributes:
        props: O props.
        drawers: D drawers.
        frame_count: F.
    """

    def __init__(self, scenes: Iterable[Scene]) -> None:
        """Number what is in the scenes; one name must stand for one thing in all of them."""
        props: dict[str, Prop] = {}
        fixtures: dict[str, Fixture] = {}
        for scene in scenes:
            for prop in scene.props:
                if props.setdefault(prop.name, prop) != prop:
                    raise ValueError(f"two props are called {prop.name}")
            for fixture in scene.fixtures:
                if fixtures.setdefault(fixture.name, fixture) != fixture:
                    raise ValueError(f"two fixtures are called {fixture.name}")
        self.props = tuple(props.values())
        owners = [(drawer, fixture) for fixture in fixtures.values() for drawer in fixture.drawers]
        self.drawers = tuple(drawer for drawer, _ in owners)
        spots = {f"{f.name}.{spot}": np.add(f.at, at) for f in fixtures.values() for spot, at in f.spots}
        moving = [f"{drawer.name}.handle" for drawer in self.drawers] + [f"{d.name}.inside" for d in self.drawers]
        names = [*props, *moving, *spots, "world"]
        if len(set(names)) < len(names):
            raise ValueError("two frames of a kit have one name")
        self.frame_count = len(names)
        self._objects = {name: i for i, name in enumerate(props)}
        self._drawers = {drawer.name: i for i, drawer in enumerate(self.drawers)}
        self._frames = {name: i for i, name in enumerate(names)}
        self._axis = np.array([d.axis for d in self.drawers]).reshape(-1, 3)
        self._handle = np.array([np.add(f.at, d.handle) for d, f in owners]).reshape(-1, 3)
        self._inside = np.array([np.add(f.at, d.inside) for d, f in owners]).reshape(-1, 3)
        self._still = np.array([*spots.values(), np.zeros(3)])

    def object(self, prop: Prop) -> int:
        """Number of a prop."""
        return self._objects[prop.name]

    def drawer(self, drawer: Drawer) -> int:
        """Number of a drawer."""
        return self._drawers[drawer.name]

    def frame(self, name: str) -> int:
        """Number of a frame."""
        return self._frames[name]

    def ends(self, place: Place) -> tuple[int, int]:
        """Numbers of the two frames that a place is in the middle of, twice the same one where there is one."""
        first = self.frame(place.frame)
        return first, first if place.second is None else self.frame(place.second)

    def empty(self, count: int) -> Snapshot:
        """A state of N = `count` worlds to write into: every object far away and at rest, every drawer shut."""
        objects, drawers = len(self.props), len(self.drawers)
        return Snapshot(
            hand_position=np.zeros((count, 2, 3)),
            hand_rotation=np.zeros((count, 2, 3, 3)),
            opening=np.zeros((count, 2)),
            object_position=np.full((count, objects, 3), _FAR),
            object_rotation=np.tile(np.eye(3), (count, objects, 1, 1)),
            object_speed=np.zeros((count, objects)),
            drawer=np.zeros((count, drawers)),
            frame_position=np.zeros((count, self.frame_count, 3)),
            frame_rotation=np.tile(np.eye(3), (count, self.frame_count, 1, 1)),
        )

    def frames(self) -> dict[str, np.ndarray]:
        """What `locate` places frames with: axis, handle, inside [D, 3] of shut drawers, still [S, 3] of the rest."""
        return {"axis": self._axis, "handle": self._handle, "inside": self._inside, "still": self._still}

    def locate(self, state: Snapshot) -> None:
        """Write where the frames are, from where the objects and drawers are."""
        objects, drawers = len(self.props), len(self.drawers)
        state.frame_position[:, :objects] = state.object_position
        state.frame_rotation[:, :objects] = state.object_rotation
        state.frame_position[:, objects + 2 * drawers :] = self._still
        if drawers:
            slid = state.drawer[..., None] * self._axis
            state.frame_position[:, objects : objects + drawers] = self._handle + slid
            state.frame_position[:, objects + drawers : objects + 2 * drawers] = self._inside + slid

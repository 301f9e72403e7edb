"""Where things start: all objects of a world are drawn together, over arrays with a leading world axis N.

C candidate layouts are drawn at once and the first valid one is taken, so that no world can wait for ever.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from stages.simulators.household.kit import Kit, Scene
from stages.simulators.household.props import Drawer, Prop

NOT_MIRRORED, EITHER_SIDE, RIGHT_SIDE = range(3)
FLOOR = -0.6  # height of the room's floor, the table's top is at 0

_CANDIDATES = 64
_FEW = 8  # candidates that are looked at first: mostly one of them will do
_FIXTURE_CLEARANCE = 0.02  # room between an object and what stands fixed, in metres
_FAR = 3.0  # x of where objects wait that a task does not use, in metres


@dataclasses.dataclass(frozen=True)
class Put:
    """Where one prop starts.

    Attributes:
        item: the prop.
        at: nominal (x, y) in metres; relative to `by` where that is given.
        within: half ranges of x and y about it, in metres.
        by: a prop that comes before this one; `at` is relative to where that starts.
        resting: it starts on top of `by`, or in it where that is a container.
        yaw: half range of its turn about `facing`, in radians.
        facing: nominal turn, in radians.
        height: of the fixture that it stands on or in, over the table, in metres.
    """

    item: Prop
    at: tuple[float, float]
    within: tuple[float, float] = (0.02, 0.02)
    by: Prop | None = None
    resting: bool = False
    yaw: float = 0.3
    facing: float = 0.0
    height: float = 0.0


@dataclasses.dataclass(frozen=True)
class Layout:
    """The start of a task.

    Attributes:
        puts: where the props start; props of the scene that are not named wait on the floor.
        openings: how far drawers are open at first: drawer, least and most in metres; shut where not named.
        shuffled: these props exchange their `at`, `within` and `facing` at random.
        mirrored: NOT_MIRRORED, EITHER_SIDE (y changes its sign in half of the worlds) or RIGHT_SIDE (in all).
        clearance: least room between two objects, for a finger and its error, in metres.
    """

    puts: tuple[Put, ...]
    openings: tuple[tuple[Drawer, float, float], ...] = ()
    shuffled: tuple[Prop, ...] = ()
    mirrored: int = NOT_MIRRORED
    clearance: float = 0.035


@dataclasses.dataclass
class Start:
    """Where everything of N worlds starts.

    Attributes:
        position: [N, O, 3] of the objects' origins, in metres.
        yaw: [N, O] in radians.
        drawer: [N, D] openings, in metres.
    """

    position: np.ndarray
    yaw: np.ndarray
    drawer: np.ndarray

    def take(self, rows: np.ndarray) -> Start:
        """Some worlds of it."""
        return Start(self.position[rows], self.yaw[rows], self.drawer[rows])


class Layouts:
    """The layouts of T tasks as arrays, P props in the largest scene."""

    def __init__(self, kit: Kit, scenes: Sequence[Scene], layouts: Sequence[Layout], spread: float) -> None:
        """Compile.

        Args:
            kit: what the scenes are made of.
            scenes: T scenes.
            layouts: T layouts.
            spread: scales all randomisation, 0 is the nominal layout, 1 the whole one.
        """
        self._kit, self._spread = kit, spread
        self._plans = [_Compiled(kit, scene, layout) for scene, layout in zip(scenes, layouts, strict=True)]

    def sample(self, tasks: np.ndarray, generators: Sequence[np.random.Generator]) -> Start:
        """Draw where everything starts.

        Args:
            tasks: int [N].
            generators: N random streams.

        Returns:
            Per world the first of C candidates that keeps its objects apart; the roomiest one if none does.
        """
        count, objects = len(tasks), len(self._kit.props)
        waiting = np.array([[_FAR, -0.4 * i, FLOOR + prop.rest] for i, prop in enumerate(self._kit.props)])
        start = Start(
            np.tile(waiting.reshape(-1, 3), (count, 1, 1)),
            np.zeros((count, objects)),
            np.zeros((count, len(self._kit.drawers))),
        )
        for task in np.unique(tasks):
            rows = np.flatnonzero(tasks == task)
            plan = self._plans[int(task)]
            position, yaw, drawer = plan.sample([generators[int(row)] for row in rows], self._spread)
            start.position[rows[:, None], plan.objects] = position
            start.yaw[rows[:, None], plan.objects] = yaw
            start.drawer[rows[:, None], plan.drawers] = drawer
        return start


class _Compiled:
    """The layout of one task as arrays over its scene's P props."""

    def __init__(self, kit: Kit, scene: Scene, layout: Layout) -> None:
        props = [prop.name for prop in scene.props]
        count = len(props)
        self._layout = layout
        self.objects = np.array([kit.object(prop) for prop in scene.props])
        self.drawers = np.array([kit.drawer(drawer) for drawer, _, _ in layout.openings], dtype=np.int64)
        self._bounds = np.array([bounds for _, *bounds in layout.openings]).reshape(-1, 2)
        self._order = [props.index(put.item.name) for put in layout.puts]
        self._by = [props.index(put.by.name) if put.by else -1 for put in layout.puts]
        self._shuffled = np.array([props.index(prop.name) for prop in layout.shuffled], dtype=np.int64)
        self._present = np.zeros(count, dtype=bool)
        self._spots = np.zeros((count, 2, 2))
        self._yaw, self._facing = np.zeros(count), np.zeros(count)
        rest = np.array([prop.rest for prop in scene.props])
        # What a task does not use waits on the floor, out of every camera's sight.
        self._parked = np.stack([np.full(count, _FAR), np.arange(count) * 0.4, rest + FLOOR], axis=-1)
        self._height = rest.copy()
        self._grounded = np.zeros(count, dtype=bool)
        together = np.eye(count, dtype=bool)
        for put, i, by in zip(layout.puts, self._order, self._by, strict=True):
            self._present[i] = True
            self._spots[i] = put.at, put.within
            self._yaw[i], self._facing[i] = put.yaw, put.facing
            self._height[i] += put.height
            self._grounded[i] = put.height == 0
            if put.resting and put.by is not None:
                surface = put.by.floor if put.by.opening[0] else put.by.top
                self._height[i] += self._height[by] - rest[by] + put.by.rest + surface
                together[i] |= together[by]
                together[:, i] |= together[:, by]
        first, second = np.triu_indices(count, k=1)
        apart = self._present[first] & self._present[second] & ~together[first, second]
        self._first, self._second = first[apart], second[apart]
        self._radius = np.array([prop.radius for prop in scene.props])
        self._core = np.array([prop.core for prop in scene.props])
        self._centre = np.array([fixture.at[:2] for fixture in scene.fixtures]).reshape(-1, 2)
        self._half = np.array([fixture.footprint for fixture in scene.fixtures]).reshape(-1, 2)

    def sample(self, generators: list[np.random.Generator], spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions [n, P, 3], yaws [n, P] and the openings of the drawers that start open."""
        count = len(generators)
        props = len(self._present)
        draws = np.stack([stream.uniform(-1, 1, (_CANDIDATES, props, 3)) for stream in generators])
        left = np.array([stream.random() < 0.5 for stream in generators])
        mirrored = self._layout.mirrored
        sign = np.where((mirrored == NOT_MIRRORED) | (left & (mirrored == EITHER_SIDE)), 1.0, -1.0)
        spots = np.tile(self._spots, (count, 1, 1, 1))
        facing = np.tile(self._facing, (count, 1))
        if len(self._shuffled):
            exchanged = np.array([stream.permutation(self._shuffled) for stream in generators])
            spots[:, self._shuffled] = self._spots[exchanged]
            facing[:, self._shuffled] = self._facing[exchanged]
        opening = np.array([stream.random(len(self._bounds)) for stream in generators])
        drawer = self._bounds[:, 0] + opening * (self._bounds[:, 1] - self._bounds[:, 0])

        spots[..., 1] *= sign[:, None, None]
        xy = spots[:, None, :, 0] + spread * spots[:, None, :, 1] * draws[..., :2]
        for i, by in zip(self._order, self._by, strict=True):
            if by >= 0:
                xy[:, :, i] += xy[:, :, by]
        apart = self._room(xy[:, :_FEW]) >= 0
        chosen, crowded = apart.argmax(axis=1), np.flatnonzero(~apart.any(axis=1))
        room = self._room(xy[crowded])
        chosen[crowded] = np.where((room >= 0).any(axis=1), (room >= 0).argmax(axis=1), room.argmax(axis=1))
        rows = np.arange(count)
        height = np.tile(self._height, (count, 1))[..., None]
        position = np.concatenate([xy[rows, chosen], height], axis=-1)
        turn = draws[rows, chosen, :, 2] * self._yaw * spread + facing * sign[:, None]
        present = self._present
        return np.where(present[:, None], position, self._parked), np.where(present, turn, 0.0), drawer

    def _room(self, xy: np.ndarray) -> np.ndarray:
        """Least clearance [n, C] in metres of candidates [n, C, P, 2], negative where objects are too close."""
        cores = self._core[self._first] + self._core[self._second]
        gap = np.maximum(np.abs(xy[:, :, self._first] - xy[:, :, self._second]) - cores, 0.0)
        distance = np.linalg.norm(gap, axis=-1)
        pairs = distance - self._radius[self._first] - self._radius[self._second] - self._layout.clearance
        room: np.ndarray = pairs.min(axis=-1, initial=np.inf)
        for centre, half in zip(self._centre, self._half, strict=True):
            outside = np.maximum(np.abs(xy - centre) - half - self._core, 0.0)
            aside = np.linalg.norm(outside, axis=-1) - self._radius - _FIXTURE_CLEARANCE
            room = np.minimum(room, np.where(self._grounded, aside, np.inf).min(axis=-1))
        return room

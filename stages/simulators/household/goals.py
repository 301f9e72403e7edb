"""What makes a task solved: a conjunction of atoms, evaluated over arrays with a leading world axis N.

Two kinds of atom are enough. `Placed`: a prop rests in a region, let go of. `Slid`: a drawer is open or shut that far.
The functions below make those that instructions speak of: on, inside, beside, between, opened, closed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from stages.simulators.household.kit import Kit
from stages.simulators.household.props import Drawer, Place, Prop
from stages.simulators.household.state import Snapshot

# Directions as the robot sees them: it looks along +x and what is in front of a thing is nearer to the robot.
DIRECTIONS = {"left": (0.0, 1.0), "right": (0.0, -1.0), "front": (-1.0, 0.0), "behind": (1.0, 0.0)}

_REST_HEIGHT = 0.008  # metres off the height of lying where it should
REST_SPEED = 0.08  # metres a second
HAND_NEAR = 0.12  # a hand closer than this to a thing, or to where it is held, has to be open
_RELEASED = 0.02  # this much wider than the thing
_WIDE_OPEN = 0.095  # or this wide, in metres
NONE = -1


@dataclasses.dataclass(frozen=True)
class Placed:
    """A prop's origin rests in a region about a place, and no hand holds it.

    Attributes:
        item: the prop.
        place: where its origin is at best.
        radius: how far aside it may be, in metres.
        half: how far aside it may be along x and along y, in metres.
        turned: x and y are those of the place's (first) frame, not the world's.
        height: how far above or below the place it may be, in metres.
    """

    item: Prop
    place: Place
    radius: float = math.inf
    half: tuple[float, float] = (math.inf, math.inf)
    turned: bool = False
    height: float = _REST_HEIGHT


@dataclasses.dataclass(frozen=True)
class Slid:
    """A drawer's opening is within bounds.

    Attributes:
        drawer: the drawer.
        least: in metres.
        most: in metres.
        best: what the dense reward leads to, in metres.
    """

    drawer: Drawer
    least: float
    most: float
    best: float


Atom = Placed | Slid


def on(item: Prop, support: Prop, radius: float) -> Placed:
    """`item` lies on `support`, its middle at most `radius` metres off the middle of it."""
    return Placed(item, Place(support.name, offset=(0.0, 0.0, support.top + item.rest)), radius=radius)


def inside(item: Prop, container: Prop | Drawer, height: float = 0.03) -> Placed:
    """`item` lies in a container or drawer, its middle at most `height` metres off the height of standing in it."""
    if isinstance(container, Drawer):
        place, half = Place(f"{container.name}.inside", offset=(0.0, 0.0, item.rest)), container.room
    else:
        place, half = Place(container.name, offset=(0.0, 0.0, container.floor + item.rest)), container.opening
    return Placed(item, place, half=half, turned=True, height=height)


def beside(item: Prop, reference: Prop, direction: str, distance: float, half: float = 0.04) -> Placed:
    """`item` stands to a side of `reference`, both on the table.

    Args:
        item: the prop.
        reference: what the direction is seen from.
        direction: one of DIRECTIONS.
        distance: between their middles at best, in metres.
        half: how far off that the item may be along x and y, in metres.
    """
    x, y = DIRECTIONS[direction]
    offset = (x * distance, y * distance, item.rest - reference.rest)
    return Placed(item, Place(reference.name, offset=offset), half=(half, half))


def between(item: Prop, first: Prop, second: Prop, half: tuple[float, float]) -> Placed:
    """`item` stands in the middle between two others of one height, at most `half` metres off along x and y."""
    place = Place(first.name, second.name, offset=(0.0, 0.0, item.rest - first.rest))
    return Placed(item, place, half=half)


def opened(drawer: Drawer, share: float = 0.8) -> Slid:
    """`drawer` is open at least that share of its travel."""
    return Slid(drawer, share * drawer.travel, math.inf, drawer.travel)


def closed(drawer: Drawer, most: float = 0.015) -> Slid:
    """`drawer` is open at most `most` metres."""
    return Slid(drawer, -math.inf, most, 0.0)


class Goals:
    """Atoms as arrays: M atoms, and for each task the numbers of those that have to hold."""

    def __init__(self, kit: Kit, conjunctions: Sequence[Sequence[Atom]]) -> None:
        """Compile the goals of T tasks."""
        self._kit = kit
        self._atoms: list[Atom] = []
        self._tasks = np.array(_padded([self.number(goal) for goal in conjunctions]))
        self._compile()

    def number(self, atoms: Sequence[Atom]) -> list[int]:
        """Numbers of atoms, as `holds` takes them; ones not seen before are added."""
        known = len(self._atoms)
        self._atoms += [atom for atom in dict.fromkeys(atoms) if atom not in self._atoms]
        if len(self._atoms) > known:
            self._compile()
        return [self._atoms.index(atom) for atom in atoms]

    def tables(self) -> dict[str, np.ndarray]:
        """The compiled arrays: `tasks` has the numbers of each task's atoms, -1 for none, the others what atoms are."""
        names = ("tasks", "slid", "turned", "item", "drawer", "handle", "ends", "offset", "half", "points", "radius")
        return {name: getattr(self, f"_{name}") for name in (*names, "released", "least", "most", "best")}

    def succeeded(self, tasks: np.ndarray, state: Snapshot) -> np.ndarray:
        """Whether all of a task's atoms hold.

        Args:
            tasks: int [N].
            state: N worlds.

        Returns:
            bool [N].
        """
        result: np.ndarray = np.all(self.holds(self._tasks[tasks], state), axis=1)
        return result

    def potential(self, tasks: np.ndarray, state: Snapshot) -> np.ndarray:
        """How close a world is to success: hands to what is not yet in place, and that to its place.

        The dense reward pays differences of it, which leaves the best policy unchanged (Ng, Harada and Russell, 1999).

        Args:
            tasks: int [N].
            state: N worlds.

        Returns:
            [N], 0 at best.
        """
        numbers = self._tasks[tasks]
        carry = _length(self._gap(numbers, state))
        reach = self._hand_distance(numbers, state).min(axis=-1)
        slid = self._slid[numbers]
        if slid.any():
            rows = np.arange(len(numbers))[:, None]
            drawer, frame = self._drawer[numbers], self._handle[numbers]
            carry = np.where(slid, np.abs(state.drawer[rows, drawer] - self._best[numbers]), carry)
            handle = state.frame_position[rows, frame][:, :, None] - state.hand_position[:, None]
            reach = np.where(slid, _length(handle).min(axis=-1), reach)
        left = -np.tanh(4 * reach) * 0.5 - np.tanh(4 * carry)
        result: np.ndarray = np.where(self.holds(numbers, state), 0.0, left).sum(axis=1)
        return result

    def holds(self, numbers: np.ndarray, state: Snapshot) -> np.ndarray:
        """Whether atoms hold.

        Args:
            numbers: int [N, A] of the atoms asked for in each world; -1 asks for none and holds.
            state: N worlds.

        Returns:
            bool [N, A].
        """
        rows = np.arange(len(numbers))[:, None]
        gap = self._gap(numbers, state)
        aside = np.abs(gap) < self._half[numbers]
        there = aside.all(axis=-1) & (_length(gap[..., :2]) < self._radius[numbers])
        at_rest = state.object_speed[rows, self._item[numbers]] < REST_SPEED
        near = self._hand_distance(numbers, state) < HAND_NEAR
        released = (~near | (state.opening[:, None] > self._released[numbers][..., None])).all(axis=-1)
        result = there & at_rest & released
        if self._slides:
            opening = state.drawer[rows, self._drawer[numbers]]
            within = (opening >= self._least[numbers]) & (opening <= self._most[numbers])
            result = np.where(self._slid[numbers], within, result)
        return result | (numbers == NONE)

    def _gap(self, numbers: np.ndarray, state: Snapshot) -> np.ndarray:
        """From the place of items to the items [N, A, 3], along the axes that their regions are along."""
        rows = np.arange(len(numbers))[:, None]
        ends = self._ends[numbers]
        place = 0.5 * (state.frame_position[rows, ends[..., 0]] + state.frame_position[rows, ends[..., 1]])
        gap = state.object_position[rows, self._item[numbers]] - (place + self._offset[numbers])
        if self._turns:
            axes = state.frame_rotation[rows, ends[..., 0]]
            gap = np.where(self._turned[numbers][..., None], np.squeeze(gap[..., None, :] @ axes, -2), gap)
        return gap

    def _hand_distance(self, numbers: np.ndarray, state: Snapshot) -> np.ndarray:
        """From both hands to items, or to where those are held if that is nearer: [N, A, 2] in metres."""
        rows = np.arange(len(numbers))[:, None]
        item = self._item[numbers]
        points = state.object_position[rows, item][:, :, None]
        if self._points.shape[1] > 1:
            turned = self._points[numbers] @ np.swapaxes(state.object_rotation[rows, item], -1, -2)
            points = points + turned
        away = state.hand_position[:, None, None] - points[:, :, :, None]
        result: np.ndarray = _length(away).min(axis=2)
        return result

    def _compile(self) -> None:
        # The row of zeros at the end is what -1 points to.
        count = len(self._atoms) + 1
        self._slid, self._turned = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        self._item, self._drawer, self._handle = (np.zeros(count, dtype=np.int64) for _ in range(3))
        self._ends = np.zeros((count, 2), dtype=np.int64)
        self._offset, self._half = np.zeros((count, 3)), np.zeros((count, 3))
        self._radius, self._released, self._least, self._most, self._best = np.zeros((5, count))
        places = [atom for atom in self._atoms if isinstance(atom, Placed)]
        grips = 1 + max((len(atom.item.grips) for atom in places if len(atom.item.grips) > 1), default=0)
        self._points = np.zeros((count, grips, 3))
        self._slides = len(places) < len(self._atoms)
        self._turns = any(atom.turned for atom in places)
        for i, atom in enumerate(self._atoms):
            if isinstance(atom, Slid):
                self._slid[i] = True
                self._drawer[i] = self._kit.drawer(atom.drawer)
                self._handle[i] = self._kit.frame(atom.drawer.grip.frame)
                self._least[i], self._most[i], self._best[i] = atom.least, atom.most, atom.best
                continue
            self._item[i], self._ends[i] = self._kit.object(atom.item), self._kit.ends(atom.place)
            self._offset[i], self._turned[i] = atom.place.offset, atom.turned
            self._half[i], self._radius[i] = (*atom.half, atom.height), atom.radius
            self._released[i] = min(atom.item.width + _RELEASED, _WIDE_OPEN)
            for j, grip in enumerate(atom.item.grips if grips > 1 else ()):
                self._points[i, 1 + j] = grip.at


def _padded(rows: list[list[int]]) -> list[list[int]]:
    longest = max(map(len, rows))
    return [row + [NONE] * (longest - len(row)) for row in rows]


def _length(vector: np.ndarray) -> np.ndarray:
    length: np.ndarray = np.sqrt(np.sum(vector * vector, axis=-1))
    return length

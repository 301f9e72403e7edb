"""What things are made of: free bodies that hands move (props), what stands fixed (fixtures) and drawers that slide.

Lengths are in metres, angles in radians. Axes: x away from the robot, y to its left, z up.
"""

from __future__ import annotations

import dataclasses

Vector = tuple[float, float, float]
ZERO: Vector = (0.0, 0.0, 0.0)

# How often a grip looks the same in a full turn about the vertical.
ANY_TURN, HALF_TURN, QUARTER_TURN = 0, 2, 4


@dataclasses.dataclass(frozen=True)
class Geom:
    """A primitive shape of a prop, fixture or drawer.

    Attributes:
        shape: box, cylinder, capsule or sphere.
        size: as MuJoCo takes it: half extents of a box, radius and half length of a cylinder or capsule, radius.
        colour: red, green, blue and alpha from 0 to 1, as text.
        at: its centre in the frame of what it belongs to.
        quat: its rotation (w, x, y, z).
        density: kg/m^3.
        solid: False for what is only seen.
        rolling: friction of what would roll for ever without, in metres.
    """

    shape: str
    size: tuple[float, ...]
    colour: str
    at: Vector = ZERO
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    density: float = 500.0
    solid: bool = True
    rolling: float = 0.0


@dataclasses.dataclass(frozen=True)
class Grip:
    """Where a hand that points down takes hold of something.

    Attributes:
        frame: name of the frame it belongs to: a prop's, or a drawer's handle.
        width: what is between the fingers, along the direction in which they open.
        at: the point between the finger tips, in the frame's own axes.
        lift: metres straight up from there, whichever way the frame is turned.
        turns: ANY_TURN for what is round, HALF_TURN or QUARTER_TURN.
        yaw: turn of the hand in the frame; 0 has the fingers open along the frame's y axis.
    """

    frame: str
    width: float
    at: Vector = ZERO
    lift: float = 0.0
    turns: int = ANY_TURN
    yaw: float = 0.0


@dataclasses.dataclass(frozen=True)
class Prop:
    """A free body.

    Attributes:
        name: unique in a scene, e.g. red_cube; also the name of its frame, whose origin is the body's.
        geoms: what it is made of.
        rest: height of its origin over what it stands on.
        radius: of the circle that its footprint fits in, or how far its footprint reaches beyond its `core`.
        grips: where it can be held; the first one unless a plan says otherwise.
        top: height over its origin of the surface that things are put on.
        floor: height over its origin of the surface that things are put into; containers only.
        opening: half extents (x, y) of the space inside; containers only.
        rim: height over its origin of a container's upper edge.
        core: half extents (x, y) of the rectangle that layouts keep others `radius` away from; a point for most.
    """

    name: str
    geoms: tuple[Geom, ...]
    rest: float
    radius: float
    grips: tuple[Grip, ...] = ()
    top: float = 0.0
    floor: float = 0.0
    opening: tuple[float, float] = (0.0, 0.0)
    rim: float = 0.0
    core: tuple[float, float] = (0.0, 0.0)

    @property
    def grip(self) -> Grip:
        """The grip to use where nothing else is said."""
        return self.grips[0]

    @property
    def width(self) -> float:
        """What is between the fingers of a hand that holds it by its first grip."""
        return self.grips[0].width if self.grips else 0.0


@dataclasses.dataclass(frozen=True)
class Drawer:
    """A box on a slide joint of a fixture; opening 0 is shut, frames `NAME.handle` and `NAME.inside` move with it.

    Attributes:
        name: unique in a scene, e.g. left_drawer.
        geoms: what it is made of, in the fixture's frame, when shut.
        travel: how far it opens.
        handle: what a hand holds when it is shut, in the fixture's frame.
        inside: middle of its floor when shut, in the fixture's frame.
        room: half extents (x, y) of the space inside.
        width: of the handle, between the fingers.
        axis: direction of opening.
        spring: stiffness of the spring that shuts it, N/m.
        preload: what the spring pulls with when it is shut, N.
        damping: N s/m.
        friction: N, keeps it where it is.
        mass: kg.
    """

    name: str
    geoms: tuple[Geom, ...]
    travel: float
    handle: Vector
    inside: Vector
    room: tuple[float, float]
    width: float
    axis: Vector = (-1.0, 0.0, 0.0)
    spring: float = 0.0
    preload: float = 0.0
    damping: float = 5.0
    friction: float = 1.0
    mass: float = 0.5

    @property
    def grip(self) -> Grip:
        """The handle, its fingers opening along the direction in which the drawer slides or across, as it is built."""
        return Grip(f"{self.name}.handle", self.width, turns=HALF_TURN)


@dataclasses.dataclass(frozen=True)
class Fixture:
    """What stands fixed in a scene.

    Attributes:
        name: unique in a scene, e.g. cabinet.
        at: its origin on the table.
        geoms: its fixed parts, in its frame.
        footprint: half extents (x, y) of the rectangle about its origin that layouts keep clear of.
        drawers: its drawers.
        spots: named points on it, in its frame, where things can be put: frames `FIXTURE.SPOT`.
    """

    name: str
    at: Vector
    geoms: tuple[Geom, ...]
    footprint: tuple[float, float]
    drawers: tuple[Drawer, ...] = ()
    spots: tuple[tuple[str, Vector], ...] = ()


@dataclasses.dataclass(frozen=True)
class Place:
    """A point in the world that may move with things: a frame's origin, or the middle of two, and an offset.

    Attributes:
        frame: name of a frame: a prop, `DRAWER.handle`, `DRAWER.inside`, `FIXTURE.SPOT`, `world`; in a plan also
            `hand` and `other_hand`, those of the role that moves and of the other one.
        second: another frame: the place is in the middle between the two.
        offset: along the world's axes.
        local: along the axes of the (first) frame.
        mirrored: y of the offset points to the side of the arm that moves: positive outwards, negative across.
    """

    frame: str
    second: str | None = None
    offset: Vector = ZERO
    local: Vector = ZERO
    mirrored: bool = False

    def raised(self, height: float) -> Place:
        """The same place, `height` metres further up."""
        x, y, z = self.offset
        return dataclasses.replace(self, offset=(x, y, z + height))


def handle_at(fixture: Fixture, drawer: Drawer, opening: float) -> Place:
    """Where the handle of a fixture's drawer is when it is open that far.

    Args:
        fixture: what the drawer belongs to.
        drawer: one of its drawers.
        opening: in metres.
    """
    x, y, z = (fixture.at[i] + drawer.handle[i] + opening * drawer.axis[i] for i in range(3))
    return Place("world", offset=(x, y, z))

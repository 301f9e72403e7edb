"""The skills that most plans are made of."""

from __future__ import annotations

from stages.simulators.household.expert.plan import STILL, Motion, Skill, Stage, back, carry, close, reach, release
from stages.simulators.household.goals import Atom, Placed
from stages.simulators.household.props import Grip, Place


def pick_and_place(
    grip: Grip,
    to: Place,
    *,
    arm: str | None = None,
    unless: tuple[Atom, ...] = (),
    other: Motion = STILL,
    reach_hover: float = 0.10,
    carry_hover: float = 0.06,
    rise: int = 4,
    near: float = 0.012,
    patience: int = 45,
) -> Skill:
    """Take a thing by a grip, bring it to a place, let go and back off.

    Args:
        grip: of a prop.
        to: where the prop's origin goes.
        arm: as `Skill.arm`; None takes the arm on the prop's side that reaches both.
        unless: as `Skill.unless`.
        other: what the other arm does meanwhile.
        reach_hover: height from which the hand descends to the grip, in metres.
        carry_hover: height from which it descends to the place, in metres.
        rise: steps that it backs off upwards.
        near: how far aside of the place it may let go, in metres.
        patience: steps after which a way to the place counts as failed.
    """
    return Skill(
        stages=(
            Stage(reach(grip, hover=reach_hover), other),
            Stage(close(grip), other),
            Stage(carry(grip, to, hover=carry_hover, near=near, patience=patience), other),
            Stage(release(grip), other),
            Stage(back(steps=rise), other),
        ),
        arm=arm or grip.frame,
        to=to,
        unless=unless,
    )


def put(goal: Placed, above: float = 0.0, **changes: object) -> Skill:
    """Pick the item of an atom and place it as that wants it.

    Args:
        goal: the atom; where it holds, the skill is passed over.
        above: height over the place at which the item is let go of, in metres.
        **changes: arguments of `pick_and_place`.
    """
    settings = {"unless": (goal,), **changes}
    return pick_and_place(goal.item.grip, goal.place.raised(above), **settings)  # type: ignore[arg-type]

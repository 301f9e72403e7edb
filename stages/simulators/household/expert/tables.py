"""Plans as arrays: rows of stages [R, 2 roles], those of all T tasks one after the other, gathered by number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from stages.simulators.household.expert.plan import Kind, Motion, Plan, Skill, Stage
from stages.simulators.household.goals import Goals
from stages.simulators.household.kit import Kit
from stages.simulators.household.props import Grip, Place

NONE = -1
NEAREST = 2  # an arm: 0 left, 1 right, 2 whichever is on the thing's side

_GRIPPED_LEAST, _GRIPPED_MOST, _GRIPPED_ROOM = 0.7, 1.3, 0.012  # shares of a grip's width, metres more than it
_LET_GO, _WIDE_OPEN = 0.03, 0.095  # metres more than a grip's width at which it is let go of, and enough for any


@dataclasses.dataclass
class Motions:
    """What the arms do: arrays [R, 2 roles] of the fields of `plan.Motion`; a place is two frames and two offsets.

    `gripped` are the least and the most that fingers are apart that hold the grip, `let_go` is more than that.
    """

    kind: np.ndarray
    shut: np.ndarray
    held: np.ndarray
    holds: np.ndarray
    grip_at: np.ndarray
    grip_lift: np.ndarray
    grip_yaw: np.ndarray
    turns: np.ndarray
    gripped: np.ndarray
    let_go: np.ndarray
    aimed: np.ndarray
    ends: np.ndarray
    offset: np.ndarray
    local: np.ndarray
    mirrored: np.ndarray
    hover: np.ndarray
    near: np.ndarray
    level: np.ndarray
    turn: np.ndarray
    yaw: np.ndarray
    direction: np.ndarray
    steps: np.ndarray
    speed: np.ndarray
    patience: np.ndarray

    def take(self, rows: np.ndarray) -> Motions:
        """Those of some stages."""
        return Motions(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


@dataclasses.dataclass
class Plans:
    """The plans of T tasks: R stages, and K skills in the longest plan.

    Attributes:
        motions: what the arms do, [R, 2].
        together: bool [R].
        skill: int [R], number of the skill in its plan.
        following: int [R], the stage after this one; the first one of the plan after the last one.
        retry: int [R], the stage to go back to.
        begins: bool [R], it is the first of its skill.
        drawer: int [R, Q] of the drawers that have to stay open.
        least: [R, Q] in metres.
        first: int [T, K], each skill's first stage; -1 where a plan is shorter.
        arm: int [T, K]: 0 left, 1 right, NEAREST.
        item: int [T, K], the frame that NEAREST goes by.
        to: int [T, K, 2], two frames in whose middle it goes; -1 for none.
        to_offset: [T, K, 3] from there, in metres.
        unless: int [T, K, U], numbers of the atoms that make a skill superfluous; -1 for none.
    """

    motions: Motions
    together: np.ndarray
    skill: np.ndarray
    following: np.ndarray
    retry: np.ndarray
    begins: np.ndarray
    drawer: np.ndarray
    least: np.ndarray
    first: np.ndarray
    arm: np.ndarray
    item: np.ndarray
    to: np.ndarray
    to_offset: np.ndarray
    unless: np.ndarray


class Frames:
    """Numbers of frames as plans name them: F of the kit, then the hand of the role itself and that of the other."""

    def __init__(self, kit: Kit, count: int) -> None:
        """`count` is F."""
        self._kit = kit
        self._hands = {"hand": count, "other_hand": count + 1}

    def number(self, name: str) -> int:
        """Number of a frame."""
        return self._hands[name] if name in self._hands else self._kit.frame(name)

    def ends(self, place: Place) -> tuple[int, int]:
        """Numbers of the frames that a place is in the middle of."""
        first = self.number(place.frame)
        return first, first if place.second is None else self.number(place.second)


def compile_plans(kit: Kit, goals: Goals, plans: Sequence[Plan]) -> Plans:
    """Write plans as arrays.

    Args:
        kit: numbers objects, drawers and frames.
        goals: numbers atoms.
        plans: T plans.
    """
    frames = Frames(kit, kit.frame_count)
    skills = max(map(len, plans))
    stages: list[Stage] = []
    skill_of, retry, begins, following = [], [], [], []
    first = np.full((len(plans), skills), NONE)
    for t, plan in enumerate(plans):
        start = len(stages)
        for k, skill in enumerate(plan):
            first[t, k] = base = len(stages)
            stages += skill.stages
            skill_of += [k] * len(skill.stages)
            retry += [base + stage.retry for stage in skill.stages]
            begins += [i == 0 for i in range(len(skill.stages))]
        following += [*range(start + 1, len(stages)), start]
    drawers = max(1, *(len(stage.require) for stage in stages))
    drawer = np.zeros((len(stages), drawers), dtype=np.int64)
    least = np.full((len(stages), drawers), -np.inf)
    for i, stage in enumerate(stages):
        for j, slid in enumerate(stage.require):
            drawer[i, j], least[i, j] = kit.drawer(slid.drawer), slid.least
    flat = [[_skill(frames, goals, skill) for skill in plan] for plan in plans]
    blank: tuple = (0, 0, (NONE, NONE), (0.0, 0.0, 0.0), [])
    padded = [row + [blank] * (skills - len(row)) for row in flat]
    longest = max(1, *(len(row[4]) for rows in padded for row in rows))
    return Plans(
        motions=_motions(frames, [motion for stage in stages for motion in (stage.main, stage.other)]),
        together=np.array([stage.together for stage in stages]),
        skill=np.array(skill_of),
        following=np.array(following),
        retry=np.array(retry),
        begins=np.array(begins),
        drawer=drawer,
        least=least,
        first=first,
        arm=np.array([[row[0] for row in rows] for rows in padded]),
        item=np.array([[row[1] for row in rows] for rows in padded]),
        to=np.array([[row[2] for row in rows] for rows in padded]),
        to_offset=np.array([[row[3] for row in rows] for rows in padded]),
        unless=np.array([[row[4] + [NONE] * (longest - len(row[4])) for row in rows] for rows in padded]),
    )


def _skill(frames: Frames, goals: Goals, skill: Skill) -> tuple:
    sides = {"left": 0, "right": 1}
    arm = sides.get(skill.arm, NEAREST)
    item = 0 if arm != NEAREST else frames.number(skill.arm)
    to = (NONE, NONE) if skill.to is None else frames.ends(skill.to)
    offset = (0.0, 0.0, 0.0) if skill.to is None else skill.to.offset
    return arm, item, to, offset, goals.number(skill.unless)


def _motions(frames: Frames, motions: Sequence[Motion]) -> Motions:
    nothing, nowhere = Grip("world", 0.0), Place("world")
    grips = [motion.grip or nothing for motion in motions]
    # A hand that is not told where to go goes to its grip.
    places = [motion.to or nowhere for motion in motions]
    widths = np.array([grip.width for grip in grips])
    most = np.maximum(_GRIPPED_MOST * widths, widths + _GRIPPED_ROOM)

    def paired(values: object) -> np.ndarray:
        array = np.asarray(values)
        return array.reshape(-1, 2, *array.shape[1:])

    return Motions(
        kind=paired([int(motion.kind) for motion in motions]),
        shut=paired([motion.shut for motion in motions]),
        held=paired([frames.number(grip.frame) for grip in grips]),
        holds=paired([motion.grip is not None and motion.shut and motion.kind != Kind.CLOSE for motion in motions]),
        grip_at=paired([grip.at for grip in grips]),
        grip_lift=paired([(0.0, 0.0, grip.lift) for grip in grips]),
        grip_yaw=paired([grip.yaw for grip in grips]),
        turns=paired([grip.turns for grip in grips]),
        gripped=paired(np.stack([_GRIPPED_LEAST * widths, most], axis=-1)),
        let_go=paired(np.minimum(widths + _LET_GO, _WIDE_OPEN)),
        aimed=paired([motion.to is not None for motion in motions]),
        ends=paired([frames.ends(place) for place in places]),
        offset=paired([place.offset for place in places]),
        local=paired([place.local for place in places]),
        mirrored=paired([place.mirrored for place in places]),
        hover=paired([motion.hover for motion in motions]),
        near=paired([motion.near for motion in motions]),
        level=paired([motion.level for motion in motions]),
        turn=paired([int(motion.turn) for motion in motions]),
        yaw=paired([motion.yaw for motion in motions]),
        direction=paired([motion.direction for motion in motions]),
        steps=paired([motion.steps for motion in motions]),
        speed=paired([motion.speed for motion in motions]),
        patience=paired([motion.patience for motion in motions]),
    )

"""Which rates of action, rendering and physics OmniGibson carries out as they are written."""

from __future__ import annotations

from stages.simulators.interface import SimulatorConfigError


def check(action: int, rendering: int, physics: int) -> None:
    """Refuse rates that do not nest, and those that its arithmetic rounds down.

    A step renders int((1 / action) // (1 / rendering)) times (`omnigibson/simulator.py`), in floating point: at 15
    actions and 45 frames a second that is 2, not 3, and the simulation runs a third too slow for its clock.

    Args:
        action: actions a second.
        rendering: frames a second.
        physics: physics steps a second.

    Raises:
        SimulatorConfigError: one of them.
    """
    for larger, value, smaller, part in (
        ("physics_frequency", physics, "rendering_frequency", rendering),
        ("rendering_frequency", rendering, "action_frequency", action),
    ):
        if value % part:
            raise SimulatorConfigError(f"omnigibson: {larger} {value} is not a multiple of {smaller} {part}")
    if rendered(action, rendering) != rendering // action:
        fitting = [rate for rate in range(action, physics + 1, action) if physics % rate == 0]
        exact = [rate for rate in fitting if rendered(action, rate) == rate // action]
        raise SimulatorConfigError(
            f"omnigibson: at action_frequency {action} and rendering_frequency {rendering} OmniGibson draws "
            f"{rendered(action, rendering)} frames a step, not {rendering // action}, because of rounding; set "
            f"rendering_frequency to {' or '.join(map(str, exact))}"
        )


def rendered(action: int, rendering: int) -> int:
    """How often OmniGibson renders in a step, computed as it does."""
    return int((1 / action) // (1 / rendering))

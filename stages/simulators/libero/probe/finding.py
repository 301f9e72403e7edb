"""What a check of the probe came to, and how it is told to whoever asked."""

from __future__ import annotations

import dataclasses
import json

MARK = "baton-check: "
# The seven, in the order in which they are made.
VERSIONS, ASSETS, RENDERER, STEP, IMAGES, SPEED, MEMORY = (
    *("versions", "assets", "renderer", "one step"),
    *("images", "speed", "memory"),
)
ORDER = (VERSIONS, ASSETS, RENDERER, STEP, IMAGES, SPEED, MEMORY)


class Broken(Exception):
    """What a check looked at is broken: what was found, and what to do about it."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check came to.

    Attributes:
        name: one of ORDER.
        verdict: `pass`, `warn`, `fail` or `skip`.
        found: what was found.
        remedy: what to do about it; empty where nothing is to be done.
    """

    name: str
    verdict: str
    found: str
    remedy: str = ""

    def tell(self) -> None:
        """Print it as a line of its own."""
        print(MARK + json.dumps(dataclasses.asdict(self)), flush=True)


def told(line: str) -> Finding | None:
    """The finding in a line, where there is one."""
    _, mark, text = line.partition(MARK)
    return Finding(**json.loads(text)) if mark else None

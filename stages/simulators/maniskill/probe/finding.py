"""What a check of the probe came to, and how it is told to whoever asked."""

from __future__ import annotations

import dataclasses
import json

MARK = "baton-check: "
# In the order in which they are made.
VERSIONS, VULKAN, FILES, START, PICTURES = "versions", "Vulkan", "files", "start", "pictures"
MOTION, REPEATED, SPEED = "motion", "repeated", "speed"
ORDER = (VERSIONS, VULKAN, FILES, START, PICTURES, MOTION, REPEATED, SPEED)


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


def refused(name: str, message: str) -> Finding:
    """The finding of a check that ended with a message which says what is wrong and then, after `; `, what to do."""
    found, _, remedy = message.removeprefix("maniskill: ").partition("; ")
    return Finding(name, "fail", found, remedy or "baton env create maniskill")

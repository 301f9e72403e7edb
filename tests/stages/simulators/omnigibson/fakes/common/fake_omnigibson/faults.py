"""What goes wrong on demand: FAKE_OMNIGIBSON_FAULT=NAME, or NAME:PATH for once only, PATH being created then.

hang_on_build, segfault_on_build: while Isaac Sim is coming up.
hang_on_step, segfault_on_step, raise_on_step: at the fifth step of the process.
refuse_to_die: the shutdown hangs and SIGTERM is ignored.
black_frames, missing_camera, float_images: every picture is black, one camera is not there, pictures are no uint8.
action_dim, controller_order: the robot takes one number more, its right arm comes before its left.
proprio_size: one number more. drift: hands sink by themselves. mirrored: +x goes backwards. gripper_sign: +1 closes.
late_timeout: the step limit is one step too long. no_success: info lacks its "done" entry.
same_instances: loading an instance moves nothing. predicates: one goal predicate more. leak: 2 MB a step. slow: 0.5 s.
"""

import os
import signal
import time
from pathlib import Path

VARIABLE = "FAKE_OMNIGIBSON_FAULT"


def active(name: str) -> bool:
    """Whether this is to go wrong; a fault with a path goes wrong once."""
    wanted, _, marker = os.environ.get(VARIABLE, "").partition(":")
    if wanted != name:
        return False
    if marker:
        if Path(marker).exists():
            return False
        Path(marker).touch()
    return True


def strike(where: str) -> None:
    """Hang or crash if that is wanted here."""
    if active(f"hang_on_{where}"):
        print(f"the fake hangs in {where}", flush=True)
        time.sleep(1000)
    if active(f"segfault_on_{where}"):
        print(f"the fake crashes in {where}", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if active(f"raise_on_{where}"):
        raise RuntimeError("PhysX error: the articulation exploded")

"""Whether the disk holds what the run will write: an upper bound, because nobody knows how well images compress."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.config import Config
from pipeline.doctor.asks import run_directory
from pipeline.doctor.check import Check, failed, passed, size, warned
from pipeline.memory import measure
from pipeline.plan import evaluation_epochs
from pipeline.simulator_facts import robot

POLICY_BYTES = 4  # a parameter in a published policy
STATE_BYTES = 12  # a parameter in an optimizer state: the weight and Adam's two moments
MOST_CAMERAS, CHANNELS = 3, 3
OWN_LIMIT = 300  # actions of an episode where `simulator.max_episode_steps` is null; the household allows fewer
# Renderings of the household compress about 20 to 30 times, photographs hardly.
MOST_COMPRESSION = 50
QUOTA_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Need:
    """What a part of the run takes on disk.

    Attributes:
        what: the part.
        least: bytes if images compress as well as can be.
        most: bytes if they do not compress at all.
    """

    what: str
    least: int
    most: int


def examine(
    config: Config, free: Callable[[Path], int] | None = None, quota: Callable[[Path], int | None] | None = None
) -> Iterator[Check]:
    """Compare what the run will write with what there is.

    Args:
        config: the run's config.
        free: bytes free where a directory is; None: as the file system says.
        quota: bytes that the user's quota leaves there; None: as `quota` says.
    """
    run = run_directory(config)
    place = existing(run)
    room = (free or _free)(place)
    left = (quota or read_quota)(place)
    found = needs(config)
    there = _written(run)
    least, most = (max(0, sum(values) - there) for values in zip(*((n.least, n.most) for n in found), strict=True))
    parts = ", ".join(f"{need.what} {size(need.most)}" for need in found if need.most)
    limit = f"{size(room)} free in {place}" + ("" if left is None else f", your quota leaves {size(left)}")
    bound = f"at most {size(most)}{' more' if there else ''} with images uncompressed ({parts}); {limit}"
    remedy = "lower keep.rollouts, keep.policies or keep.optimizer_states, or set runs_dir to a larger disk"
    room = room if left is None else min(room, left)
    if least > room:
        yield failed("disk", f"at least {size(least)}, {bound}", remedy)
    elif most > room:
        yield warned("disk", bound, remedy)
    else:
        yield passed("disk", bound)


def needs(config: Config) -> list[Need]:
    """What the parts of a run take on disk, with what `keep` frees taken off.

    Args:
        config: the run's config.
    """
    keep, chunk = config.keep, config.policy.chunk
    numbers = chunk * config.policy.action_dim
    limit = config.simulator.max_episode_steps or OWN_LIMIT
    expert_limit = config.demonstrate.max_episode_steps or limit
    episodes = config.demonstrate.episodes if config.sft.steps and config.demonstrate.imported is None else 0
    demonstrated = episodes * math.ceil(expert_limit / config.demonstrate.stride)
    decided = config.rollout.episodes * math.ceil((config.rollout.max_episode_steps or limit) / chunk)
    epochs = config.epochs
    if keep.rollouts != "all":
        # Those of the epoch at work come on top.
        epochs = min(epochs, keep.rollouts + 1 + config.rollout.staleness)
    policies = config.epochs + 1
    if keep.policies != "all":
        policies = min(policies, len(evaluation_epochs(config) | {0}) + keep.policies + 1)
    # A new state is published before an old one goes.
    states = min(config.epochs, keep.optimizer_states + 1)
    weights = parameters(config)
    return [
        _shards("demonstrations", config, demonstrated, 4 * numbers),
        _shards("rollouts", config, epochs * decided, (4 + 4 + 2) * numbers),
        _exactly("policies", policies * weights * POLICY_BYTES),
        _exactly("optimizer states", states * weights * STATE_BYTES),
    ]


def parameters(config: Config) -> int:
    """Parameters of the policy: as its checkpoint has, or as the config describes it."""
    checkpoint = Path(config.policy.checkpoint).expanduser() if config.policy.checkpoint else None
    if checkpoint is None or not checkpoint.is_dir():
        return measure(config).count.total
    if whole := sum(map(_tensor_numbers, sorted(checkpoint.glob("*.safetensors")))):
        return whole
    # Other formats do not tell: two bytes a parameter is what published ones have.
    return sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file()) // 2


def existing(path: Path) -> Path:
    """The nearest directory above that is there, or the path itself."""
    return next(place for place in (path, *path.parents) if place.is_dir())


def mount(path: Path, mounts: Path = Path("/proc/self/mounts")) -> tuple[str, str]:
    """The device and the type of the file system that holds a directory."""
    place, best = str(path.resolve()), ("", "", "")
    for line in mounts.read_text().splitlines():
        device, point, kind = line.split()[:3]
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, device, kind)
    return best[1], best[2]


def read_quota(path: Path) -> int | None:
    """Bytes that the user's quota leaves on the file system of a directory; None: no quota is known."""
    if shutil.which("quota") is None:
        return None
    try:
        told = subprocess.run(["quota", "-w"], capture_output=True, text=True, timeout=QUOTA_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    return quota_left(told.stdout, mount(path)[0])


def quota_left(text: str, device: str) -> int | None:
    """What `quota -w` leaves on a device: blocks of 1024 bytes, of which a `*` marks those over the limit."""
    for line in text.splitlines():
        name, *columns = line.split()[:4] or [""]
        if name == device and len(columns) == 3:
            used, soft, hard = (int(column.rstrip("*")) for column in columns)
            if bound := hard or soft:
                return max(0, bound - used) * 1024
    return None


def _shards(what: str, config: Config, decisions: int, rest: int) -> Need:
    """Shards with so many decisions, each with its images and so many other bytes."""
    body = robot(config.simulator)
    cameras = MOST_CAMERAS if body is None else 1 + body.wrist_cameras
    images = cameras * CHANNELS * config.simulator.image_size**2
    return Need(what, decisions * (images // MOST_COMPRESSION), decisions * (images + rest))


def _exactly(what: str, bytes_: int) -> Need:
    return Need(what, bytes_, bytes_)


def _tensor_numbers(file: Path) -> int:
    """Numbers in a safetensors file, whose header tells every tensor's shape; 0 if it is damaged."""
    with file.open("rb") as opened:
        try:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        except (ValueError, OverflowError):
            return 0
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _written(run: Path) -> int:
    """Bytes that a run has published already."""
    total = 0
    for place in (run / "policies", run / "epochs"):
        for file in place.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # freed meanwhile
                total += file.lstat().st_size
    return total

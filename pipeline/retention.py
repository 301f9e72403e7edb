"""Frees what `keep` no longer asks for: optimizer states, policies, rollout shards.

Only whole artifacts go, and only those that no unit of the plan still needs. Of a rollout shard, whose presence says
that the unit is done, the manifest, the metrics and the films stay under `freed/`.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path

from pipeline.artifacts import MANIFEST, Unit, sync
from pipeline.config import Config
from pipeline.ledger import FREED
from pipeline.plan import UnitPlan

TRASH = "trash"
REMAINS = (MANIFEST, "metrics.jsonl", "usage.jsonl")
FILMS = "videos/*.mp4"


def free(run: Path, config: Config, plans: Collection[UnitPlan], done: Collection[Unit]) -> list[str]:
    """Delete what may go.

    Args:
        run: the run directory; the caller holds its lease.
        config: its config.
        plans: its plan.
        done: units that are published.

    Returns:
        The directories that went, relative to the run.
    """
    shutil.rmtree(run / TRASH, ignore_errors=True)  # what a killed call left behind
    gone = []
    for unit, part in removable(config, plans, done):
        relative = unit.outputs[part]
        if not (run / relative).is_dir():
            continue
        if relative == unit.marker:
            _keep_remains(run, unit)
        # Renamed first: half of an artifact is never seen.
        trash = run / TRASH / uuid.uuid4().hex
        trash.parent.mkdir(exist_ok=True)
        os.rename(run / relative, trash)
        shutil.rmtree(trash)
        gone.append(relative)
    return gone


def removable(config: Config, plans: Collection[UnitPlan], done: Collection[Unit]) -> list[tuple[Unit, str]]:
    """Decide what may go: a pure function.

    Args:
        config: the run's config.
        plans: its plan.
        done: units that are published.

    Returns:
        (unit, part) in plan order.
    """
    keep, finished = config.keep, set(done)
    still_needed = {need for plan in plans if plan.unit not in finished for need in plan.needs}
    evaluated = {plan.unit.epoch for plan in plans if plan.unit.stage == "evaluate"}
    updates = [plan.unit for plan in plans if plan.unit.stage == "update" and plan.unit in finished]
    newest = max((unit.epoch for unit in updates), default=0)
    found = []
    for plan in plans:
        unit, age = plan.unit, newest - plan.unit.epoch
        if unit not in finished or unit in still_needed:
            continue
        if unit.stage == "update":
            if "engine" in unit.outputs and age >= keep.optimizer_states:
                found.append((unit, "engine"))
            if keep.policies != "all" and age >= keep.policies and unit.epoch not in evaluated:
                found.append((unit, "policy"))
        elif unit.stage == "rollout" and keep.rollouts != "all" and age >= keep.rollouts:
            found.append((unit, "rollout"))
    return found


def _keep_remains(run: Path, unit: Unit) -> None:
    target, partial = run / FREED / str(unit), run / FREED / f".{unit}"
    if target.exists():
        return
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    marker = run / unit.marker
    for source in [*(marker / name for name in REMAINS), *marker.glob(FILMS)]:
        if source.is_file():
            kept = partial / source.relative_to(marker)
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, kept)
            sync(kept)
    for folder in (*partial.glob("*/"), partial):
        sync(folder)
    os.rename(partial, target)
    sync(target.parent)

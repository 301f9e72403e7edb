"""Stages that stay up: work is handed to a process that has its libraries loaded and its simulators warm.

A resident is an ordinary job, `python -m stages.rollout RUN --follow DIRECTORY`, that takes orders from files:
`orders/0001.json` appears whole, and when its unit is published the resident writes `orders/0001.done`. A resident that
meets an error ends, and with it the order; the next one starts a new resident.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from slurm.launcher import LOG, Job, Launcher, Request, Sight
from slurm.states import State

ORDERS = "orders"
LONG = 365 * 24 * 60
CLOSING_SECONDS = 20.0


class ResidentLauncher:
    """Gives work to residents where a request names one, and to another launcher otherwise."""

    def __init__(self, inner: Launcher, folder: Path, owner: str) -> None:
        """Prepare; nothing is started yet.

        Args:
            inner: starts the residents and everything else.
            folder: directory for the residents' own directories.
            owner: what the keys of the residents start with.
        """
        self._inner, self._folder, self._owner = inner, folder, owner
        self._known: dict[str, Job] = {}

    def submit(self, request: Request) -> dict[str, Job]:
        """Hand each job to its resident, which is started if it does not live."""
        if request.resident is None:
            return self._inner.submit(request)
        return {key: self._order(single) for key, single in request.members().items()}

    def poll(self, jobs: Sequence[Job]) -> dict[str, Sight]:
        """An order runs until it is done or its resident has ended."""
        residents = {job.key: _resident(job) for job in jobs if _is_order(job)}
        seen = self._inner.poll([*residents.values(), *(job for job in jobs if job.key not in residents)])
        sights = {}
        for job in jobs:
            resident = residents.get(job.key)
            if resident is None:
                sights[job.key] = seen[job.key]
                continue
            sight = seen[resident.key]
            done = sight.state is State.RUNNING and self._done(job).exists()
            sights[job.key] = dataclasses.replace(sight, state=State.ENDED) if done else sight
        return sights

    def hurry(self) -> None:
        """As the launcher of the residents."""
        self._inner.hurry()

    def find(self, prefix: str) -> dict[str, Job]:
        """Live jobs by key, orders among them."""
        found = self._inner.find(prefix)
        for key, resident in [*found.items()]:
            if not key.startswith(f"{self._owner}:{ORDERS}-"):
                continue
            del found[key]
            for order in sorted(self._directory(resident).glob(f"{ORDERS}/*.json")):
                unit = str(json.loads(order.read_text())["key"])
                if not order.with_suffix(".done").exists() and unit.startswith(prefix):
                    found[unit] = Job(unit, f"{resident.id}/{key}/{order.stem}", resident.host)
        return found

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End jobs; with an order its resident."""
        self._inner.cancel([_resident(job) if _is_order(job) else job for job in jobs])

    def tidy(self, jobs: Sequence[Job]) -> None:
        """End what ended jobs left behind; a resident whose order is done stays."""
        self._inner.tidy([_resident(job) if _is_order(job) else job for job in jobs if not self._served(job)])

    def close(self) -> None:
        """Tell the residents to go, and end those that do not."""
        residents = list(self._inner.find(f"{self._owner}:{ORDERS}-").values())
        for resident in residents:
            (self._directory(resident) / ORDERS / "stop").touch()
        deadline = time.monotonic() + CLOSING_SECONDS
        while residents and time.monotonic() < deadline:
            seen = self._inner.poll(residents)
            residents = [each for each in residents if seen[each.key].state is State.RUNNING]
            time.sleep(0.05)
        self._inner.cancel(residents)
        self._inner.close()

    def _order(self, request: Request) -> Job:
        assert request.resident is not None
        prefix = f"{self._owner}:{ORDERS}-{request.resident}:"
        resident = self._living(request.resident, prefix) or self._start(request, prefix)
        self._known[request.resident] = resident
        orders = self._directory(resident) / ORDERS
        number = 1 + sum(1 for _ in orders.glob("*.json"))
        name = f"{number:04d}"
        content = {"key": request.key, **_coordinates(request.arguments)}
        with (request.folder / LOG).open("a") as log:
            print(f"for the process that stays up, whose own log is {orders.parent / LOG}", file=log)
        partial = orders / f".{name}"
        partial.write_text(json.dumps(content))
        os.replace(partial, orders / f"{name}.json")
        return Job(request.key, f"{resident.id}/{resident.key}/{name}", resident.host)

    def _living(self, name: str, prefix: str) -> Job | None:
        known = self._known.get(name)
        if known is not None and self._inner.poll([known])[known.key].state is State.RUNNING:
            return known
        return next(iter(self._inner.find(prefix).values()), None)

    def _start(self, request: Request, prefix: str) -> Job:
        assert request.resident is not None
        base = self._folder / request.resident
        number = 1 + max((int(p.name) for p in base.glob("*") if p.name.isdigit()), default=0)
        directory = base / str(number)
        (directory / ORDERS).mkdir(parents=True)
        run = request.arguments[0]
        started = dataclasses.replace(
            request,
            key=f"{prefix}{number}",
            name=f"{request.name}-resident",
            arguments=(run, "--follow", str(directory)),
            folder=directory,
            options=dataclasses.replace(request.options, time=LONG),
            resident=None,
        )
        (job,) = self._inner.submit(started).values()
        return job

    def _directory(self, resident: Job) -> Path:
        name, _, number = resident.key.partition(f":{ORDERS}-")[2].rpartition(":")
        return self._folder / name / number

    def _done(self, job: Job) -> Path:
        return self._directory(_resident(job)) / ORDERS / f"{job.id.rpartition('/')[2]}.done"

    def _served(self, job: Job) -> bool:
        return _is_order(job) and self._done(job).exists()


def _is_order(job: Job) -> bool:
    return "/" in job.id


def _resident(job: Job) -> Job:
    id_, key, _ = job.id.split("/")
    return Job(key, id_, job.host)


def _coordinates(arguments: Sequence[str]) -> Mapping[str, int | None]:
    """Epoch, shard and attempt from a stage's command line."""
    given = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    return {name: int(given[f"--{name}"]) if f"--{name}" in given else None for name in ("epoch", "shard", "attempt")}

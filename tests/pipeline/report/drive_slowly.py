"""Shows a run in `baton run`'s view while a scheduler lets every job wait, run and publish: `drive_slowly.py RUN`."""

import sys
from collections import Counter
from pathlib import Path

from fake_stages.work import deliver

from pipeline.artifacts import Unit
from pipeline.commands.arguments import console
from pipeline.ledger import published
from pipeline.orchestrator import drive
from pipeline.report.live import View
from slurm.batch import HOST
from slurm.launcher import Job, Sight
from slurm.states import State

WAITS, RUNS = 3, 6  # until when a job does so, looks at it after its submission: no load changes what is seen


class Scheduler:
    """A launcher whose jobs are no processes."""

    def __init__(self, run):
        self.run, self.requests, self.looks = run, {}, Counter()

    def submit(self, request):
        members = request.members()
        self.requests |= members
        return {key: Job(key, f"{number}", HOST) for number, key in enumerate(members, len(self.requests))}

    def poll(self, jobs):
        return {job.key: self.look(job.key) for job in jobs}

    def look(self, key):
        request = self.requests[key]
        self.looks[key] += 1
        if (looks := self.looks[key]) <= WAITS:
            return Sight(State.WAITING, "PENDING (Priority)", queued=looks)
        if looks <= RUNS:
            return Sight(State.RUNNING, "RUNNING", "sim0", WAITS, looks - WAITS)
        unit = Unit.parse(key.split(":")[1])
        if published(self.run, unit) is None:
            deliver(self.run, unit, int(request.arguments[-1]), request.folder / "scratch")
        return Sight(State.ENDED, "COMPLETED", "sim0")

    def find(self, prefix):
        return {}

    def hurry(self, *_):
        """Nothing to do; nor in `cancel`, `tidy` and `close`."""

    cancel = tidy = close = hurry


if __name__ == "__main__":
    run = Path(sys.argv[1]).absolute()
    with View(console(), pause=0.0) as view:
        print("a line for people", file=sys.stderr, flush=True)
        drive(run, view, launcher=Scheduler(run), cores=8)

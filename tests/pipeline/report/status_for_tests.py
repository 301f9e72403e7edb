"""A queue that shows what it is told, jobs written into a run's book, and a reader of what `baton status` prints."""

from pipeline import jobs, rundir
from slurm.launcher import Sight
from slurm.states import State


class Queue:
    """A launcher that shows what it is told and counts how often it is asked."""

    def __init__(self):
        self.sights, self.live, self.looks, self.complaint, self.say = {}, {}, 0, None, None

    def poll(self, wanted):
        self.looks += 1
        if self.complaint:
            self.say(self.complaint)
        return {job.key: self.sights.get(job.id, Sight(State.ENDED, "gone from the queue")) for job in wanted}

    def find(self, prefix):
        return {key: job for key, job in self.live.items() if key.startswith(prefix)}


def submit(run, unit, job=None, attempt=1, host="slurm"):
    key = f"{rundir.identity(run)['id']}:{unit}:{attempt}"
    jobs.append(run, "submit", unit=unit, attempt=attempt, key=key, host="login")
    if job:
        jobs.append(run, "submitted", unit=unit, attempt=attempt, key=key, job=job, host=host)


def end(run, unit, job, outcome, attempt=1, **fields):
    key = f"{rundir.identity(run)['id']}:{unit}:{attempt}"
    jobs.append(run, "ended", unit=unit, attempt=attempt, key=key, job=job, outcome=outcome, **fields)


def line(text, *beginning):
    """The line that begins with these words, in words."""
    return next(words for words in map(str.split, text.splitlines()) if words[: len(beginning)] == list(beginning))


def told(text, unit):
    """What is said of an open unit, unfolded."""
    lines = text.splitlines()
    first = next(number for number, content in enumerate(lines) if content.startswith(unit))
    more = []
    for content in lines[first + 1 :]:
        if not content.startswith(" "):
            break
        more.append(content)
    return " ".join(" ".join([lines[first], *more]).split())

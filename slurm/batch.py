"""Jobs of a Slurm cluster: rendered by submitit, submitted by sbatch, seen by one squeue for all of them.

What Slurm says of an end is a hint about the cause and nothing else. A job is over when squeue, answering, shows it in
an end state or not at all; while Slurm does not answer nothing is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from slurm import client
from slurm.client import Entry, Unanswered
from slurm.launcher import EXIT, LOG, SCRIPT, STOPPED, Job, LaunchError, Request, Sight, fill
from slurm.script import batch_script
from slurm.states import REQUEUEABLE, Cause, State, cause_of, state_of

HOST = "slurm"
JOB_VARIABLE = "SLURM_JOB_ID"
# In the id of a step, between its allocation and the process that waits for it.
STEP_MARK = "+"
QUERY_SECONDS = 30.0
# After an sbatch without an answer: when to look whether the job is there all the same.
LOOKS = (1.0, 4.0, 10.0)
CANCEL_SECONDS = 120.0
TOLD_TO_STOP = "told to stop"
# While it imports its libraries a stage dies of the signals themselves: 128 + 15, and + 12 for USR2.
STOPPED_CODES = (STOPPED, 143, 140)


class SlurmLauncher:
    """Submits to Slurm and watches its queue."""

    def __init__(
        self,
        query_seconds: float = QUERY_SECONDS,
        *,
        say: Callable[[str], None] = lambda line: None,
        requeues_itself: bool = False,
    ) -> None:
        """Prepare; Slurm is not asked anything yet.

        Args:
            query_seconds: shortest time between two looks at the queue.
            say: shows one line to the user.
            requeues_itself: whether scripts put their job back into the queue when its stage was told to stop.
        """
        self._pace, self._say, self._requeues_itself = query_seconds, say, requeues_itself
        self._looked = float("-inf")
        self._queue: dict[str, Entry] = {}
        self._answering = True
        self._known: set[str] = set()  # what the last answer would have shown
        self._doubtful: set[str] = set()  # ended, at the last look for the first time, in a way that may be taken back

    def submit(self, request: Request) -> dict[str, Job]:
        """Submit a job, or a family as one array.

        Args:
            request: what to run; its script is kept in its folder.

        Returns:
            Key -> job.

        Raises:
            LaunchError: Slurm refuses it, in Slurm's words.
            TryLater: a limit on the number of jobs is reached.
            Unanswered: it is not known whether it was accepted; `find` tells later.
        """
        script = self.write(request)
        try:
            base = client.sbatch(script)
        except Unanswered as error:
            self._say(f"{error}; looking whether {request.name} was accepted all the same")
            base = self._accepted(request, error)
        # What is new cannot be in the last look, and must not count as gone.
        now = time.time()
        jobs = {}
        for index, key in zip(request.indices or (None,), request.members(), strict=True):
            job = Job(key, base if index is None else f"{base}_{index}", HOST)
            jobs[key] = job
            self._queue[job.id] = Entry(job.id, index, "PENDING", "", "", request.key, now, None, None)
        return jobs

    def write(self, request: Request) -> Path:
        """Write the script that `submit` submits.

        Returns:
            Where it is; the other members of a family have the same one.
        """
        folders = [single.folder for single in request.members().values()]
        script = folders[0] / SCRIPT
        script.write_text(batch_script(request, requeues_itself=self._requeues_itself))
        for folder in folders[1:]:
            (folder / SCRIPT).unlink(missing_ok=True)
            (folder / SCRIPT).hardlink_to(script)
        return script

    def poll(self, jobs: Sequence[Job]) -> dict[str, Sight]:
        """Look at the queue, unless that was done a moment ago.

        Args:
            jobs: jobs of any process of this user on this cluster.

        Returns:
            Key -> what was seen last. A job of a machine without Slurm is LOST.
        """
        ours = [job for job in jobs if job.host == HOST]
        if ours and time.monotonic() - self._looked >= self._pace:
            self._look(ours)
        return {job.key: self._sight(job) if job.host == HOST else Sight(State.LOST) for job in jobs}

    def hurry(self) -> None:
        """Let the next `poll` look: there are signs that a job has ended."""
        self._looked = min(self._looked, time.monotonic() - self._pace + min(1.0, self._pace))

    def find(self, prefix: str) -> dict[str, Job]:
        """Look for jobs by the key in their comment.

        Args:
            prefix: what the keys start with.

        Returns:
            Key -> job that has not ended.

        Raises:
            Unanswered: Slurm does not answer.
        """
        found = {}
        for entry in client.queue():
            key = entry.comment if entry.index is None else fill(entry.comment, entry.index)
            if key.startswith(prefix) and state_of(entry.state) is not State.ENDED:
                found[key] = Job(key, entry.id, HOST)
        return found

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Cancel jobs and wait until nothing of them runs.

        Args:
            jobs: of this cluster.

        Raises:
            LaunchError: Slurm refuses, or a job does not end.
            Unanswered: Slurm does not answer.
        """
        ids = {job.id.partition(STEP_MARK)[0] for job in jobs if job.host == HOST}
        deadline = time.monotonic() + CANCEL_SECONDS
        while ids:
            client.cancel(sorted(ids))
            for _ in range(10):
                there = {entry.id for entry in client.queue() if state_of(entry.state) is not State.ENDED}
                ids &= there
                if not ids:
                    self._looked = float("-inf")  # what was seen before is of no use now
                    return
                time.sleep(0.5)
            if time.monotonic() > deadline:
                raise LaunchError(f"{', '.join(sorted(ids))} did not end within {CANCEL_SECONDS:.0f} s of scancel")

    def tidy(self, jobs: Sequence[Job]) -> None:
        """Nothing to do: Slurm itself ends what a job leaves behind."""
        for job in jobs:
            self._queue.pop(job.id, None)
            self._doubtful.discard(job.id)

    def close(self) -> None:
        """Nothing is kept."""

    def _accepted(self, request: Request, error: Unanswered) -> str:
        """The id of a job that may have been accepted."""
        for pause in LOOKS:
            time.sleep(pause)
            try:
                # Also one that has ended already.
                found = [entry.id for entry in client.queue() if entry.comment == request.key]
            except Unanswered:
                continue
            if found:
                return found[0].partition("_")[0]
        raise error

    def _look(self, jobs: Sequence[Job]) -> None:
        try:
            entries = {entry.id: entry for entry in client.queue()}
        except Unanswered as error:
            if self._answering:
                self._say(f"{error}; going on with what was known")
            self._answering, self._looked = False, time.monotonic()
            return
        if not self._answering:
            self._say("Slurm answers again")
        self._answering, self._looked = True, time.monotonic()
        before, self._queue = self._queue, entries
        self._known = {_in_queue(job) for job in jobs}
        self._doubtful = {id_ for id_, e in entries.items() if _requeueable(e) and not _requeueable(before.get(id_))}

    def _sight(self, job: Job) -> Sight:
        # A step ends with its allocation at the latest, and only that is in the queue.
        id_ = _in_queue(job)
        entry = self._queue.get(id_)
        if entry is None:
            # Before Slurm has answered for it nothing is known of it.
            return Sight(State.ENDED, "gone from the queue") if id_ in self._known else Sight(State.WAITING)
        return _describe(entry, State.WAITING if id_ in self._doubtful else state_of(entry.state))


def is_batch_job(job: Job) -> bool:
    """Whether a job is one that Slurm's queue knows by itself, not a step or a process."""
    return job.host == HOST and STEP_MARK not in job.id


def _in_queue(job: Job) -> str:
    return job.id.partition(STEP_MARK)[0]


def _requeueable(entry: Entry | None) -> bool:
    return entry is not None and entry.state in REQUEUEABLE


def cause(job: Job, sight: Sight, folder: Path, submitted: float) -> tuple[Cause, str]:
    """Why a job ended without success.

    Args:
        job: the job.
        sight: how it was seen last.
        folder: its folder.
        submitted: Unix time of its submission.

    Returns:
        The cause, and Slurm's word for it where it has one.
    """
    word = sight.detail
    if sight.cause is None:
        word = client.ended_state(job.id, submitted) or ""
    found = cause_of(word) if word else "crash"
    if found == "crash" and _exit_code(folder) in STOPPED_CODES:
        return "preempted", TOLD_TO_STOP
    if found == "crash" and _out_of_memory(folder):
        return "memory", word
    return found, word


def _exit_code(folder: Path) -> int | None:
    try:
        return int((folder / EXIT).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _out_of_memory(folder: Path) -> bool:
    """Whether Slurm says so in the log: its state is FAILED where a step was killed and not the whole job."""
    try:
        tail = (folder / LOG).read_bytes()[-4096:].decode(errors="replace")
    except FileNotFoundError:
        return False
    return any(sign in tail for sign in ("oom-kill", "oom_kill", "Exceeded job memory limit", "exceeded memory limit"))


def _describe(entry: Entry, state: State) -> Sight:
    now = time.time()
    began = entry.started if state is not State.WAITING else None
    end = entry.ended if state is State.ENDED else now
    return Sight(
        state=state,
        detail=f"{entry.state} ({entry.reason})" if state is State.WAITING and entry.reason else entry.state,
        node=entry.nodes,
        queued=max(0.0, (began or now) - entry.submitted) if entry.submitted else None,
        seconds=max(0.0, end - began) if began and end else None,
        cause=cause_of(entry.state) if state is State.ENDED and entry.state != "COMPLETED" else None,
        starts_at=entry.started if state is State.WAITING else None,
    )

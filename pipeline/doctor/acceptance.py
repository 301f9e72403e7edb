"""Whether Slurm would accept the jobs: `sbatch --test-only` of the very scripts that a run submits."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.doctor.asks import Ask
from pipeline.doctor.check import Check, failed, passed, softened, warned
from slurm import client
from slurm.client import Unanswered

REMEDY = "mend what the config asks of Slurm; `baton run --dry-run` writes the scripts"


def examine(asks: Sequence[Ask]) -> Iterator[Check]:
    """Have Slurm judge account, qos, constraint, reservation, generic resources and all the rest.

    Args:
        asks: the jobs of a run.
    """
    for ask in asks:
        name = f"sbatch: {ask.name}"
        try:
            accepted, sentence = judge(ask.script, ask.words)
        except Unanswered as error:
            yield warned(name, str(error), "give the command again when Slurm answers")
            continue
        if accepted:
            yield passed(name, sentence)
        else:
            refused = failed(name, f"Slurm refuses it: {sentence}", REMEDY)
            yield softened(refused) if ask.optional else refused


def judge(script: str, options: Sequence[str] = (), seconds: float = client.SECONDS) -> tuple[bool, str]:
    """Have Slurm judge a batch script without submitting it.

    Args:
        script: its text.
        options: further options of sbatch, before those in the script.
        seconds: how long it may take.

    Returns:
        Whether it would be accepted, and Slurm's sentence.

    Raises:
        Unanswered: Slurm does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="baton-doctor-") as folder:
        path = Path(folder, "judged.sbatch")
        path.write_text(script)
        try:
            done = subprocess.run(
                ["sbatch", "--test-only", *options, str(path)],
                capture_output=True,
                text=True,
                timeout=seconds,
                env=client.environment(),
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise Unanswered(f"sbatch did not answer within {seconds:.0f} s") from None
    lines = [re.sub(r"^(sbatch: )?(error: |allocation failure: )?", "", line) for line in done.stderr.splitlines()]
    sentence = "; ".join(dict.fromkeys(filter(None, lines))) or f"exit code {done.returncode}"
    if done.returncode and client.NO_ANSWER.search(sentence):
        raise Unanswered(f"sbatch: {sentence}")
    # The job that it names will never exist.
    return done.returncode == 0, re.sub(r"\bJob \d+ ", "", sentence)

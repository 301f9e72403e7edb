"""The batch script of a job: rendered by submitit, readable, and good for `sbatch` by hand."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from slurm.launcher import EXIT, KEY_VARIABLE, LOG, STOPPED, Request
from slurm.options import Options

RESTARTS = 5


def batch_script(request: Request, *, requeues_itself: bool = False) -> str:
    """Write the script of a job or an array.

    Args:
        request: what to run.
        requeues_itself: put the job back into the queue when its stage was told to stop, because nobody else will.

    Returns:
        The text; nothing in it depends on when it is written.
    """
    # A tenth of a second that a look at a run need not spend.
    from submitit.slurm.slurm import _make_sbatch_string

    text = _make_sbatch_string(
        command="\n".join(_command(request, requeues_itself)),
        folder=request.folder,
        wckey=None,  # type: ignore[arg-type]  # some sites refuse submitit's
        use_srun=False,
        job_name=request.name,
        time=request.options.time,
        nodes=request.nodes,
        ntasks_per_node=request.tasks // request.nodes,
        cpus_per_task=request.cpus,
        signal_delay_s=request.options.signal_seconds,
        stderr_to_stdout=True,
        comment=request.key,
        setup=list(request.options.setup) or None,
        additional_parameters=_parameters(request),
    )
    lines = text.splitlines()
    # submitit's worker would read this; no worker of its runs here.
    return "\n".join(line for line in lines if not line.startswith("export SUBMITIT_")) + "\n"


def srun(request: Request, *options: str) -> list[str]:
    """The step that runs the ranks of a request, as shell words; `%a` stands for the index.

    Args:
        request: what to run.
        options: further options of srun.
    """
    # Slurm 22.05 and later do not hand the job's cpus-per-task on to its steps.
    shape = [
        f"--nodes={request.nodes}",
        f"--ntasks={request.tasks}",
        f"--ntasks-per-node={request.tasks // request.nodes}",
        f"--cpus-per-task={request.cpus}",
    ]
    python = request.options.python or shlex.quote(sys.executable)
    # -P: a folder named like one of our packages in the current directory must not shadow it.
    words = [*shlex.split(python), "-u", "-P", "-m", request.module, *request.arguments]
    # One dead rank ends the step, so that no other waits for it for ever.
    return ["srun", *shape, "--kill-on-bad-exit=1", "--unbuffered", *options, *words]


def gpu_request(gpus: int, kind: str | None) -> str | None:
    """GPUs in the form that `gres` and `gpus-per-node` share, e.g. `h100:2`; None for none."""
    return ":".join(filter(None, (kind, str(gpus)))) if gpus else None


def ranges(indices: Sequence[int]) -> str:
    """Indices in Slurm's way: `0-3,7`."""
    runs = itertools.groupby(enumerate(sorted(indices)), lambda pair: pair[1] - pair[0])
    bounds = [[index for _, index in run] for _, run in runs]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in bounds)


def header(options: Options, gpus: str | None = None) -> dict[str, str | int | float | bool]:
    """What options ask of sbatch, by its long names.

    Args:
        options: the options; time and setup aside.
        gpus: GPUs a node, as `gpu_request` gives them.
    """
    by_gres = f"gpu:{gpus}" if gpus and options.gpu_option == "gres" else None
    named: dict[str, str | bool | None] = {
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "reservation": options.reservation,
        "nodelist": options.nodelist,
        "exclude": options.exclude,
        "gres": ",".join(filter(None, (options.gres, by_gres))),
        "gpus-per-node": gpus if options.gpu_option == "gpus-per-node" else None,
        "mem": options.mem,
        "mail-user": options.mail_user,
        "mail-type": options.mail_type,
        "requeue" if options.requeue else "no-requeue": True,
    }
    extra = {name: value for name, value in options.extra.items() if value is not False}
    return {**{name: value for name, value in named.items() if value}, **extra}


def _parameters(request: Request) -> dict[str, Any]:
    output = str(request.folder / LOG).replace("%", "%%").replace("%%4a", "%4a").replace("%%a", "%a")
    own = {
        "dependency": f"afterok:{':'.join(request.after)}" if request.after else None,
        "kill-on-invalid-dep": "yes" if request.after else None,
        "array": _array(request),
        "output": output,
    }
    given = {name: value for name, value in own.items() if value}
    return {**given, **header(request.options, gpu_request(request.gpus, request.gpu_type))}


def _array(request: Request) -> str | None:
    if not request.indices:
        return None
    throttle = request.options.array_throttle
    return ranges(request.indices) + (f"%{throttle}" if throttle else "")


def _command(request: Request, requeues_itself: bool) -> list[str]:
    lines = []
    if request.indices:
        lines.append('printf -v task %04d "$SLURM_ARRAY_TASK_ID"')
    lines += [f"export {name}={_word(value)}" for name, value in sorted(request.environment.items())]
    lines += [f"export {KEY_VARIABLE}={_word(request.key)}", f"folder={_word(str(request.folder))}"]
    lines += [f'rm -f "$folder/{EXIT}"', " ".join(_word(word) for word in srun(request)), "code=$?"]
    if requeues_itself:
        lines += [
            f"# {STOPPED}: its time was up, or it has to make room, and it goes on when it is started again",
            f'if [ "$code" = {STOPPED} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {RESTARTS} ]; then',
            '  scontrol requeue "$SLURM_JOB_ID"',
            "fi",
        ]
    return [*lines, f'echo "$code" > "$folder/{EXIT}"', 'exit "$code"']


def _word(text: str) -> str:
    """A shell word in which `%4a` and `%a` are the task's index."""
    quoted = shlex.quote(text)
    inside = quoted.startswith("'")

    def variable(found: re.Match[str]) -> str:
        name = '"$task"' if found[1] else '"$SLURM_ARRAY_TASK_ID"'
        return f"'{name}'" if inside else name

    return re.sub(r"%(4?)a", variable, quoted)

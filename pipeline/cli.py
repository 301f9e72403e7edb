"""The `baton` command. Heavy imports happen inside the commands, so that help answers at once on a login node."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import typer

from pipeline.commands import behavior, check, environment, importing, look, mend, replay, report, run, track
from pipeline.errors import UserError

INTERRUPTED = 130
# In the order in which `baton --help` lists them.
COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.run,
    "submit": run.submit,
    "status": look.status,
    "logs": look.logs,
    "report": report.report,
    "compare": report.compare,
    "ui": track.ui,
    "track": track.track,
    "retry": mend.retry,
    "rerun": mend.rerun,
    "cancel": mend.cancel,
    "demos": run.demos,
    "import": importing.import_demonstrations,
    "replay": replay.replay,
    "tasks": look.tasks,
    "behavior-tasks": behavior.behavior_tasks,
    "config": look.show_config,
    "doctor": check.doctor,
    "env": environment.env,
    "dev-cluster": check.dev_cluster,
}

app = typer.Typer(
    help="Fine-tune vision-language-action robot policies with reinforcement learning, as a relay of jobs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for name, command in COMMANDS.items():
    app.command(name=name)(command)


def main() -> None:
    """Run the command; a user's mistake ends in one line and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the terminal's encoding may lack a letter of a name
    try:
        app()
    except UserError as error:
        for line in str(error).splitlines():
            # An indented line is quoted from a log.
            print(line if line.startswith(" ") else f"baton: {line}", file=sys.stderr)
        sys.exit(UserError.EXIT_CODE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()

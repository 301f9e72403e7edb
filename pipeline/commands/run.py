"""Commands that carry a run out: `run`, `submit`; `demos` only its first stage."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.arguments import ConfigArgument, JsonOption, Overrides, aside, console, shorten
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.report.live import View


def run(
    config: ConfigArgument,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, write Slurm's scripts, submit nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: one JSON document for programs.")] = False,
) -> None:
    """Carry a run out, or continue it.

    The same command continues a run that was stopped, wherever it was. Ctrl-C detaches: units that run go on.
    """
    from pipeline import launchers, orchestrator, rundir, simulator_facts
    from pipeline.compose import compose
    from pipeline.report.live import View
    from pipeline.report.tables import write_report

    composed = compose(config, overrides or [])
    if dry_run:
        _show_plan(composed, as_json)
        return
    if as_json:
        raise UserError("run --json needs --dry-run; what a run came to: baton report RUN --json")
    simulator_facts.require_environment(composed)
    place, schedule = launchers.where(composed), composed.slurm.schedule
    directory = shorten(rundir.create_or_resume(composed))
    again = shlex.join(["baton", "run", str(config), *(overrides or [])])
    if schedule == "chain":
        _extend_chain(directory, again)
        return
    try:
        with View(console()) as view:
            if schedule == "pilot" and place == "slurm":
                _hold_allocation(directory, view, again)
            else:
                orchestrator.drive(directory, view, conclude=lambda _: write_report(directory))
    except KeyboardInterrupt:
        _say_detached(directory, again)
        raise
    _print_result(directory)


def submit(config: ConfigArgument, overrides: Overrides = None, as_json: JsonOption = False) -> None:
    """Carry a run out from a Slurm job that requeues itself.

    It does what `baton run` does. Mistakes in the config are told here, before anything is submitted.
    """
    from pipeline import launchers, machine, orchestrator, parent, rundir, simulator_facts
    from pipeline.compose import compose

    composed = compose(config, overrides or [])
    simulator_facts.require_environment(composed)
    if launchers.where(composed) != "slurm":
        raise UserError("submit needs Slurm, and no sbatch here knows a cluster: use `baton run`")
    if composed.slurm.schedule == "chain":
        raise UserError("slurm.schedule=chain leaves nothing to supervise: use `baton run`, which returns at once")
    directory = shorten(rundir.create_or_resume(composed))
    machine.Machine.of(directory, composed)
    kind: parent.Kind = "pilot" if composed.slurm.schedule == "pilot" else "orchestrator"
    job, log = parent.submit(directory, kind, orchestrator.to_stderr)
    if as_json:
        from pipeline.report import records

        records.write({"run": str(directory), "job": job.id, "log": str(shorten(log))})
        return
    print(f"job {job.id} looks after {directory}; its log: {shorten(log)}")
    print(f"to look: baton status {directory}; to stop everything: baton cancel {directory}")


def demos(config: ConfigArgument, overrides: Overrides = None, as_json: JsonOption = False) -> None:
    """Write the scripted expert's episodes as shards.

    They are the first units of the run that `baton run` carries out with the same arguments, which goes on from them.
    """
    from pipeline import launchers, orchestrator, rundir, simulator_facts
    from pipeline.compose import compose
    from pipeline.report import records
    from pipeline.report.demonstrations import demonstrations, demonstrations_table
    from pipeline.report.live import View

    composed = compose(config, overrides or [])
    if composed.sft.steps == 0:
        raise UserError(f"{config}: sft.steps=0: a run that begins with policy.checkpoint has no demonstrations")
    if composed.demonstrate.imported is not None:
        raise UserError(f"{config}: demonstrate.imported is set: `baton import` writes these demonstrations")
    simulator_facts.require_environment(composed)
    launchers.where(composed)
    directory = rundir.create_or_resume(composed)
    # Nothing else waits for these units: whatever the schedule of the run, they need no chain and no allocation.
    supervised = composed.model_copy(update={"slurm": composed.slurm.model_copy(update={"schedule": "supervise"})})
    launcher = launchers.launcher_for(directory, supervised, orchestrator.to_stderr)
    directory, arguments = shorten(directory), [str(config), *(overrides or [])]
    try:
        with View(aside() if as_json else console()) as view:
            orchestrator.drive(directory, view, launcher=launcher, stages=("demonstrate",))
    except KeyboardInterrupt:
        _say_detached(directory, shlex.join(["baton", "demos", *arguments]))
        raise
    made = demonstrations(directory)
    if as_json:
        records.write({"run": str(directory), **dataclasses.asdict(made)})
        return
    console().print(demonstrations_table(made), soft_wrap=True)
    print(f"to train on them: {shlex.join(['baton', 'run', *arguments])}")


def _say_detached(directory: Path, again: str) -> None:
    print(f"\ndetached: the units that run go on; no new ones start until you reattach: {again}", file=sys.stderr)
    print(f"to look: baton status {directory}; to stop them: baton cancel {directory}", file=sys.stderr)


def _extend_chain(directory: Path, again: str) -> None:
    """Submit a chain and say what was submitted."""
    from pipeline import chain
    from pipeline.report.tables import write_report

    done = chain.extend(directory, conclude=write_report)
    if done.finished:
        _print_result(directory)
        return
    running = sum(state.status == "running" for state in done.snapshot.units)
    print(f"{done.submitted} units submitted, {running} in the queue; nothing of this command stays")
    print(f"to look: baton status {directory}; to stop: baton cancel {directory}; to repair or continue: {again}")
    if done.short:
        print(f"baton: {done.short}", file=sys.stderr)


def _hold_allocation(directory: Path, view: View, again: str) -> None:
    """Submit the job of schedule=pilot and show the run until it has ended."""
    from pipeline import machine, orchestrator, parent, rundir

    machine.Machine.of(directory, rundir.load(directory))
    job, log = parent.submit(directory, "pilot", orchestrator.to_stderr)
    print(f"job {job.id} holds the allocation; its log: {shorten(log)}", file=sys.stderr)
    last = parent.watch(directory, job, view, orchestrator.to_stderr)
    if any(state.status != "published" for state in last.units):
        text = log.read_text(errors="replace") if log.exists() else ""
        tail = "".join(f"\n  {line}" for line in text.splitlines()[-15:])
        raise UserError(
            f"job {job.id}, which held the allocation, has ended; to continue: {again}{tail}\nits log: {log}"
        )


def _print_result(directory: Path) -> None:
    from pipeline.report.tables import TABLE

    console().print(
        (directory / TABLE).read_text(encoding="utf-8"), end="", markup=False, highlight=False, soft_wrap=True
    )


def _show_plan(config: Config, as_json: bool) -> None:
    from pipeline import checkpoints, launchers, resources
    from pipeline.dry_run import dry_run
    from pipeline.memory import estimate
    from pipeline.plan import make_plan
    from pipeline.report import records
    from pipeline.report.tables import dry_run_lines, plan_table

    checkpoints.check(config)
    plans, terminal = make_plan(config), console()
    # Scripts for a cluster can be written anywhere.
    scripts = dry_run(config) if config.slurm.launcher == "slurm" or launchers.where(config) == "slurm" else None
    cores, memory = resources.machine_cores(), [str(stage) for stage in estimate(config)]
    if scripts is None:
        shares = [(plan.unit.stage, plan.share) for plan in plans]
        resources.check_machine(config, shares, cores, resources.machine_gpus())
    if as_json:
        records.write(records.plan_record(config, plans, memory, scripts))
        return
    terminal.print(plan_table(config, plans))
    if scripts is not None:
        terminal.print(dry_run_lines(scripts), soft_wrap=True)
        return
    terminal.print("\n".join(["memory:", *(f"  {stage}" for stage in memory)]), markup=False)
    terminal.print(f"on {cores} cores of this machine; a dry run: nothing was written", markup=False)

"""All checks of a config, in the order in which one would mend what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline import launchers, resources
from pipeline.config import Config
from pipeline.doctor import acceptance, asks, canary, nodes, services, site, space, trackers
from pipeline.doctor.check import Check, failed, passed, skipped
from pipeline.errors import UserError
from pipeline.plan import make_plan
from slurm import site as slurm_site
from slurm.client import Unanswered
from slurm.launcher import LaunchError, TryLater


def examine(config: Config, wait: float, say: Callable[[str], None]) -> Iterator[Check]:
    """Examine a config, see `pipeline.doctor.examine`."""
    try:
        where = launchers.where(config)
    except UserError as error:
        yield failed("config", str(error))
        return
    units = len(make_plan(config))
    yield passed("config", f"{units} units for {'this machine' if where == 'local' else 'Slurm'}")
    yield from services.run_place(config)
    yield from _machine(config, wait) if where == "local" else _cluster(config, wait, say)
    yield from space.examine(config)
    yield services.mlflow(config)
    yield from trackers.trackers(config)
    yield from services.checkpoint(config)
    yield from services.demonstrations(config)
    yield from services.interpreter(config, on_nodes=where != "local")


def _cluster(config: Config, wait: float, say: Callable[[str], None]) -> Iterator[Check]:
    """The checks of a config whose jobs go to Slurm."""
    try:
        jobs, cluster = asks.read(config), slurm_site.read()
    except UserError as error:
        yield failed("config", str(error))
        return
    except (Unanswered, LaunchError, TryLater) as error:
        yield failed("Slurm", str(error), "wait until `sinfo` answers, or set slurm.launcher=local")
        return
    yield passed("Slurm", f"{cluster.settings.get('ClusterName', 'it')} answers, version {cluster.version}")
    database = slurm_site.read_database(cluster, site.user()) if cluster.accounting else None
    yield from site.examine(config, jobs, cluster, database)
    judged = {job.name: check for job, check in zip(jobs, acceptance.examine(jobs), strict=True)}
    yield from judged.values()
    # Where Slurm refuses a script it would refuse the probe too, and that is said already.
    accepted = [job for job in jobs if judged[job.name].verdict == "pass" and not job.optional]
    places = canary.places(accepted, cluster)
    if not places or not wait:
        yield skipped("node", "no node was looked at", "--wait 60" if places else "first mend what Slurm refuses")
        return
    say(f"waiting up to {wait:.0f} s for a node of {', '.join(place.label for place in places)}")
    yield from nodes.probe(config, places, wait)


def _machine(config: Config, wait: float) -> Iterator[Check]:
    """The checks of a config whose units are processes of this machine."""
    cores, gpus = resources.machine_cores(), resources.machine_gpus()
    shares = [(plan.unit.stage, plan.share) for plan in make_plan(config)]
    try:
        resources.check_machine(config, shares, cores, gpus)
        yield passed("machine", f"{cores} cores and {gpus} GPUs are enough for every unit")
    except UserError as error:
        yield failed("machine", str(error))
    if wait:
        yield from nodes.probe(config, [canary.Place("this machine")], wait)

"""Whether the cluster has what the jobs ask for, by its own tables: partitions, time, nodes, numbers of jobs."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence

from pipeline.config import Config
from pipeline.doctor.asks import Ask
from pipeline.doctor.check import Check, count, failed, passed, softened, warned
from pipeline.plan import make_plan
from slurm.options import megabytes
from slurm.site import Database, Limits, Node, Partition, Site


def examine(config: Config, asks: Sequence[Ask], site: Site, database: Database | None) -> Iterator[Check]:
    """Compare what is asked for with what there is.

    Args:
        config: the run's config.
        asks: its jobs.
        site: the cluster.
        database: what accounting says of the user; None where there is none.
    """
    yield _accounting(site, database)
    names = dict.fromkeys(name for ask in asks for name in _names(ask, site))
    for name in names:
        users = [ask for ask in asks if name in _names(ask, site)]
        check = _partition(name, [ask.name for ask in users], site)
        yield softened(check) if all(ask.optional for ask in users) else check
    limits = {ask.name: _limits(ask, site, database) for ask in asks}
    for ask in asks:
        partitions = [site.partitions[name] for name in _names(ask, site) if name in site.partitions]
        if not partitions:
            continue  # said already
        time = _of_all(f"time: {ask.name}", [_time(ask, partition, limits[ask.name]) for partition in partitions])
        nodes = _of_all(f"nodes: {ask.name}", [_nodes(ask, partition, site) for partition in partitions])
        yield from (softened(check) if ask.optional else check for check in (time, nodes))
    most = site.number("MaxArraySize")
    yield from (_array(ask, most) for ask in asks if ask.tasks and most is not None)
    yield from _queue(config, asks, limits)


def label(ask: Ask, site: Site) -> str:
    """The partition of a job, by name where it is the default too."""
    return ask.options.partition or site.default_partition or "the default partition"


def _names(ask: Ask, site: Site) -> tuple[str, ...]:
    return ask.partitions or ((site.default_partition,) if site.default_partition else ())


def _accounting(site: Site, database: Database | None) -> Check:
    if site.accounting and database is not None:
        return passed("accounting", "sacctmgr answers")
    problem = "sacctmgr does not answer" if site.accounting else "AccountingStorageType names no database"
    return warned(
        "accounting",
        f"{problem}: runs work without; limits on your jobs are unknown, and so is why a job ended that squeue has "
        f"forgotten",
        "none needed; a unit whose cause is unknown counts as crashed and is tried again",
    )


def _partition(name: str, users: Sequence[str], site: Site) -> Check:
    place = f"slurm.{users[0]}.partition, slurm.partition or cluster.node_groups"
    if name not in site.partitions:
        there = ", ".join(site.partitions) or "none"
        return failed(f"partition: {name}", f"there is none; partitions are {there}", f"name one of them in {place}")
    state = site.partitions[name].state
    nodes = [node for node in site.nodes if node.partition == name]
    usable = sum(node.usable for node in nodes)
    if state != "UP":
        return failed(f"partition: {name}", f"it is {state}: nothing starts there", f"name another in {place}")
    if not usable:
        found = f"none of its {count(len(nodes), 'node')} is up: {_states(nodes)}"
        return failed(f"partition: {name}", found, f"name another in {place}, or wait")
    return passed(f"partition: {name}", f"up, {usable} of {count(len(nodes), 'node')} usable, for {', '.join(users)}")


def _of_all(name: str, checks: Sequence[Check]) -> Check:
    """Of several partitions Slurm takes one that will do."""
    worst = sorted(checks, key=lambda check: ("pass", "warn", "fail").index(check.verdict))
    if worst[0].verdict == worst[-1].verdict or worst[-1].verdict == "warn":
        return Check(name, worst[-1].verdict, worst[-1].found, worst[-1].remedy)
    return warned(name, worst[-1].found, f"{worst[-1].remedy}; another partition that is named will do")


def _time(ask: Ask, partition: Partition, limits: Limits) -> Check:
    key, time = f"slurm.{ask.name}.time", ask.options.time
    bounds = [(partition.minutes, f"the MaxTime of {partition.name}")] if partition.minutes is not None else []
    if limits.minutes is not None:
        bounds.append((limits.minutes.value, f"the MaxWall of {limits.minutes.of}"))
    for most, whose in sorted(bounds):
        if time > most:
            return failed(
                "", f"{_clock(time)} is more than {whose}, {_clock(most)}", f"set {key}={_clock(most)} or less"
            )
    if not bounds:
        return passed("", f"{_clock(time)}; {partition.name} has no limit")
    return passed("", f"{_clock(time)} of at most {_clock(min(bounds)[0])}, {min(bounds)[1]}")


def _nodes(ask: Ask, partition: Partition, site: Site) -> Check:
    nodes = [node for node in site.nodes if node.partition == partition.name]
    wanted = ", ".join(
        [count(ask.cpus, "core"), *filter(None, [ask.options.mem]), *([ask.gpu_words] if ask.gpus else [])]
    )
    fitting = [node for node in nodes if not _misfits(ask, node)]
    if nodes and not fitting:
        nearest = min(
            nodes, key=lambda node: (len(_misfits(ask, node)), -sum(node.gpus.values()), -node.cpus, -node.memory)
        )
        found = f"no node of {partition.name} has {wanted}; {nearest.name}, the nearest, has {_has(nearest)}"
        return failed("", found, "; ".join(_misfits(ask, nearest)))
    if partition.max_nodes is not None and ask.nodes > partition.max_nodes:
        found = f"{count(ask.nodes, 'node')} are more than the MaxNodes of {partition.name}, {partition.max_nodes}"
        return failed("", found, _fewer(ask))
    if len(fitting) < ask.nodes:
        found = f"{count(ask.nodes, 'node')} with {wanted} are asked for, {partition.name} has {len(fitting)}"
        return failed("", found, _fewer(ask))
    usable = sum(node.usable for node in fitting)
    if usable < ask.nodes:
        found = (
            f"{usable} of {count(len(fitting), 'node')} of {partition.name} that would do are up: {_states(fitting)}"
        )
        return warned("", found, "jobs wait until they are; `sinfo -R` tells why they are not")
    return passed("", f"{wanted} on {count(ask.nodes, 'node')}; {usable} in {partition.name} would do")


def _misfits(ask: Ask, node: Node) -> list[str]:
    """Remedies for what a job asks of a node that the node has not."""
    own = f"slurm.{ask.name}"
    found = []
    if ask.cpus > node.cpus:
        knobs = {"sft": "processes or threads", "update": "processes or threads"}.get(
            ask.name, "threads or num_workers"
        )
        found.append(
            f"lower {own}.cpus" + ("" if ask.name in ("orchestrator", "pilot") else f" or {ask.name}'s {knobs}")
        )
    if ask.options.mem is not None and megabytes(ask.options.mem) > node.memory:
        found.append(f"lower {own}.mem or slurm.mem to {node.memory}M or less")
    if ask.gpu_type is not None and ask.gpus and not node.gpu_count(ask.gpu_type):
        found.append("set gpu_type and partition of cluster.node_groups as `sinfo -o '%P %G'` lists them")
    elif ask.gpus > node.gpu_count(ask.gpu_type):
        found.append("lower cluster.gpus_per_node and cluster.component_placement")
    return found


def _fewer(ask: Ask) -> str:
    return "lower cluster.num_nodes" if ask.gpus else f"lower slurm.{ask.name}.nodes"


def _array(ask: Ask, most: int) -> Check:
    # Indices begin at 0 and stay below MaxArraySize.
    found = f"{count(ask.tasks, 'shard')} in one array; MaxArraySize is {most}"
    if ask.tasks > most:
        return failed(f"array: {ask.name}", found, f"lower {ask.name}.shards to {most} or less")
    return passed(f"array: {ask.name}", found)


def _queue(config: Config, asks: Sequence[Ask], limits: dict[str, Limits]) -> Iterator[Check]:
    """How many jobs will be in the queue at once, and whether they may."""
    schedule, epochs = config.slurm.schedule, config.slurm.chain_epochs
    if schedule == "chain":
        # `chain_epochs` epochs from the first one that is not done, the warm start being one; and the last link.
        last = config.epochs if epochs is None else epochs - 1
        most = 1 + sum(plan.unit.epoch <= last for plan in make_plan(config))
    else:
        tasks = {ask.name: max(ask.tasks, 1) for ask in asks}
        most = max(tasks.get("demonstrate", 1), tasks.get("rollout", 0) + tasks.get("evaluate", 0))
        most += schedule == "supervise"  # the orchestrator's job
    limit = min((one.submit for one in limits.values() if one.submit), key=lambda bound: bound.value, default=None)
    if limit is None:
        yield passed("queue", f"up to {count(most, 'job')} at once; no limit is known")
        return
    found = f"up to {count(most, 'job')} at once; {limit.of} may have {limit.value}"
    for ask in asks:
        own = limits[ask.name].submit
        if own is not None and ask.tasks > own.value:
            found = f"the {ask.tasks} shards of {ask.name} are one array; {own.of} may have {own.value} jobs"
            yield failed("queue", found, f"lower {ask.name}.shards to {own.value} or less")
            return
    if most <= limit.value:
        yield passed("queue", found)
    elif schedule == "chain":
        yield warned("queue", found, "set slurm.chain_epochs, or give `baton run` again when the queue has emptied")
    else:
        yield warned("queue", found, "the rest waits until there is room; other jobs of yours count too")


def _limits(ask: Ask, site: Site, database: Database | None) -> Limits:
    if database is None or not site.enforces_limits:
        return Limits()
    names = _names(ask, site)
    partition = site.partitions.get(names[0]) if names else None
    return database.limits(ask.options.account, partition, ask.options.qos)


def user() -> str:
    """Login name of this user, as accounting knows it."""
    return getpass.getuser()


def _has(node: Node) -> str:
    gpus = [count(number, f"{kind} GPU".strip()) for kind, number in node.gpus.items()]
    return ", ".join([count(node.cpus, "core"), f"{node.memory}M", *(gpus or ["no GPU"])])


def _states(nodes: Sequence[Node]) -> str:
    return ", ".join(f"{node.name} {node.state}" for node in nodes[:4]) + (", ..." if len(nodes) > 4 else "")


def _clock(minutes: int) -> str:
    """Minutes in Slurm's form."""
    days, rest = divmod(minutes, 24 * 60)
    return (f"{days}-" if days else "") + f"{rest // 60:02d}:{rest % 60:02d}:00"

"""Whether the machines are fit for the run, by what the probes found there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.config import Config
from pipeline.doctor import canary
from pipeline.doctor.canary import Answer, Place
from pipeline.doctor.check import Check, failed, passed, size, skipped, warned
from slurm.visible import shown

SKEW_SECONDS = 5.0
LATE_SECONDS = 2.0
ROOM = 10**9  # for shared memory and temporary files
NOT_STARTED = re.compile(r"Unable to allocate resources: ([^;]*)|(allocation \d+ has been revoked)")


def probe(config: Config, places: Sequence[Place], wait: float) -> Iterator[Check]:
    """Send probes and judge what they find.

    Args:
        config: the run's config.
        places: where to.
        wait: seconds that their jobs may wait in the queue.
    """
    try:
        yield from examine(canary.send(config, places, wait), wait)
    except OSError as error:
        found = f"nothing can be written to runs_dir={config.runs_dir}: {error}"
        yield failed("files", found, "set runs_dir to a directory that you may write to")


def examine(answers: Sequence[Answer], wait: float) -> Iterator[Check]:
    """Judge what was found.

    Args:
        answers: of the probes.
        wait: seconds that their jobs were given to start.
    """
    for answer in answers:
        place = answer.place.label
        if answer.seen is None:
            yield _silent(answer, wait)
            continue
        seen = answer.seen
        if answer.place.asks:
            yield _files(place, answer, seen)
        yield _python(place, seen)
        if answer.place.gpus:
            yield _gpus(place, answer.place.gpus, seen)
        yield from _simulator(place, seen)
        yield _room(place, seen)
        if answer.place.asks:
            yield _clock(place, answer)
        if "url_error" in seen:
            found = f"{seen['host']} does not reach trainer.logger.mlflow.uri: {seen['url_error']}"
            yield warned(f"MLflow: {place}", found, "results are written later: `baton track RUN` on this machine")
    yield from _renderers([answer.seen for answer in answers if answer.seen is not None])


def _silent(answer: Answer, wait: float) -> Check:
    name = f"node: {answer.place.label}"
    if refused := NOT_STARTED.search(answer.said):
        return warned(
            name,
            f"busy: no job started within {wait:.0f} s ({refused[1] or refused[2]}), so no node was looked at",
            "give the command again later, or let it wait longer: --wait 600",
        )
    said = answer.said or "it printed nothing"
    remedy = "make Baton's directory and its environment visible there, or set slurm.python and slurm.setup"
    return failed(name, f"the probe did not answer: {said}", remedy)


def _files(place: str, answer: Answer, seen: Mapping[str, Any]) -> Check:
    name, host = f"files: {place}", seen["host"]
    remedy = "set runs_dir to a directory on a file system that all machines share"
    if "read_error" in seen:
        return failed(name, f"{host} does not see what this machine writes: {seen['read_error']}", remedy)
    if "write_error" in seen:
        return failed(name, f"{host} cannot write to runs_dir: {seen['write_error']}", remedy)
    if not answer.returned:
        return failed(name, f"this machine does not see what {host} writes into runs_dir", remedy)
    late = f", after {seen['read']:.1f} s" if seen["read"] > LATE_SECONDS else ""
    return passed(name, f"{host} and this machine see each other's files{late}")


def _python(place: str, seen: Mapping[str, Any]) -> Check:
    name, remedy = f"python: {place}", "set slurm.python and slurm.setup so that it has Baton's environment"
    for what in ("modules", "torch"):
        if f"{what}_error" in seen:
            return failed(name, f"Python {seen['python']} of {seen['host']}: {seen[f'{what}_error']}", remedy)
    if seen["missing"]:
        found = f"{seen['host']} does not see policy.checkpoint={seen['missing'][0]}"
        return failed(name, found, "put it where all machines see it")
    torch = f", torch {seen['torch']['version']}" if "torch" in seen else ""
    return passed(name, f"{seen['python']}{torch} on {seen['host']} imports {', '.join(seen.get('modules', ()))}")


def _gpus(place: str, asked: int, seen: Mapping[str, Any]) -> Check:
    name, host, devices = f"GPUs: {place}", seen["host"], seen["devices"]
    value = "is not set" if devices is None else f"is {devices!r}"
    visible = len(shown(devices or ""))
    if visible < asked:
        found = f"{asked} was asked for, and CUDA_VISIBLE_DEVICES {value} on {host}"
        return failed(name, found, "ask who runs the site: gres.conf has to name the device files of its GPUs")
    if visible > asked:
        found = f"{asked} was asked for, and CUDA_VISIBLE_DEVICES {value} on {host}: jobs may get into each other's way"
        return warned(name, found, "try slurm.gpu_option=gpus-per-node, or ask who runs the site")
    if not seen["driver"] and "cards" not in seen:
        found = f"CUDA_VISIBLE_DEVICES {value} on {host}, but no NVIDIA driver is loaded there"
        return warned(name, found, "stages would run on CPU cores; use other nodes: slurm.exclude")
    if "torch" in seen and not seen["torch"]["gpus"]:
        found = f"CUDA_VISIBLE_DEVICES {value} on {host}, but torch {seen['torch']['version']} can use none"
        return failed(name, found, "install torch for the CUDA version of the driver there, see `nvidia-smi`")
    return passed(name, f"CUDA_VISIBLE_DEVICES {value} on {host}, as asked")


def _simulator(place: str, seen: Mapping[str, Any]) -> Iterator[Check]:
    name = f"simulator: {place}"
    if "simulator_error" in seen:
        remedy = "set simulator.python to an interpreter that has it, and simulator.options to what it knows"
        yield failed(name, f"it does not start on {seen['host']}: {seen['simulator_error']}", remedy)
    elif seen.get("simulator"):
        found = seen["simulator"]
        yield passed(name, f"{found['version']} starts on {seen['host']}, rendered by {found['renderer']}")
    elif "simulator" in seen:
        yield passed(name, f"imported on {seen['host']}; starting it takes long and was not tried")


def _room(place: str, seen: Mapping[str, Any]) -> Check:
    name = f"room: {place}"
    if "free_error" in seen:
        return skipped(name, seen["free_error"])
    found = ", ".join(f"{size(free)} in {where}" for where, free in seen["free"].items())
    little = [where for where, free in seen["free"].items() if free < ROOM]
    if little:
        remedy = "set TMPDIR in slurm.setup to a disk with room, or ask for other nodes"
        return warned(name, f"{found} free on {seen['host']}: {' and '.join(little)} may run full", remedy)
    return passed(name, f"{found} free on {seen['host']}")


def _clock(place: str, answer: Answer) -> Check:
    assert answer.seen is not None
    found = (
        f"{answer.seen['host']} is {abs(answer.skew):.1f} s {'ahead of' if answer.skew > 0 else 'behind'} this machine"
    )
    if abs(answer.skew) > SKEW_SECONDS:
        return warned(f"clock: {place}", found, "times in reports will be off; ask who runs the site to mend it")
    return passed(f"clock: {place}", found)


def _renderers(sights: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Pixels of two renderers differ, so an episode would depend on the node it ran on."""
    by = {seen["simulator"]["renderer"]: seen["host"] for seen in sights if seen.get("simulator")}
    if len(by) > 1:
        found = "; ".join(f"{renderer} on {host}" for renderer, host in by.items())
        remedy = "install the same OpenGL libraries on all nodes, or set simulator.options.renderer"
        yield warned("renderers", f"they differ, and so will images of the same episode: {found}", remedy)

"""Which policy was made from which shards, by which policy played: the chain of digests, and whether it holds."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pipeline.artifacts import Artifact, Unit, open_artifact

FIRST, LAST = 2, 8  # links shown of a long chain
DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Link:
    """A policy version and what it was made from.

    Attributes:
        version: of the policy.
        digest: of its files; empty where they have been freed.
        unit: that made it.
        published: when, ISO 8601.
        host: where.
        job: the job's id.
        sources: directory -> digest of what it was made from, as its manifest has it.
        behaviour: policies that played its shards.
    """

    version: int
    digest: str
    unit: str
    published: str
    host: str
    job: str
    sources: dict[str, str]
    behaviour: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Lineage:
    """Where the policies of a run come from.

    Attributes:
        links: of the chain, oldest first; the middle of a long one is left out.
        hidden: links left out after the first `FIRST`.
        checked: inputs whose digest was compared with that of the artifact that is there.
        broken: inputs that are not what is there, in words.
        revisions: of the code, with the units each made.
        versions: of the libraries: name -> versions, most units first.
        hosts: with the units each ran.
    """

    links: tuple[Link, ...]
    hidden: int
    checked: int
    broken: tuple[str, ...]
    revisions: dict[str, int]
    versions: dict[str, tuple[str, ...]]
    hosts: dict[str, int]


def trace(run: Path, artifacts: Mapping[Unit, Artifact]) -> Lineage:
    """Follow every input that a manifest records to the artifact that is there.

    Args:
        run: the run directory.
        artifacts: its published units.
    """
    # A manifest outlives the files of a freed shard, so its digest is known all the same.
    there: dict[str, str | None] = {unit.marker: artifact.digest for unit, artifact in artifacts.items()}
    checked, broken = 0, []
    for unit, artifact in artifacts.items():
        for place, digest in artifact.manifest.inputs.items():
            if place not in there:
                found = open_artifact(run / place)
                there[place] = found.digest if found else None  # freed since
            if (now := there[place]) is not None:
                checked += 1
                if now != digest:
                    broken.append(f"{unit} was made from another {place} ({digest[:DIGITS]}, there: {now[:DIGITS]})")
    manifests = [artifact.manifest for artifact in artifacts.values()]
    versions: dict[str, Counter[str]] = {}
    for manifest in manifests:
        for library, version in manifest.versions.items():
            versions.setdefault(library, Counter())[version] += 1
    made = sorted(unit for unit in artifacts if unit.stage in ("sft", "update"))
    shown = made if len(made) <= FIRST + LAST else made[:FIRST] + made[-LAST:]
    return Lineage(
        tuple(_link(run, artifacts, unit) for unit in shown),
        len(made) - len(shown),
        checked,
        tuple(broken),
        dict(Counter(manifest.code_revision for manifest in manifests).most_common()),
        {library: tuple(v for v, _ in found.most_common()) for library, found in versions.items()},
        dict(Counter(manifest.host for manifest in manifests).most_common()),
    )


def _link(run: Path, artifacts: Mapping[Unit, Artifact], unit: Unit) -> Link:
    manifest = artifacts[unit].manifest
    policy = open_artifact(run / unit.outputs["policy"])
    shards = [one for one in artifacts if one.stage == "rollout" and one.marker in manifest.inputs]
    played = dict.fromkeys(place for shard in shards for place in artifacts[shard].manifest.inputs)
    return Link(
        unit.epoch,
        policy.digest if policy else "",
        str(unit),
        manifest.published,
        manifest.host,
        manifest.job_id,
        manifest.inputs,
        tuple(played),
    )

"""The policies of a run in MLflow's model registry: a version each, with what it was made from and where it lies.

A version's source is a few hundred bytes of `lineage.json` in the run of the unit that made it: the policy itself stays
where the stage published it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.artifacts import MANIFEST, checksum, open_artifact
from pipeline.tracking.record import RunRecord
from pipeline.tracking.units import UnitRecord

MAKERS = ("sft", "update")
FOLDER, LINEAGE = "policy", "lineage.json"
VERSION, MADE, SUCCESS = "baton.policy_version", "baton.published", "baton.success_rate"
LONGEST_TAG = 4000
PAGE = 1000


class Models:
    """The registered model of a run."""

    def __init__(self, client: MlflowClient, record: RunRecord) -> None:
        """See what is registered, and remove what is no longer true.

        Args:
            client: of the store.
            record: the run.
        """
        self._client, self._name = client, record.run_id
        self._versions: dict[int, str] = {}
        self._told: dict[int, float] = {}
        self._best = ""
        current = {
            unit.unit.epoch: unit.artifact.manifest.published for unit in record.units if unit.unit.stage in MAKERS
        }
        for found in sorted(self._search(), key=lambda version: int(version.version)):
            policy = int(found.tags[VERSION])
            if policy in self._versions or current.get(policy) != found.tags[MADE]:
                client.delete_model_version(self._name, found.version)
                continue
            self._versions[policy] = found.version
            if SUCCESS in found.tags:
                self._told[policy] = float(found.tags[SUCCESS])

    def add(self, record: RunRecord, unit: UnitRecord, run: str) -> None:
        """Register the policy that a unit made.

        Args:
            record: the run.
            unit: a warm start or an update.
            run: id of the unit's run in MLflow.
        """
        if unit.unit.epoch in self._versions:
            return
        lineage = described(record, unit)
        self._client.log_text(run, json.dumps(lineage, indent=1) + "\n", f"{FOLDER}/{LINEAGE}")
        if not self._versions:
            self._create_model(record)
        made = self._client.create_model_version(
            self._name,
            source=f"runs:/{run}/{FOLDER}",
            run_id=run,
            tags={f"baton.{key}": _tag(value) for key, value in lineage.items() if value is not None},
            description=f"Policy {unit.unit.epoch} of {record.config.name}, made by {unit.unit}. It lies in "
            f"{lineage['path']}.",
            await_creation_for=0,
        )
        self._versions[unit.unit.epoch] = made.version

    def rank(self, record: RunRecord) -> None:
        """Tell how each policy did, and which one did best: the alias `best`. MLflow itself knows `latest`."""
        success = {policy: rate for policy, rate in record.success().items() if policy in self._versions}
        for policy, rate in success.items():
            if self._told.get(policy) != rate:
                self._client.set_model_version_tag(self._name, self._versions[policy], SUCCESS, repr(rate))
                self._told[policy] = rate
        best = max(success, key=lambda policy: (success[policy], -policy), default=None)
        if best is not None and self._best != self._versions[best]:
            self._client.set_registered_model_alias(self._name, "best", self._versions[best])
            self._best = self._versions[best]

    def forget(self) -> None:
        """Remove the model."""
        if self._versions:
            self._client.delete_registered_model(self._name)

    def _create_model(self, record: RunRecord) -> None:
        try:
            self._client.create_registered_model(
                self._name, {"baton.run": record.config.name}, f"Policies of the run {record.config.name}."
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _search(self) -> Iterator[ModelVersion]:
        token = None
        while True:
            page = self._client.search_model_versions(f"name = '{self._name}'", max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


def described(record: RunRecord, unit: UnitRecord) -> dict[str, Any]:
    """What a policy is and what it was made from.

    Args:
        record: the run.
        unit: the unit that made it.
    """
    manifest, epoch = unit.artifact.manifest, unit.unit.epoch
    place = record.path / unit.unit.outputs["policy"]
    policy = open_artifact(place)
    return {
        "run": record.config.name,
        "run_id": record.run_id,
        "unit": str(unit.unit),
        "epoch": epoch,
        "policy_version": epoch,
        "parent_version": epoch - 1 if epoch else None,
        "trained_on": [name for name in manifest.inputs if name.startswith("epochs/") and "/engine" not in name],
        "inputs": manifest.inputs,
        "published": manifest.published,
        "path": str(place),
        "manifest": None if policy is None else checksum(place / MANIFEST),
        "digest": None if policy is None else policy.digest,
        "bytes": None if policy is None else sum(file.size for file in policy.manifest.files.values()),
        "config_digest": manifest.config_digest,
        "code_revision": manifest.code_revision,
    }


def _tag(value: Any) -> str:
    """A value as a tag can hold it; what is too long is whole in `lineage.json`."""
    text = value if isinstance(value, str) else " ".join(value) if isinstance(value, list) else json.dumps(value)
    return text if len(text) <= LONGEST_TAG else f"{text[:LONGEST_TAG]}..."

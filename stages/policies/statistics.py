"""Statistics of a demonstration set, and the normalisation made of them.

The file is OpenVLA's `dataset_statistics.json`: {dataset: {"action": {...}, "proprio": {...}}} with the lists `q01`,
`q99`, `min`, `max`, `mean`, `std` and `mask`. A number whose mask is false passes through unchanged (grippers).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.errors import UserError

FILE_NAME = "dataset_statistics.json"
EPSILON = 1e-8
"""Added to a range before dividing, as OpenVLA-OFT does."""

Bounds = Literal["q99", "minmax"]
REMEDY = "take the policy from its artifact again"


class PolicyFileError(UserError):
    """A saved policy's file is missing, damaged or of another policy; the message says which and what to do."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """How the numbers of a vector are distributed, each field [D].

    Attributes:
        q01: 1 % quantile.
        q99: 99 % quantile.
        minimum: smallest.
        maximum: largest.
        mean: mean.
        std: standard deviation (population).
        mask: bool, whether to normalise at all.
    """

    q01: np.ndarray
    q99: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, unchanged: Iterable[int] = ()) -> Moments:
        """Measure.

        A number that is the same in more than 98 % of the rows but not in all has no spread between its quantiles, and
        would be frozen: its quantiles are then its extremes. One that never changes keeps q01 = q99.

        Args:
            vectors: [N, D], N > 0, finite.
            unchanged: indices that are not to be normalised.

        Returns:
            The moments, as float64.

        Raises:
            ValueError: there are no rows, or a number is not finite.
        """
        rows = np.asarray(vectors, dtype=np.float64)
        if rows.ndim != 2 or len(rows) == 0 or not np.isfinite(rows).all():
            raise ValueError(f"statistics need finite vectors [N, D] with N > 0, not an array of shape {rows.shape}")
        low, high = np.quantile(rows, 0.01, axis=0), np.quantile(rows, 0.99, axis=0)
        minimum, maximum = rows.min(axis=0), rows.max(axis=0)
        frozen = high - low < 1e-6
        mask = np.ones(rows.shape[1], dtype=bool)
        mask[list(unchanged)] = False
        return cls(
            q01=np.where(frozen, minimum, low),
            q99=np.where(frozen, maximum, high),
            minimum=minimum,
            maximum=maximum,
            mean=rows.mean(axis=0),
            std=rows.std(axis=0),
            mask=mask,
        )

    def bounds(self, kind: Bounds) -> tuple[np.ndarray, np.ndarray]:
        """What is mapped to -1 and to 1.

        Args:
            kind: `q99` for the 1 % and 99 % quantiles, `minmax` for the extremes.

        Returns:
            low and high, each [D].
        """
        return (self.q01, self.q99) if kind == "q99" else (self.minimum, self.maximum)

    def to_json(self) -> dict[str, list[Any]]:
        """The moments under the names of the file; unknown ones are left out."""
        names = {"minimum": "min", "maximum": "max"}
        columns = {names.get(f.name, f.name): getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: column.tolist() for name, column in columns.items() if not column.size or not _unknown(column)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Moments:
        """Read one vector's record; without a mask everything is normalised, absent moments are taken as unknown (nan).

        Args:
            record: of the file; `q01` and `q99`, `min` and `max`, or `mean` and `std` must be there.

        Returns:
            The moments.

        Raises:
            KeyError: none of these pairs is there.
            ValueError: the lists differ in length.
        """
        width = len(record[next((name for name in ("q01", "min") if name in record), "mean")])
        unknown = [float("nan")] * width

        def column(name: str) -> np.ndarray:
            values = np.asarray(record.get(name, unknown), dtype=np.float64)
            if values.shape != (width,):
                raise ValueError(f"{name!r} has shape {values.shape}, expected ({width},)")
            return values

        mask = np.asarray(record.get("mask", [True] * width), dtype=bool)
        if mask.shape != (width,):
            raise ValueError(f"'mask' has shape {mask.shape}, expected ({width},)")
        return cls(
            q01=column("q01"),
            q99=column("q99"),
            minimum=column("min"),
            maximum=column("max"),
            mean=column("mean"),
            std=column("std"),
            mask=mask,
        )


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Statistics of one demonstration set.

    Attributes:
        action: of the A action numbers.
        proprio: of the P proprioception numbers; P may be 0.
        dataset: its name in the file (OpenVLA's `unnorm_key`).
    """

    action: Moments
    proprio: Moments
    dataset: str = "baton"

    @classmethod
    def of(
        cls, actions: np.ndarray, proprio: np.ndarray, unchanged_actions: Iterable[int] = (), dataset: str = "baton"
    ) -> Statistics:
        """Measure demonstrations.

        Args:
            actions: [N, A], the actions that will be imitated.
            proprio: [M, P].
            unchanged_actions: action numbers already in [-1, 1] that are not to be normalised: the grippers.
            dataset: a name for the file.

        Returns:
            The statistics.
        """
        return cls(Moments.of(actions, unchanged_actions), Moments.of(proprio), dataset)

    def to_json(self) -> dict[str, dict[str, list[Any]]]:
        """The statistics as one data set's entry of the file."""
        return {"action": self.action.to_json(), "proprio": self.proprio.to_json()}

    def save(self, directory: Path) -> None:
        """Write `dataset_statistics.json`."""
        record = {self.dataset: self.to_json()}
        (directory / FILE_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def choose(cls, record: Mapping[str, Any], dataset: str | None, place: str) -> Statistics:
        """Take one data set's statistics.

        Args:
            record: data set -> its entry of the file.
            dataset: its name, also found as `{dataset}_no_noops`; None when there is one only.
            place: where the record is from, for messages.

        Returns:
            The statistics; without a `proprio` entry P is 0.

        Raises:
            PolicyFileError: the data set is not there, or its entry is damaged.
        """
        try:
            if dataset is None and len(record) == 1:
                dataset = next(iter(record))
            chosen = next((key for key in (dataset, f"{dataset}_no_noops") if key in record), None)
            if chosen is None:
                known = f"name one of {', '.join(record)}" if record else "it has none at all"
                fault = (
                    "has statistics of several data sets"
                    if dataset is None and record
                    else f"lacks statistics of {dataset or 'any data set'}"
                )
                raise PolicyFileError(f"{place} {fault}: {known}")
            entry = record[chosen]
            proprio = Moments.from_json(entry.get("proprio", {"q01": []}))
            return cls(Moments.from_json(entry["action"]), proprio, chosen)
        except PolicyFileError:
            raise
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise PolicyFileError(f"{place} is damaged ({error!r}): {REMEDY}") from None

    @classmethod
    def load(cls, directory: Path, dataset: str | None = None) -> Statistics:
        """Read one data set's statistics from `dataset_statistics.json`; see `choose`.

        Raises:
            PolicyFileError: the file is missing or damaged, or does not hold the data set.
        """
        return cls.choose(read_statistics(directory), dataset, str(directory / FILE_NAME))


def read_statistics(directory: Path, needed: bool = True) -> dict[str, Any]:
    """Read `dataset_statistics.json`.

    Args:
        directory: where it lies.
        needed: refuse a directory without the file; a published policy may have its statistics in config.json alone.

    Returns:
        Data set -> its entry.

    Raises:
        PolicyFileError: the file is missing or damaged.
    """
    path = directory / FILE_NAME
    return read_record(path) if needed or path.is_file() else {}


def read_record(path: Path) -> dict[str, Any]:
    """Read one of a policy's JSON files.

    Args:
        path: the file.

    Returns:
        The mapping it holds.

    Raises:
        PolicyFileError: the file is missing or damaged.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PolicyFileError(f"{path} is missing: {REMEDY}") from None
    except ValueError as error:
        raise PolicyFileError(f"{path} is damaged ({error!r}): {REMEDY}") from None
    if not isinstance(record, dict):
        raise PolicyFileError(f"{path} is damaged (it holds no mapping): {REMEDY}")
    return record


def _unknown(column: np.ndarray) -> bool:
    return bool(np.isnan(np.asarray(column, dtype=np.float64)).all())

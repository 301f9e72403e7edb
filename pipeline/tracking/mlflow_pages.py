"""Addresses of MLflow's pages: straight to a run's charts, and to the pages of training."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

SQLITE = "sqlite:///"
RUN_ID = "baton.run_id"
UNIT = "baton.unit"
# A browser that has not been here before is shown the pages for language models, which know neither runs nor charts.
TRAINING = "workflowType=machine_learning"


def address(server: str, uri: str, run_id: str | None) -> str:
    """Where to look at a run.

    Args:
        server: address of MLflow's server.
        uri: of the store that it shows; a run is looked for in a sqlite database alone.
        run_id: identity of the run; None: any.

    Returns:
        Of its charts; of the list of experiments where it is not known.
    """
    place = "experiments"
    if run_id is not None and uri.startswith(SQLITE) and (found := _find(Path(uri.removeprefix(SQLITE)), run_id)):
        place = "experiments/{}/runs/{}/model-metrics".format(*found)
    return f"{server}/#/{place}?{TRAINING}"


def _find(database: Path, run_id: str) -> tuple[int, str] | None:
    """MLflow's ids of the experiment and of the parent run; asked without MLflow, whose import takes seconds."""
    query = """
        SELECT experiment_id, run_uuid FROM runs JOIN tags USING (run_uuid)
        WHERE lifecycle_stage = 'active' AND key = ? AND value = ?
        AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = ?)
    """
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
            found: tuple[int, str] | None = opened.execute(query, (RUN_ID, run_id, UNIT)).fetchone()
    except sqlite3.Error:  # MLflow is about to say what is wrong with its database
        return None
    return found

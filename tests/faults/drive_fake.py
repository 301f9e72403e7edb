"""Drives a run with fake stages: the orchestrator process that the fault tests kill."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.errors import UserError
from pipeline.orchestrator import drive

if __name__ == "__main__":
    try:
        drive(Path(sys.argv[1]), lambda snapshot: None, stages_package="fake_stages", cores=2)
    except UserError as error:
        sys.exit(f"{error}")

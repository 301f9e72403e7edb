"""Imports DeepSpeed without what it drags in."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import defaultdict
from types import ModuleType

import torch


def load_deepspeed() -> ModuleType:
    """Import DeepSpeed: 0.3 s beyond torch instead of 3, and nothing compiled on a CPU.

    Its autotuner, which Baton does not use, imports mlflow if it can, and with it pandas and a web server; for the time
    of the import mlflow is made to look absent. Without `DS_ACCELERATOR` it would probe for every kind of accelerator
    and warn. On a CPU it would compile a shared-memory collective in every new environment, for a minute and a half.

    Returns:
        The module.
    """
    if "deepspeed" in sys.modules:
        return sys.modules["deepspeed"]
    on_gpu = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if on_gpu else "cpu")
    absent = "mlflow" not in sys.modules
    if absent:
        sys.modules["mlflow"] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        import deepspeed
    finally:
        if absent:
            del sys.modules["mlflow"]
    if not on_gpu:
        deepspeed.ops.__compatible_ops__ = defaultdict(bool)
    # It calls collectives by their older names, once a step.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.", FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    return deepspeed

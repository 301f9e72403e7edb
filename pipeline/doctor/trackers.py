"""Whether the trackers beside MLflow can be written to: TensorBoard's directory, W&B's key and files."""

from __future__ import annotations

import netrc
import os
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.config import Config
from pipeline.doctor.asks import run_directory
from pipeline.doctor.check import Check, failed, passed, warned
from pipeline.doctor.space import existing
from pipeline.tracking.installed import uninstalled

KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
DEFAULT_SERVER = "https://api.wandb.ai"


def trackers(config: Config, environment: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Look at what a config enables; nothing where it enables neither.

    Args:
        config: the run's config.
        environment: variables of the process that will write.
    """
    logger = config.trainer.logger
    missing = uninstalled(config)
    beside = run_directory(config).parent
    for name, title, log_dir in (
        ("tensorboard", "TensorBoard", logger.tensorboard.log_dir),
        ("wandb", "W&B", logger.wandb.log_dir),
    ):
        if name not in logger.enabled:
            continue
        place = existing(beside if log_dir is None else Path(log_dir).expanduser().absolute())
        if name in missing:
            found, _, remedy = missing[name].partition(": ")
            yield failed(title, found, remedy)
        elif not os.access(place, os.W_OK):
            yield failed(
                title, f"{place} cannot be written to", f"set trainer.logger.{name}.log_dir to another directory"
            )
        elif name == "wandb" and logger.wandb.mode == "online" and not _has_key(environment):
            yield warned(
                title,
                f"no API key for {environment.get('WANDB_BASE_URL', DEFAULT_SERVER)}: the run goes on without W&B",
                "run `wandb login`, set WANDB_API_KEY, or set trainer.logger.wandb.mode=offline",
            )
        else:
            mode = f", {logger.wandb.mode}" if name == "wandb" else ""
            yield passed(title, f"{place} can be written to{mode}")


def _has_key(environment: Mapping[str, str]) -> bool:
    if any(environment.get(key) for key in KEYS):
        return True
    host = urllib.parse.urlsplit(environment.get("WANDB_BASE_URL", DEFAULT_SERVER)).hostname or ""
    path = Path(environment.get("NETRC") or Path(environment.get("HOME", "~")).expanduser() / ".netrc")
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False

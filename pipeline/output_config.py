"""What a run shows and what it keeps: tracking, films, and artifacts on disk."""

from __future__ import annotations

from typing import Literal

from pipeline.block import Block, Count, Index


class MlflowLogger(Block):
    """MLflow."""

    enable: bool = True
    """whether the run is written to MLflow"""
    uri: str | None = None
    """tracking server, e.g. http://host:5000; null: a sqlite database beside the run directories"""
    experiment_name: str = "baton"
    """experiment the run belongs to"""


class TensorboardLogger(Block):
    """TensorBoard."""

    enable: bool = False
    """whether the run is written as TensorBoard's event files"""
    log_dir: str | None = None
    """directory that gets one of the run's name; null: `tensorboard` beside the run directories"""


class WandbLogger(Block):
    """Weights & Biases."""

    enable: bool = False
    """whether the run is written to Weights & Biases"""
    project_name: str = "baton"
    """project the run belongs to"""
    experiment_name: str | None = None
    """what the run is called there; null: as here"""
    entity: str | None = None
    """user or team of the project; null: that of the API key"""
    mode: Literal["online", "offline", "disabled"] = "online"
    """offline: files below `log_dir` for `wandb sync`, no network needed; disabled: as enable=false"""
    log_dir: str | None = None
    """directory of W&B's own files; null: `wandb` beside the run directories"""


class Logger(Block):
    """Where a run can be watched."""

    mlflow: MlflowLogger = MlflowLogger()
    """MLflow"""
    tensorboard: TensorboardLogger = TensorboardLogger()
    """TensorBoard"""
    wandb: WandbLogger = WandbLogger()
    """Weights & Biases"""

    @property
    def enabled(self) -> tuple[str, ...]:
        """Names of the trackers that a run is written to."""
        wandb = self.wandb.enable and self.wandb.mode != "disabled"
        chosen = {"mlflow": self.mlflow.enable, "tensorboard": self.tensorboard.enable, "wandb": wandb}
        return tuple(name for name, enabled in chosen.items() if enabled)


class Trainer(Block):
    """Settings of tracking, under the mission's key."""

    logger: Logger = Logger()
    """where a run can be watched"""


class Video(Block):
    """Films of episodes, frames of 448 x 672: the wrist cameras one above the other, the head camera beside them."""

    save_video: bool = True
    """whether episodes are filmed"""
    info_on_video: bool = True
    """write instruction, task, seed, step, reward and success over the picture"""
    video_base_dir: str | None = None
    """copies of the films go to a folder of the run below this one; null: they stay in the artifacts only"""
    episodes: Index | None = None
    """episodes filmed an evaluation, tasks in turn; null: one of fifty, but four at most; 0: none"""
    rollout_episodes: Index = 1
    """training episodes filmed an epoch, over all shards, tasks in turn; 0: none"""
    demonstration_episodes: Index = 1
    """demonstrations filmed, over all shards, tasks in turn; 0: none"""


class Keep(Block):
    """What is kept on disk."""

    optimizer_states: Count = 2
    """optimizer states of the newest updates"""
    policies: Literal["all"] | Count = "all"
    """newest policies kept beside the warm start and the evaluated ones"""
    rollouts: Literal["all"] | Count = "all"
    """newest epochs whose rollout shards are kept"""

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


class Logger(Block):
    """Where a run can be watched."""

    mlflow: MlflowLogger = MlflowLogger()
    """MLflow"""


class Trainer(Block):
    """Settings of tracking, under the mission's key."""

    logger: Logger = Logger()
    """where a run can be watched"""


class Video(Block):
    """Films of episodes."""

    save_video: bool = True
    """whether evaluation episodes are filmed"""
    info_on_video: bool = True
    """write instruction, step, reward and success over the picture"""
    video_base_dir: str | None = None
    """copies of the films go here; null: they stay in the evaluation's artifact only"""
    episodes: Index = 4
    """episodes filmed an evaluation, the first of each task in turn"""


class Keep(Block):
    """What is kept on disk."""

    optimizer_states: Count = 2
    """optimizer states of the newest updates"""
    policies: Literal["all"] | Count = "all"
    """newest policies kept beside the warm start and the evaluated ones"""
    rollouts: Literal["all"] | Count = "all"
    """newest epochs whose rollout shards are kept"""

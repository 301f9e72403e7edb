"""The config of a run: every field, its type, its bounds and one line of what it does.

`pipeline.compose` turns YAML files and overrides into a `Config`; `baton config --explain` prints these descriptions.
Blocks and fields in `CHANGEABLE` cannot change results, so a run may be continued with other values there; all others
are fixed once the run exists.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.block import Block, Count, Index, NonNegative, Positive, Probability
from pipeline.output_config import Keep, Trainer, Video
from pipeline.policy_config import Policy
from pipeline.simulator_config import Simulator as Simulator
from pipeline.slurm_config import Cluster, Slurm

CHANGEABLE = (
    "epochs",
    "runs_dir",
    "slurm",
    "cluster",
    "trainer",
    "video_cfg",
    "keep",
    "max_attempts",
    "simulator.python",
)


class Workers(Block):
    """How a stage that runs a simulator is laid out on its machine."""

    num_envs: Count = 16
    """environments a unit advances together"""
    num_workers: Count = 1
    """simulator processes a unit starts; the environments are spread over them"""
    threads: Count = 1
    """CPU threads of the policy in a unit; part of the result on CPU, where it decides the order of sums"""


class Demonstrate(Workers):
    """Demonstrations by the scripted expert."""

    shards: Count = 1
    """units the stage is cut into; each runs as a job of its own"""
    episodes: Count = 200
    """episodes in all, over all tasks and shards"""
    stride: Count = 4
    """steps between two recorded observations of an episode; each is followed by the next K actions"""
    perturbation: Probability = 0.04
    """chance a step that a burst of random motion begins, from which the expert recovers"""
    max_episode_steps: Count | None = None
    """the expert's own step limit, where it may take longer than the policy; null: the simulator's"""
    only_success: bool = True
    """leave out episodes in which the expert failed"""
    imported: str | None = None
    """directory of demonstrations that `baton import` has written; null: the scripted expert gives them"""


class Optimizer(Block):
    """The optimizer of a training stage."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: Muon on the 2-D weights of the blocks, AdamW on the rest"""
    lr: Positive = 1e-4
    """learning rate"""
    value_lr: Positive = 1e-3
    """learning rate of the value head"""
    muon_lr: Positive = 0.03
    """learning rate of the weights that Muon updates"""
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    """AdamW's decay rates"""
    eps: Positive = 1e-8
    """AdamW's epsilon"""
    weight_decay: NonNegative = 0.01
    """decoupled weight decay"""
    gradient_clip: Positive = 1.0
    """largest norm of the gradient"""


class Training(Block):
    """What the two training stages share."""

    optimizer: Optimizer = Optimizer()
    """the optimizer"""
    processes: Count | None = None
    """data-parallel ranks of the unit; null: one for each GPU of the actor, or 1 without GPUs"""
    threads: Count = 2
    """CPU threads of each rank; part of the result on CPU, where it decides the order of sums"""
    micro_batch: Count | None = None
    """decisions a rank holds at once; null: its whole share of a batch"""
    recompute: Literal["none", "mlp", "block"] = "none"
    """what the backward pass computes again to save memory: the inside of each block's MLP, or of the whole block"""


class Sft(Training):
    """The supervised warm start."""

    steps: Index = 1000
    """optimizer steps; 0: policy.checkpoint becomes version 0 as it is, and nothing is demonstrated"""
    batch: Count = 32
    """decisions a step, over all ranks"""
    warmup_steps: Index = 40
    """steps in which the learning rate rises from zero"""
    final_lr: Probability = 0.05
    """share of the learning rate left at the end of the cosine"""
    label_sigma: NonNegative = 1.5
    """width of the soft labels of a policy over tokens, in action bins; 0: hard labels"""
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """share of an image's side by which every image is moved at random, at most, down or up and to a side"""
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """share by which brightness, contrast and saturation of every image are changed at random, at most"""
    mirror: bool = False
    """every second decision, by chance, as a mirror between the robot's arms shows it, its instruction too"""


class Acting(Workers):
    """What the two stages in which the policy acts share."""

    pipeline_stage_num: Count = 1
    """groups of environments that take turns between simulator and policy"""


class Rollout(Acting):
    """Episodes of the policy under training."""

    shards: Count = 1
    """units an epoch is cut into, each a job of its own; not set: one for each cell of the placement"""
    episodes: Count = 64
    """episodes an epoch, over all tasks and shards"""
    group_size: Count = 1
    """G, episodes from the same initial state; GRPO needs at least 2"""
    temperature: Positive = 1.0
    """of the distribution that action tokens are drawn from; a flow policy has policy.flow.noise_level instead"""
    max_episode_steps: Count | None = None
    """step limit while training, where an evaluation may take longer; null: the simulator's"""
    noise: Literal["token", "chunk"] = "token"
    """token: each action number is drawn by itself; chunk: one draw a dimension, shared by the steps of a chunk"""
    staleness: Annotated[int, Field(ge=0, le=1)] = 0
    """0: rollouts use the newest policy; 1: the one before, so that rollout and update overlap"""


class Algorithm(Block):
    """The objective."""

    name: Literal["ppo", "grpo"] = "ppo"
    """ppo: GAE with a value head; grpo: advantages within groups"""
    gamma: Probability = 0.99
    """discount a decision"""
    gae_lambda: Probability = 0.95
    """decay of the advantage estimator"""
    time_limit: Literal["bootstrap", "end"] = "end"
    """beyond the step limit: end: nothing, the limit is part of the task; bootstrap: as much as the value says"""
    clip_ratio_low: Positive = 0.2
    """lower clip of the probability ratio: 1 - this"""
    clip_ratio_high: Positive = 0.28
    """upper clip of the probability ratio: 1 + this"""
    clip_ratio_c: Annotated[float, Field(gt=1)] | None = 3.0
    """dual clip of the loss where the advantage is negative; null: none"""
    log_prob_level: Literal["token", "action", "chunk"] = "token"
    """what one probability ratio is taken over"""
    value_clip: Positive = 0.2
    """how far a value may move from the rollout's"""
    huber_delta: Positive = 10.0
    """where the value loss turns linear"""
    value_coef: NonNegative = 1.0
    """weight of the value loss"""
    entropy_coef: NonNegative = 0.0
    """weight of the entropy bonus; of flow policies only flow.sampler=flow_noise has an entropy"""
    kl_coef: NonNegative = 0.0
    """weight of the KL to the warm start; above 0 the warm start is held in memory beside the policy"""
    normalize_advantages: bool = True
    """scale advantages to mean 0 and deviation 1 over the epoch"""
    filter_groups: tuple[Probability, Probability] | None = None
    """GRPO: learn from groups whose mean return lies within these bounds; null: from all"""


class Update(Training):
    """The policy update."""

    passes: Count = 2
    """times the epoch's decisions are gone through"""
    minibatch: Count = 128
    """decisions an optimizer step, over all ranks; those of filtered groups do not count"""
    lr_warmup_epochs: Index = 0
    """epochs in which the policy's learning rate rises from zero"""
    value_only_epochs: Index = 0
    """first epochs that train the value head alone, with an optimizer of their own"""


class Evaluate(Acting):
    """Evaluation on held-out initial states."""

    episodes: Count = 100
    """episodes, over all tasks; their initial states never occur in training"""
    interval: Index = 0
    """evaluate every so many epochs; 0: the warm start and the last policy only"""
    temperature: NonNegative = 0.0
    """0: the likeliest action; above: drawn as in a rollout, of a flow policy with so many times its noise level"""


class DeepSpeed(Block):
    """The training engine."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    """what is split over ranks: 0 nothing, 1 optimizer state, 2 gradients too, 3 parameters too"""


class Config(Block):
    """One run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """name of the run and of its directory"""
    runs_dir: str = "runs"
    """directory of the run directories"""
    seed: Index = 0
    """every random stream derives from it"""
    epochs: Index = 10
    """RL iterations after the warm start"""
    max_attempts: Count = 3
    """tries at a unit before the run stops"""
    simulator: Simulator = Simulator()
    """the simulator and its tasks"""
    policy: Policy = Policy()
    """the policy and its size"""
    demonstrate: Demonstrate = Demonstrate()
    """demonstrations by the scripted expert"""
    sft: Sft = Sft()
    """the supervised warm start"""
    rollout: Rollout = Rollout()
    """episodes of the policy under training"""
    algorithm: Algorithm = Algorithm()
    """the objective"""
    update: Update = Update()
    """the policy update"""
    evaluate: Evaluate = Evaluate()
    """evaluation on held-out initial states"""
    deepspeed: DeepSpeed = DeepSpeed()
    """the training engine"""
    cluster: Cluster = Cluster()
    """the GPUs"""
    slurm: Slurm = Slurm()
    """how units reach a machine"""
    trainer: Trainer = Trainer()
    """tracking"""
    video_cfg: Video = Video()
    """films of episodes"""
    keep: Keep = Keep()
    """what is kept on disk"""

    @model_validator(mode="after")
    def parts_fit(self) -> Config:
        """Refuse combinations that would fail only after hours."""
        rollout, tasks = self.rollout, len(self.simulator.tasks)
        if twice := [task for task, times in Counter(self.simulator.tasks).items() if times > 1]:
            raise ValueError(f"simulator.tasks names a task twice: {', '.join(twice)}")
        if self.sft.steps == 0 and (self.policy.checkpoint is None or self.policy.statistics == "demonstrations"):
            raise ValueError(
                "sft.steps=0 takes policy.checkpoint and its own statistics as they are: name a trained policy there "
                "and leave policy.statistics=demonstrations out, or set sft.steps"
            )
        if self.algorithm.name == "grpo" and rollout.group_size < 2:
            raise ValueError(
                "algorithm.name=grpo compares episodes within a group: set rollout.group_size to 2 or more"
            )
        share = tasks * rollout.group_size * rollout.shards
        if rollout.episodes % share:
            below = rollout.episodes // share * share
            near = f"{below} or {below + share}" if below else str(share)
            raise ValueError(
                f"rollout.episodes={rollout.episodes} is not a multiple of {share}, which is tasks ({tasks}) x "
                f"rollout.group_size ({rollout.group_size}) x rollout.shards ({rollout.shards}): set it to {near}"
            )
        for name, acting in (("rollout", rollout), ("evaluate", self.evaluate)):
            if acting.num_envs % acting.pipeline_stage_num:
                raise ValueError(
                    f"{name}.num_envs={acting.num_envs} does not split into "
                    f"{name}.pipeline_stage_num={acting.pipeline_stage_num} equal groups"
                )
        for name, stage in (("sft", self.sft), ("update", self.update)):
            if stage.optimizer.name == "muon" and self.deepspeed.zero_stage > 0:
                raise ValueError(
                    f"{name}.optimizer.name=muon needs whole matrices, which deepspeed.zero_stage="
                    f"{self.deepspeed.zero_stage} splits: set deepspeed.zero_stage=0 or {name}.optimizer.name=adamw"
                )
        if self.policy.precision == "bf16" and self.deepspeed.zero_stage == 0:
            raise ValueError(
                "policy.precision=bf16 keeps its fp32 master weights in a ZeRO optimizer: "
                "set deepspeed.zero_stage to 1, 2 or 3, or policy.precision=mixed"
            )
        if self.algorithm.name == "grpo" and self.update.value_only_epochs:
            raise ValueError("algorithm.name=grpo has no value head to train: set update.value_only_epochs=0")
        if self.policy.name == "pi0":
            self._flow_fits()
        return self

    def _flow_fits(self) -> None:
        """Refuse what a flow policy has no part in."""
        flow = self.policy.flow
        if self.rollout.temperature != 1.0:
            raise ValueError(
                f"rollout.temperature={self.rollout.temperature} is of policies over tokens: leave it out, and set "
                f"policy.flow.noise_level={flow.noise_level} to how widely pi0 is to draw"
            )
        if self.algorithm.entropy_coef and flow.sampler != "flow_noise":
            raise ValueError(
                f"algorithm.entropy_coef={self.algorithm.entropy_coef} rewards an entropy, and that of policy.flow."
                f"sampler={flow.sampler} is no choice of the policy: set it to 0, or policy.flow.sampler=flow_noise"
            )

"""What a run says of a flow policy: how it denoises and draws, and what of it is trained."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from pipeline.block import Block, Count, Index, Positive


class Flow(Block):
    """How a flow policy (pi0) turns noise into actions, which parts of that are drawn, and what is trained."""

    version: Literal["pi0", "pi05"] = "pi0"
    """pi0: proprioception is a token of its own; pi05: adaptive norms in the action expert"""
    horizon: Count | None = None
    """H, steps denoised together, of which the first K are carried out; null: the checkpoint's, base's 50, else K"""
    sampler: Literal["flow_sde", "flow_noise", "flow_cps"] = "flow_sde"
    """where a denoising step's noise comes from; flow_noise: its deviation is learned, so that it has an entropy"""
    num_steps: Count = 4
    """N, denoising steps of a decision"""
    noise_level: Positive = 0.5
    """how widely flow_sde and flow_cps draw; in the originals 0.3 to 0.7"""
    noise_level_final: Positive | None = None
    """noise level that the rollouts of epoch 1 + noise_anneal_epochs reach in equal steps; null: it stays"""
    noise_anneal_epochs: Index = 0
    """epochs over which the noise level changes"""
    joint_log_prob: bool = False
    """all denoising steps draw, and log-probs are their mean; false: one step draws, another one each decision"""
    ignore_last: bool = False
    """the last denoising step never draws, so that actions end without noise"""
    value_position: Literal["expert", "vlm"] = "expert"
    """where values are read: the action expert's states, or those of the vision-language model, which see no noise"""
    value_vlm_mode: Literal["mean_token", "last_token", "first_token"] = "mean_token"
    """which states of the vision-language model"""
    value_of_chunk: bool = False
    """read values from the expert's states of the first K steps alone, not of all H"""
    detach_value: bool = False
    """the value loss trains the value head alone"""
    averaged_rollout_values: bool = False
    """for comparison: rollouts store the mean value of all steps, as RLinf does, though updates see the drawn step's"""
    padding_in_mean: bool = False
    """for comparison: mean_token counts padding, as RLinf does"""
    train_expert_only: bool = False
    """the vision-language model stays as it is"""

    @model_validator(mode="after")
    def parts_fit(self) -> Flow:
        """Refuse settings that contradict one another."""
        if (self.noise_level_final is None) != (self.noise_anneal_epochs == 0):
            level = "null" if self.noise_level_final is None else self.noise_level_final
            raise ValueError(
                f"flow.noise_level_final={level} and flow.noise_anneal_epochs="
                f"{self.noise_anneal_epochs} belong together: set both or neither"
            )
        if self.noise_level_final is not None and self.sampler == "flow_noise":
            raise ValueError(
                "flow.noise_level_final anneals a level, and flow.sampler=flow_noise learns it: leave it out"
            )
        if self.ignore_last and self.joint_log_prob:
            raise ValueError(
                "flow.ignore_last=true contradicts flow.joint_log_prob=true, where all steps draw: set one"
            )
        if self.ignore_last and self.num_steps == 1:
            raise ValueError("flow.ignore_last=true leaves nothing of flow.num_steps=1 to draw: set it to false")
        if self.averaged_rollout_values and self.value_position == "vlm":
            raise ValueError(
                "flow.averaged_rollout_values=true averages the expert's values: set flow.value_position=expert"
            )
        if self.padding_in_mean and (self.value_position, self.value_vlm_mode) != ("vlm", "mean_token"):
            raise ValueError(
                "flow.padding_in_mean=true is about the mean of the vision-language model's states: set "
                "flow.value_position=vlm and flow.value_vlm_mode=mean_token"
            )
        return self

    def annealed(self, epoch: int) -> float:
        """The noise level of an epoch's rollouts, as a share of `noise_level`.

        Args:
            epoch: from 1.
        """
        if self.noise_level_final is None:
            return 1.0
        progress = min(1.0, (epoch - 1) / self.noise_anneal_epochs)
        return 1.0 + progress * (self.noise_level_final / self.noise_level - 1.0)

    def options(self) -> dict[str, Any]:
        """The fields that the policy's own config has."""
        return self.model_dump(exclude={"noise_level_final", "noise_anneal_epochs"}, exclude_none=True)

"""A policy in training: DeepSpeed's engine behind forward, backward, step, save and load."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.config import Optimizer as OptimizerConfig
from pipeline.errors import UserError
from stages.blocks import Recompute, prepare_blocks
from stages.policies.interface import Precision
from stages.training.backend import load_deepspeed
from stages.training.fingerprint import fingerprint
from stages.training.optimizers import build_optimizer
from stages.training.zero3 import keep_whole

TAG = "engine"
ABOUT = "engine.json"
HYPERPARAMETERS_FROM_CONFIG = ("lr", "weight_decay", "betas", "eps")


class Engine:
    """A module, its optimizer and their place among the ranks.

    Call it like the module. One optimizer step over micro-batches, `share` being a micro-batch's part of the batch:

        for share, micro in micros:
            engine.backward(loss_of(engine(micro)) * share, last=micro is micros[-1])
        norm = engine.step()

    Gradients are averaged over the ranks. The same seeds, ranks and threads give bitwise the same weights, also across
    `save` and `load`; random numbers are the caller's, who derives them from seeds.

    Attributes:
        module: the policy.
        device: where it lies.
        steps: optimizer steps taken since construction.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: OptimizerConfig,
        *,
        device: torch.device,
        zero_stage: int = 0,
        precision: Precision = "fp32",
        recompute: Recompute = "none",
        compiled: bool = False,
    ) -> None:
        """Prepare a module for training, after `ranks.join`. All ranks start from rank 0's weights.

        Args:
            module: the policy, with what is not to be trained frozen.
            optimizer: kind, learning rates and the bound on the gradient norm.
            device: what `ranks.join` returned.
            zero_stage: what is split over ranks: 0 nothing, 1 optimizer state, 2 gradients too, 3 parameters too.
            precision: "bf16" holds the weights in bf16, and fp32 master weights beside them, split over the ranks.
                "fp32" and "mixed" hold them in fp32; under "mixed" the policy itself computes in bf16.
            recompute: what the backward pass computes again; see `prepare_blocks`.
            compiled: run the policy's blocks through torch.compile.

        Raises:
            UserError: the optimizer does not fit the policy or the ZeRO stage, or the precision not the stage.
        """
        if precision == "bf16" and zero_stage == 0:
            # DeepSpeed 0.19.8's own bf16 optimizer for stage 0 sees gradients many times too small
            raise UserError("policy.precision=bf16 is trained with deepspeed.zero_stage 1, 2 or 3; or use mixed")
        deepspeed = load_deepspeed()
        self.module, self.device = module.to(device), device
        prepare_blocks(module, recompute=recompute, compiled=compiled)
        self.zero_stage, self.precision = zero_stage, precision
        self.steps = 0
        self._optimizer = build_optimizer(module, optimizer, zero_stage)
        self._optimizer_name, self._clip = optimizer.name, optimizer.gradient_clip
        self._settings = [
            {"role": group["role"]} | {key: group[key] for key in HYPERPARAMETERS_FROM_CONFIG if key in group}
            for group in self._optimizer.param_groups
        ]
        if zero_stage == 3:
            keep_whole(module)
        # DeepSpeed clips an unsplit fp32 gradient without telling its norm, so that case is clipped here.
        self._clips_itself = zero_stage == 0
        self._engine, *_ = deepspeed.initialize(
            model=self.module,
            optimizer=self._optimizer,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "gradient_clipping": 0.0 if self._clips_itself else self._clip,
                "bf16": {"enabled": precision == "bf16"},
                "zero_optimization": {
                    "stage": zero_stage,
                    "overlap_comm": device.type == "cuda",
                    # DeepSpeed's own matrix product frees gathered weights early, as compiled blocks do by themselves,
                    # which would be compiled anew for every layer if they held it
                    "memory_efficient_linear": not compiled,
                },
                "zero_allow_untested_optimizer": True,
                "steps_per_print": 10**9,
            },
        )
        self._unused = self._watch_gradients() if zero_stage == 3 else set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's forward."""
        return self._engine(*args, **kwargs)

    def backward(self, loss: Tensor, last: bool = True) -> None:
        """Add a loss's gradient to that of the coming step.

        Args:
            loss: scalar, scaled to its share of the step.
            last: whether the step follows; averages over the ranks.
        """
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss)

    def step(self) -> float:
        """Clip the gradient, update the weights and clear the gradient.

        Returns:
            Norm of the gradient before clipping, over all ranks.

        Raises:
            UserError: the gradient is not finite, or under ZeRO-3 a trainable parameter was not used.
        """
        self._refuse_unused()
        if self._clips_itself:
            norm = float(torch.nn.utils.clip_grad_norm_(self._trainable(), self._clip))
            self._refuse_infinite(norm)
            self._engine.step()
        else:
            self._engine.step()
            norm = float(self._engine.get_global_grad_norm())
            self._refuse_infinite(norm)
        self.steps += 1
        return norm

    def set_lr(self, policy: float, value: float | None = None) -> None:
        """Scale the configured learning rates from the next step on.

        Args:
            policy: factor of everything but the value head.
            value: factor of the value head; None: the same.
        """
        for group, settings in zip(self._optimizer.param_groups, self._settings, strict=True):
            scale = policy if value is None or settings["role"] != "value" else value
            group["lr"] = settings["lr"] * scale

    @property
    def lr(self) -> float:
        """The learning rate of the policy's first group, for the log."""
        return float(self._optimizer.param_groups[0]["lr"])

    def save(self, directory: Path) -> None:
        """Write the weights in training and the optimizer's state; called by all ranks.

        Args:
            directory: exists, is empty and is seen by all ranks.
        """
        self._engine.save_checkpoint(str(directory), tag=TAG, save_latest=False, exclude_frozen_parameters=True)
        prints = self._fingerprints()
        if dist.get_rank() == 0:
            about = {**self._identity(), "world_size": dist.get_world_size(), "fingerprints": prints}
            (directory / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
        dist.barrier()

    def load(self, directory: Path) -> None:
        """Continue from what `save` wrote; called by all ranks.

        Learning rates, weight decay, betas and epsilon are the config's, not the saved ones.

        Args:
            directory: what `save` wrote.

        Raises:
            UserError: it was written under other settings, or what was loaded is not what was saved.
        """
        about = self._readable(directory)
        path, _ = self._engine.load_checkpoint(str(directory), tag=TAG, load_module_strict=False)
        if path is None:
            raise UserError(f"{directory}: DeepSpeed finds no state there; run the update that wrote it again")
        for group, settings in zip(self._optimizer.param_groups, self._settings, strict=True):
            group.update(settings)
        saved = about["fingerprints"] if self.zero_stage else about["fingerprints"][:1] * dist.get_world_size()
        if self._fingerprints() != saved:
            raise UserError(f"{directory}: the weights loaded are not those saved; run the update that wrote it again")

    def consolidated_state_dict(self) -> dict[str, Tensor]:
        """Gather the module's whole state; called by all ranks.

        Returns:
            On rank 0 every tensor of the module's state dict, on the CPU; on the others nothing.
        """
        state = self.module.state_dict(keep_vars=True)
        first = dist.get_rank() == 0
        if self.zero_stage < 3:
            return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()} if first else {}
        whole: dict[str, Tensor] = {}
        gathered = load_deepspeed().zero.GatheredParameters
        for name, tensor in state.items():  # one at a time: a rank need not have room for all
            with gathered([tensor] if isinstance(tensor, nn.Parameter) else []):
                if first:
                    whole[name] = tensor.detach().to("cpu", copy=True)
        return whole

    def close(self) -> None:
        """Let go of the module; without it a process that trains again would hold the memory of every engine it had."""
        self._engine.destroy()
        if self.zero_stage == 3:  # DeepSpeed 0.19.8 keeps modules in a list that is never emptied
            parameter_offload = importlib.import_module("deepspeed.runtime.zero.parameter_offload")
            parameter_offload.FWD_MODULE_STACK.clear()

    def _trainable(self) -> list[nn.Parameter]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def _refuse_infinite(self, norm: float) -> None:
        if norm != norm or norm in (float("inf"), -1.0):
            raise UserError(f"optimizer step {self.steps + 1}: the gradient's norm is {norm}; lower optimizer.lr")

    def _watch_gradients(self) -> set[str]:
        """Names of trainable parameters without a gradient since the last step, kept up to date by hooks."""
        waiting: set[str] = set()
        self._trained = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        for name, parameter in self._trained.items():
            parameter.register_hook(lambda _, name=name: waiting.discard(name))
        waiting.update(self._trained)
        return waiting

    def _refuse_unused(self) -> None:
        """ZeRO-3 applies the last step's gradient again to a parameter that has none."""
        if self._unused:
            raise UserError(
                f"deepspeed.zero_stage=3: {sorted(self._unused)[0]} was not used in this step and would get an old "
                "gradient; freeze it, or add 0 * output.sum() to the loss"
            )
        if self.zero_stage == 3:
            self._unused.update(self._trained)

    def _identity(self) -> dict[str, Any]:
        return {"zero_stage": self.zero_stage, "precision": self.precision, "optimizer": self._optimizer_name}

    def _readable(self, directory: Path) -> dict[str, Any]:
        """The description beside a saved state, if this engine can read that state."""
        file = directory / ABOUT
        if not file.is_file():
            raise UserError(f"{file} is missing: {directory} holds no saved engine")
        about: dict[str, Any] = json.loads(file.read_text())
        for key, mine in self._identity().items():
            if about[key] != mine:
                raise UserError(f"{directory} was written with {key}={about[key]}, not {mine}; set it back")
        ranks = dist.get_world_size()
        if self.zero_stage and about["world_size"] != ranks:
            raise UserError(
                f"{directory} was written by {about['world_size']} ranks, this unit has {ranks}, and "
                f"deepspeed.zero_stage={self.zero_stage} splits its state over them; use {about['world_size']} again"
            )
        return about

    def _fingerprints(self) -> list[str]:
        mine = fingerprint(self.module)
        everyone: list[str] = [""] * dist.get_world_size()
        dist.all_gather_object(everyone, mine)
        return everyone

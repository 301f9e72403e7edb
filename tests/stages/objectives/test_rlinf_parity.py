"""Every case of RLinf's own numbers, computed by Baton's formulas.

Not compared: RLinf's metrics `actor/ratio_abs`, `policy_loss_abs`, `clipped_ratio` and the versions it averages,
which Baton does not report;
`behav_clip_fraction`, which counts the elements RLinf keeps per mask entry and falls below zero;
`critic/value_clip_ratio`, which compares after
clamping and so counts rounding errors. The permutation of `flatten_for_train` is the fixture's own.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stages.objectives import advantages as adv
from stages.objectives import losses
from stages.objectives.episodes import Episodes, episode_gae, episode_grpo
from stages.objectives.reductions import masked_mean, to_level

pytestmark = pytest.mark.parity

FOLDER = Path(os.environ.get("BATON_FIXTURES", Path(__file__).parents[3].parent / "shared" / "fixtures"))
FOUND = (FOLDER / "rlinf_algorithms.json").exists()
CASES: dict[str, dict] = json.loads((FOLDER / "rlinf_algorithms.json").read_text())["cases"] if FOUND else {}
GROUP_SIZE = 4


def named(prefix: str) -> list:
    """Cases below a prefix; without fixtures one skipped parameter says what is missing."""
    missing = pytest.param("", marks=pytest.mark.skip(reason=f"no rlinf_algorithms.json in {FOLDER}"))
    return [name for name in CASES if name.startswith(prefix)] or [missing]


class Case:
    """Arrays of one case as tensors."""

    def __init__(self, name: str, arrays: np.lib.npyio.NpzFile) -> None:
        """Remember where the case lies."""
        self.name, self.arrays, self.settings = name, arrays, CASES[name]

    def __call__(self, key: str) -> Tensor:
        """Read one array, as `in/rewards`."""
        return torch.tensor(self.arrays[f"{self.name}/{key}"])

    def has(self, key: str) -> bool:
        """Tell whether the case holds an array."""
        return f"{self.name}/{key}" in self.arrays.files


@pytest.fixture(scope="module")
def arrays():
    """The arrays of all cases."""
    with np.load(FOLDER / "rlinf_algorithms.npz") as loaded:
        yield loaded


def close(actual: Tensor, expected: Tensor, rtol: float = 2e-5, atol: float = 2e-6) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, check_dtype=False)


def to_steps(x: Tensor) -> Tensor:
    """[T, B, C] in chunks to [T * C, B] in steps."""
    return x.transpose(1, 2).reshape(-1, x.shape[1])


def dones_by_step(dones: Tensor) -> Tensor:
    """[T + 1, B, C] with an empty first chunk to [N + 1, B]."""
    chunk = dones.shape[2]
    return to_steps(dones)[chunk - 1 :]


def merge_epochs(x: Tensor, epochs: int) -> Tensor:
    """[E * t, B, C] to [t, E * B, C]: epochs become columns."""
    by_epoch = x.reshape(epochs, -1, *x.shape[1:]).transpose(0, 1)
    return by_epoch.reshape(by_epoch.shape[0], -1, x.shape[-1])


@pytest.mark.parametrize("name", named("loss_mask"))
def test_loss_mask(name, arrays):
    case = Case(name, arrays)
    mask = adv.first_episode_mask(dones_by_step(case("in/dones")))
    assert torch.equal(mask, to_steps(case("out/loss_mask")))
    assert torch.equal(mask.sum(0), case("out/loss_mask_sum")[0, :, 0])


@pytest.mark.parametrize("name", named("gae/"))
def test_gae(name, arrays):
    case = Case(name, arrays)
    settings = case.settings
    if settings["reward_type"] == "chunk_level":
        rewards, values = case("in/rewards").sum(-1), case("in/values")[..., 0]
        dones = case("in/dones").any(-1)
        mask = case("in/loss_mask").any(-1) if case.has("in/loss_mask") else None
        expected = case("out/advantages")[..., 0], case("out/returns")[..., 0]
    else:
        rewards, dones = to_steps(case("in/rewards")), dones_by_step(case("in/dones"))
        values = to_steps(case("in/values"))[: len(rewards) + 1]
        mask = to_steps(case("in/loss_mask")) if case.has("in/loss_mask") else None
        expected = to_steps(case("out/advantages")), to_steps(case("out/returns"))
    advantages, returns = adv.gae(rewards, values, dones, gamma=settings["gamma"], lam=settings["gae_lambda"])
    close(returns, expected[1])
    if settings["normalize_advantages"]:
        advantages = adv.normalise(advantages, mask)
    close(advantages, expected[0])


@pytest.mark.parametrize("name", [n for n in named("gae/chunk_level") if isinstance(n, str) and "raw" in n])
def test_gae_of_flat_episodes(name, arrays):
    """Cut each column at its dones: the flat layout must give the rectangle's numbers for every episode that ended."""
    case = Case(name, arrays)
    rewards, values, dones = case("in/rewards"), case("in/values")[..., 0], case("in/dones").any(-1)
    flat_rewards, flat_values, lengths, expected = [], [], [], []
    for column in range(rewards.shape[1]):
        begin = 0
        for end in (dones[1:, column].nonzero()[:, 0] + 1).tolist():
            flat_rewards.append(rewards[begin:end, column])
            flat_values.append(values[begin:end, column])
            expected.append(case("out/advantages")[begin:end, column, 0])
            lengths.append(end - begin)
            begin = end
    length = torch.tensor(lengths)
    ended = torch.ones(len(length), dtype=torch.bool)
    episodes = Episodes(length.cumsum(0) - length, length, ended, ~ended, torch.zeros(len(length)))
    flat = torch.cat(flat_rewards)
    lam = case.settings["gae_lambda"]
    executed = torch.ones_like(flat).bool()
    advantages, _ = episode_gae(flat, executed, torch.cat(flat_values), episodes, gamma=0.99, lam=lam)
    close(advantages, torch.cat(expected))


@pytest.mark.parametrize("name", named("grpo/"))
def test_grpo(name, arrays):
    case = Case(name, arrays)
    settings = case.settings
    rewards = merge_epochs(case("in/rewards_epoch_major"), settings["rollout_epoch"])
    dones = merge_epochs(case("in/dones_epoch_major"), settings["rollout_epoch"])
    assert torch.equal(rewards, case("out/rewards"))
    assert torch.equal(dones, case("out/dones"))
    step_rewards, step_dones = to_steps(rewards), dones_by_step(dones)
    step_mask = adv.first_episode_mask(step_dones)
    groups = torch.arange(rewards.shape[1]) // settings["group_size"]
    kept = torch.ones(rewards.shape[1], dtype=torch.bool)
    if settings["filter_rewards"]:
        kept = adv.informative_groups(
            (step_rewards * step_mask).sum(0), groups, lower=settings["lower"], upper=settings["upper"]
        )
    if settings["reward_type"] == "chunk_level":
        mask = (step_mask & kept).reshape(len(rewards), -1, rewards.shape[1]).any(1)
        scores = adv.first_episode_scores(rewards.sum(-1), dones.any(-1))
        expected_mask, expected = case("out/loss_mask")[..., 0], case("out/advantages")[..., 0]
    else:
        mask, scores = step_mask & kept, adv.first_episode_scores(step_rewards, step_dones)
        expected_mask, expected = to_steps(case("out/loss_mask")), to_steps(case("out/advantages"))
    assert torch.equal(mask, expected_mask)
    close(adv.group_relative(scores, groups) * mask, expected)


@pytest.mark.parametrize("name", [n for n in named("grpo/chunk_level") if isinstance(n, str)])
def test_grpo_of_flat_episodes(name, arrays):
    case = Case(name, arrays)
    settings = case.settings
    rewards, mask = case("out/rewards"), adv.first_episode_mask(dones_by_step(case("out/dones")))
    executed = mask.reshape(rewards.shape[0], rewards.shape[2], -1).transpose(1, 2)
    valid = executed.any(-1)
    length = valid.sum(0)
    ended = torch.ones(len(length), dtype=torch.bool)
    episodes = Episodes(length.cumsum(0) - length, length, ended, ~ended, torch.zeros(len(length)))
    columns = valid.T  # [B, T]: decisions of one episode side by side
    bounds = {"lower": settings["lower"], "upper": settings["upper"]} if settings["filter_rewards"] else {}
    advantages, kept = episode_grpo(
        rewards.transpose(0, 1)[columns],
        executed.transpose(0, 1)[columns],
        episodes,
        torch.arange(len(length)) // settings["group_size"],
        **bounds,
    )
    close(advantages, case("out/advantages")[..., 0].T[columns])
    assert torch.equal(kept, case("out/loss_mask")[..., 0].T[columns])


@pytest.mark.parametrize("name", named("bootstrap/"))
def test_bootstrap(name, arrays):
    case = Case(name, arrays)
    flags = case("in/dones" if case.settings["bootstrap_type"] == "always" else "in/truncations")[:, -1]
    if not case.settings["auto_reset"]:
        flags = torch.zeros_like(flags)
    close(
        adv.bootstrap_rewards(case("in/rewards"), flags, case("in/bootstrap_values")[:, 0], gamma=0.99),
        case("out/rewards"),
    )


@pytest.mark.parametrize("name", named("flatten_for_train"))
def test_flatten(name, arrays):
    """The rectangle's rows drop their last where T + 1 were stored, then decisions are shuffled by one permutation."""
    case = Case(name, arrays)
    decisions = len(case("in/perm"))
    for key in ("prev_logprobs", "prev_values", "dones", "x"):
        flat = case(f"in/{key}")[: case("in/x").shape[0]].flatten(0, 1)
        assert len(flat) == decisions
        assert torch.equal(flat[case("in/perm")], case(f"out/{key}"))


@pytest.mark.parametrize("name", named("loss/"))
def test_loss(name, arrays):
    case = Case(name, arrays)
    settings = case.settings
    level = settings["logprob_type"].removesuffix("_level")
    width = settings["single_action_dim"]
    per_step = settings["reward_type"] == "action_level"

    def tokens(key: str) -> Tensor:
        return case(f"in/{key}").unflatten(-1, (-1, width))

    def entries(key: str) -> Tensor:
        return case(f"in/{key}") if per_step else case(f"in/{key}")[:, 0]

    mask = entries("loss_mask") if case.has("in/loss_mask") else None
    masking: dict = {"aggregation": "per_mask_entry"}
    if settings["max_episode_steps"] is not None:
        share = entries("loss_mask_sum") / settings["max_episode_steps"]
        masking = {"aggregation": "episode_share", "episode_share": share}
    options = {
        "level": level,
        "clip_low": settings["clip_low"],
        "clip_high": settings["clip_high"],
        "dual_clip": settings.get("clip_ratio_c"),
    }
    log_probs, old = tokens("logprobs").requires_grad_(), tokens("old_logprobs")
    if settings["loss_type"] == "decoupled_actor_critic":
        if case.has("in/proximal_logprobs"):
            proximal = tokens("proximal_logprobs")
        elif case.has("in/versions"):
            # RLinf reads the version off the first token that a ratio spans; its `current_version` is one ahead.
            versions = tokens("versions")
            first = {"token": versions, "action": versions[..., :1], "chunk": versions[:, :1, :1]}[level]
            versions, current = first.expand_as(log_probs), settings["current_version"] - 1
            proximal = losses.interpolated_proximal(log_probs, old, versions, current)
        else:
            proximal = old
        loss, metrics = losses.decoupled_actor_loss(
            log_probs, old, proximal, entries("advantages"), mask,
            behave_weight_threshold=settings.get("behave_weight_threshold"), **options, **masking,
        )  # fmt: skip
    else:
        loss, metrics = losses.actor_loss(log_probs, old, entries("advantages"), mask, **options, **masking)
    expected = dict(zip(settings["metric_names"], case("out/metrics"), strict=True))
    close(metrics["policy_loss"], expected["actor/policy_loss"])
    if case.has("out/grad_values"):
        values = entries("values").requires_grad_()
        value_loss, value_metrics = losses.critic_loss(
            values, entries("prev_values"), entries("returns"), mask,
            value_clip=settings["value_clip"], huber_delta=settings["huber_delta"],
            **(masking if masking["aggregation"] == "episode_share" else {}),
        )  # fmt: skip
        loss = loss + value_loss
        close(value_metrics["value_loss"], expected["critic/value_loss"])
        close(value_metrics["explained_variance"], rlinf_explained_variance(expected), rtol=1e-4)
    close(loss, case("out/loss"))
    loss.backward()
    close(log_probs.grad.flatten(1), case("out/grad_logprobs"))
    if case.has("out/grad_values"):
        close(values.grad, case("out/grad_values").reshape(values.shape))
    if settings["loss_type"] != "decoupled_actor_critic":
        # RLinf divides these two by the entries of the mask before broadcasting when there is a mask.
        per_entry = 1.0 if mask is None else metrics_factor(level, per_step, width, log_probs.shape[1])
        close(metrics["approx_kl"] * per_entry, expected["actor/approx_kl"], rtol=1e-4, atol=1e-5)
        close(metrics["clip_fraction"] * per_entry, expected["actor/clip_fraction"])
        # Its ratio is a true mean, except where a mask of chunks meets ratios of actions.
        chunk_mask_of_actions = level == "action" and not per_step
        close(metrics["ratio_mean"] * (per_entry if chunk_mask_of_actions else 1), expected["actor/ratio"])


def metrics_factor(level: str, per_step: bool, width: int, steps: int) -> int:
    """Elements that one mask entry covers."""
    elements = {"token": steps * width, "action": steps, "chunk": 1}[level]
    return elements // steps if per_step else elements


def rlinf_explained_variance(metrics: dict[str, Tensor]) -> Tensor:
    sums = {key.rsplit("/", 1)[1]: value for key, value in metrics.items() if key.startswith("__sum__/_critic")}
    count = sums["count"]
    errors = sums["errors_sq_sum"] / count - (sums["errors_sum"] / count) ** 2
    return 1 - errors / (sums["returns_sq_sum"] / count - (sums["returns_sum"] / count) ** 2)


@pytest.mark.parametrize("name", named("entropy_logprob"))
def test_entropy_and_log_probs(name, arrays):
    case = Case(name, arrays)
    log_probs, entropy = losses.categorical(case("in/logits"), case("in/tokens"))
    close(log_probs, case("out/logprobs"))
    close(entropy, case("out/entropy"))
    per_token = entropy.unflatten(-1, (4, 3))
    close(to_level(per_token, "action"), case("out/entropy_action_level"))
    close(to_level(per_token, "chunk"), case("out/entropy_chunk_level"))
    close(masked_mean(entropy, None), case("out/mean_unmasked"))


@pytest.mark.parametrize("name", named("kl_penalty"))
@pytest.mark.parametrize(("ours", "theirs"), [("k1", "kl"), ("abs", "abs"), ("k2", "mse"), ("k3", "low_var_kl")])
def test_kl(name, ours, theirs, arrays):
    case = Case(name, arrays)
    close(losses.kl_penalty(case("in/logprob"), case("in/ref"), ours), case(f"out/{theirs}"))


def test_no_case_is_left_out():
    if not FOUND:
        pytest.skip(f"no rlinf_algorithms.json in {FOLDER}; set BATON_FIXTURES")
    tested = ("loss_mask", "gae/", "grpo/", "bootstrap/", "flatten_for_train", "loss/", "entropy_logprob", "kl_penalty")
    assert [name for name in CASES if not name.startswith(tested)] == []

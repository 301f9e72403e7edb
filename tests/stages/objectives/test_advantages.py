"""Properties of the advantages that hold whatever the numbers are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.objectives.advantages import bootstrap_rewards, gae, group_relative, informative_groups, normalise
from stages.objectives.episodes import Episodes, decision_rewards, episode_gae, episode_grpo

seeds = st.integers(0, 2**31)
lengths = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def random_shard(seed: int, episode_lengths: list[int], chunk: int = 3):
    draw = torch.Generator().manual_seed(seed)
    length = torch.tensor(episode_lengths)
    decisions, count = int(length.sum()), len(length)
    truncated = torch.rand(count, generator=draw) < 0.5
    bootstrap = torch.randn(count, generator=draw, dtype=torch.float64)
    episodes = Episodes(length.cumsum(0) - length, length, ~truncated, truncated, bootstrap)
    rewards = torch.randn(decisions, chunk, generator=draw, dtype=torch.float64)
    executed = torch.arange(chunk) < torch.randint(1, chunk + 1, (decisions, 1), generator=draw)
    return rewards, executed, torch.randn(decisions, generator=draw, dtype=torch.float64), episodes


@settings(max_examples=60, deadline=None)
@given(seeds, lengths, st.floats(0, 1))
def test_gae_with_lambda_one_is_the_discounted_return_minus_the_value(seed, episode_lengths, gamma):
    rewards, executed, values, episodes = random_shard(seed, episode_lengths)
    advantages, returns = episode_gae(rewards, executed, values, episodes, gamma=gamma, lam=1.0)
    per_decision = decision_rewards(rewards, executed)
    for e, (start, length) in enumerate(zip(episodes.start.tolist(), episodes.length.tolist(), strict=True)):
        total = episodes.bootstrap_value[e] if episodes.truncated[e] else torch.zeros((), dtype=torch.float64)
        for d in reversed(range(start, start + length)):
            total = per_decision[d] + gamma * total
            torch.testing.assert_close(returns[d], total)
            torch.testing.assert_close(advantages[d], total - values[d])


@settings(max_examples=60, deadline=None)
@given(seeds, lengths, st.floats(0, 1), st.floats(0, 1))
def test_episodes_do_not_see_one_another(seed, episode_lengths, gamma, lam):
    rewards, executed, values, episodes = random_shard(seed, episode_lengths)
    together, _ = episode_gae(rewards, executed, values, episodes, gamma=gamma, lam=lam)
    for e, (start, length) in enumerate(zip(episodes.start.tolist(), episodes.length.tolist(), strict=True)):
        here, one = slice(start, start + length), slice(e, e + 1)
        alone = Episodes(
            torch.zeros(1, dtype=torch.long), episodes.length[one], episodes.terminated[one], episodes.truncated[one],
            episodes.bootstrap_value[one],
        )  # fmt: skip
        expected, _ = episode_gae(rewards[here], executed[here], values[here], alone, gamma=gamma, lam=lam)
        torch.testing.assert_close(together[here], expected)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0, 1))
def test_gae_with_lambda_zero_is_the_one_step_error(seed, gamma):
    draw = torch.Generator().manual_seed(seed)
    rewards = torch.randn(5, 3, generator=draw)
    values = torch.randn(6, 3, generator=draw)
    dones = torch.rand(6, 3, generator=draw) < 0.3
    advantages, _ = gae(rewards, values, dones, gamma=gamma, lam=0.0)
    torch.testing.assert_close(advantages, rewards + gamma * values[1:] * ~dones[1:] - values[:-1])


def test_termination_forbids_the_bootstrap_even_when_the_limit_falls_on_the_same_step():
    rewards, executed, values, cut = random_shard(0, [2])
    both = Episodes(cut.start, cut.length, torch.tensor([True]), torch.tensor([True]), torch.tensor([100.0]))
    ended = Episodes(cut.start, cut.length, torch.tensor([True]), torch.tensor([False]), torch.tensor([100.0]))
    with_both, _ = episode_gae(rewards, executed, values, both, gamma=0.9, lam=0.9)
    without, _ = episode_gae(rewards, executed, values, ended, gamma=0.9, lam=0.9)
    assert torch.equal(with_both, without)


def test_steps_that_never_ran_earn_nothing():
    rewards = torch.tensor([[1.0, 2.0, float("nan")]])
    assert decision_rewards(rewards, torch.tensor([[True, True, False]])).item() == 3.0


@pytest.mark.parametrize(
    ("start", "length"),
    [([0, 3], [2, 2]), ([0, 2], [2, 1]), ([0, 2], [2, 3]), ([0, 2, 2], [2, 0, 2]), ([1, 3], [2, 1])],
)
def test_episodes_that_do_not_cover_the_decisions_are_refused(start, length):
    ended = torch.ones(len(start), dtype=torch.bool)
    episodes = Episodes(torch.tensor(start), torch.tensor(length), ended, ~ended, torch.zeros(len(start)))
    with pytest.raises(ValueError, match="end to end over 4 decisions"):
        episodes.of_decision(4)


def test_an_episode_without_an_end_is_refused():
    rewards, executed, values, whole = random_shard(3, [2, 2])
    no = torch.zeros(2, dtype=torch.bool)
    endless = Episodes(whole.start, whole.length, torch.tensor([True, False]), no, whole.bootstrap_value)
    with pytest.raises(ValueError, match="episode 1 neither terminated nor was truncated"):
        episode_gae(rewards, executed, values, endless, gamma=0.9, lam=0.9)


@settings(max_examples=60, deadline=None)
@given(st.floats(-100, 100, width=32), st.integers(1, 9), st.integers(1, 4))
def test_equal_scores_give_no_advantage(score, size, count):
    scores = torch.full((size * count,), score)
    assert torch.equal(group_relative(scores, torch.arange(size * count) % count), torch.zeros(size * count))


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 6), st.integers(1, 4))
def test_a_group_is_centred_and_scaled_wherever_its_episodes_lie(seed, size, count):
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(size * count, generator=draw, dtype=torch.float64)
    groups = (torch.arange(size * count) % count)[torch.randperm(size * count, generator=draw)] * 17 - 5
    advantages = group_relative(scores, groups)
    for group in groups.unique():
        mine = scores[groups == group]
        torch.testing.assert_close(advantages[groups == group], (mine - mine.mean()) / (mine.std() + 1e-6))


def test_groups_outside_the_bounds_are_left_out_and_the_bounds_belong_to_the_inside():
    scores, groups = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]), torch.tensor([7, 7, 3, 3, 5, 5])
    assert informative_groups(scores, groups, lower=0.1, upper=0.9).tolist() == [False, False, True, True, False, False]
    assert informative_groups(scores, groups, lower=0.5, upper=1.0).tolist() == [False, False, True, True, True, True]


def test_grpo_gives_all_decisions_of_an_episode_its_advantage():
    rewards = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [9.0, 0.0]])
    executed = torch.tensor([[True, True]] * 4 + [[False, False]])
    length = torch.tensor([2, 3])
    ended = torch.ones(2, dtype=torch.bool)
    episodes = Episodes(torch.tensor([0, 2]), length, ended, ~ended, torch.zeros(2))
    advantages, kept = episode_grpo(rewards, executed, episodes, torch.tensor([4, 4]))
    torch.testing.assert_close(advantages, torch.tensor([0.5, 0.5, -0.5, -0.5, -0.5]) / 0.5**0.5, rtol=1e-5, atol=0)
    assert kept.all()
    advantages, kept = episode_grpo(rewards, executed, episodes, torch.tensor([4, 4]), upper=0.4)
    assert not kept.any()
    assert not advantages.any()
    _, kept = episode_grpo(
        rewards, executed, episodes, torch.tensor([4, 4]), upper=0.4, judged_by=torch.tensor([False, False])
    )
    assert kept.all()


def test_normalising_counts_valid_entries_only():
    advantages = torch.tensor([1.0, 2.0, 3.0, 1000.0])
    normal = normalise(advantages, torch.tensor([True, True, True, False]))
    torch.testing.assert_close(normal[:3], torch.tensor([-1.0, 0.0, 1.0]), rtol=1e-4, atol=1e-6)
    assert normal[3] > 900
    assert normalise(torch.tensor([5.0])).tolist() == [0.0]


def test_bootstrap_touches_only_the_last_step_of_flagged_rows():
    rewards = torch.zeros(2, 3)
    added = bootstrap_rewards(rewards, torch.tensor([True, False]), torch.tensor([2.0, float("nan")]), gamma=0.5)
    assert added.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert not rewards.any()

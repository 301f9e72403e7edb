"""The household as Gymnasium environments: the interface's numbers, an action a step, and gymnasium's own checks."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from stages.simulators import interface
from stages.simulators.household import catalogue, gym, rendering
from stages.simulators.interface import HELD_OUT, Episode, SimulatorConfigError

SMALL = {"renderer": "raycast", "image_size": 32}
FIRST_OF_SUITE = [names[0] for names in catalogue.suites().values()]


def identity(task):
    entry = catalogue.entries()[task]
    return f"household/{entry.suite.capitalize()}-{entry.index}-v0"


def make(task="stack", **options):
    return gymnasium.make(identity(task), **{**SMALL, **options})


def same(one, other):
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def actions(count):
    return np.random.default_rng(0).uniform(-1, 1, (count, 14)).astype(np.float32)


def test_every_task_has_an_id():
    registered = {spec.id: spec.kwargs["task"] for spec in gymnasium.registry.values() if spec.namespace == "household"}
    assert registered == {identity(task): task for task in catalogue.entries()}
    assert registered["household/Practice-1-v0"] == "stack"


@pytest.mark.parametrize("task", catalogue.entries())
def test_every_task_can_be_acted_in_and_says_what_is_asked(task):
    env = make(task)
    seen, info = env.reset(seed=0)
    assert seen in env.observation_space
    assert info["instruction"] == env.unwrapped.instruction == catalogue.entries()[task].instruction
    assert not info["success"]
    seen, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert seen in env.observation_space
    assert (reward, terminated, truncated, info["success"]) == (0, False, False, False)
    env.close()


@pytest.mark.parametrize("task", FIRST_OF_SUITE)
def test_gymnasium_has_nothing_to_say_against_it(task):
    env = make(task, reward="dense", render_mode="rgb_array", spread=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()
    env.close()


def test_the_id_brings_the_module_along_in_a_process_that_has_not_imported_it():
    program = """
import gymnasium
env = gymnasium.make("stages.simulators.household.gym:household/Practice-0-v0", renderer="raycast", image_size=32)
print(env.reset(seed=0)[1]["instruction"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "put the red cube on the plate\n"


def test_steps_are_the_simulators_own_until_the_expert_has_solved_the_task():
    simulator = interface.make("household", 1, {**SMALL, "tasks": ["stack"]})
    seed = HELD_OUT + 3
    simulator.reset([0], [Episode("stack", seed)], [False])
    taken, _, result = simulator.expert_chunk([0], 80)
    assert result.success[0]
    steps = result.executed.sum()
    simulator.reset([0], [Episode("stack", seed)], [False])

    env = make()
    seen, info = env.reset(options={"split": "evaluation", "index": 3})
    assert (info["seed"], info["split"]) == (seed, "evaluation")
    for step in range(steps):
        expected = simulator.observe([0])
        assert (seen["head"] == expected.head[0].transpose(1, 2, 0)).all()
        assert (seen["left_wrist"] == expected.wrist[0, 0].transpose(1, 2, 0)).all()
        assert (seen["right_wrist"] == expected.wrist[0, 1].transpose(1, 2, 0)).all()
        assert (seen["proprio"] == expected.proprio[0]).all()
        simulator.step_chunk([0], taken[:, step : step + 1])
        seen, reward, terminated, truncated, info = env.step(taken[0, step])
        last = step == steps - 1
        assert (reward, terminated, truncated, info["success"]) == (float(last), last, False, last)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(taken[0, 0])


def test_resets_draw_from_one_split_only_and_the_same_again_for_the_same_seed():
    def drawn(env, **options):
        begun = [env.reset(seed=7, options=options)[1]] + [env.reset(options=options)[1] for _ in range(8)]
        return [info["seed"] for info in begun], {info["split"] for info in begun}

    training, held_out = make(), make(split="evaluation")
    seeds, splits = drawn(training)
    assert splits == {"train"}
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < HELD_OUT
    assert drawn(training) == (seeds, splits)
    seeds, splits = drawn(training, split="evaluation")
    assert splits == {"evaluation"}
    assert min(seeds) >= HELD_OUT
    assert drawn(held_out) == (seeds, splits)
    assert training.reset()[1]["split"] == "train"


def test_a_state_comes_back_in_another_environment_bit_for_bit():
    env, other = make(reward="dense"), make(reward="dense")
    env.reset(seed=1)
    moves = actions(12)
    for move in moves[:6]:
        here, *_, told = env.step(move)
    state = env.unwrapped.save_state()
    further = [env.step(move) for move in moves[6:]]
    other.reset(seed=2)
    seen, info = other.unwrapped.restore_state(state)
    assert same(seen, here)
    assert info == told
    for move, (seen, reward, *ended) in zip(moves[6:], further, strict=True):
        again, reward_again, *ended_again = other.step(move)
        assert same(again, seen)
        assert (reward_again, ended_again) == (reward, ended)
    with pytest.raises(
        SimulatorConfigError, match="state is of the task 'stack', the environment of 'pick_onto_plate'"
    ):
        make("pick_onto_plate").unwrapped.restore_state(state)


def test_only_the_chosen_cameras_are_observed():
    env = make(wrist_cameras=1)
    seen, _ = env.reset(seed=0)
    assert seen in env.observation_space
    assert list(seen) == ["head", "left_wrist", "proprio"]
    whole, _ = make().reset(seed=0)
    assert (seen["left_wrist"] == whole["left_wrist"]).all()


def test_the_step_limit_is_the_environments_own():
    env = make(step_limit=3)
    assert env.unwrapped.step_limit == 3
    env.reset(seed=0)
    idle = np.zeros(14, np.float32)
    assert [env.step(idle)[3] for _ in range(3)] == [False, False, True]


def test_frames_show_what_an_audience_sees():
    env = make(render_mode="rgb_array", action_frequency=10, rendering_frequency=10)
    assert env.metadata["render_fps"] == 10
    env.reset(seed=0)
    first = env.render()
    assert (first.dtype, first.shape) == (np.uint8, (448, 672, 3))
    for move in actions(5):
        env.step(move)
    assert (env.render() != first).any()
    blind = make()
    blind.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert blind.unwrapped.render() is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "test"}, "split is 'test'; it must be one of: train, evaluation"),
        ({"image_size": 0}, "image_size is 0; it must be an integer from 32 to 1024"),
        ({"rewards": "dense"}, "no option 'rewards', did you mean 'reward'?"),
        ({"task": "stak"}, "tasks has no 'stak', did you mean 'stack'?"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(wrong, message):
    with pytest.raises(SimulatorConfigError) as caught:
        make(**{"task": "stack", **wrong}) if "task" not in wrong else gym.HouseholdEnv(**wrong)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "both"}, "split is 'both'"),
        ({"index": -1}, "index is -1; it must be an integer from 0"),
        ({"index": HELD_OUT}, f"index is {HELD_OUT}"),
        ({"seed": 3}, "reset has no option 'seed'; valid: split, index"),
    ],
)
def test_a_wrong_option_of_reset_is_told_in_one_line(wrong, message):
    with pytest.raises(SimulatorConfigError) as caught:
        make().reset(options=wrong)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_action_of_another_shape_is_refused():
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="14"):
        env.step(np.zeros(7, np.float32))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_rows_of_environments_see_what_each_sees_alone(mode):
    row = gymnasium.make_vec(identity("stack"), num_envs=2, vectorization_mode=mode, **SMALL)
    seen, _ = row.reset(seed=[5, 6])
    after, *_ = row.step(actions(2))
    for number, seed in enumerate((5, 6)):
        alone = make()
        assert same(alone.reset(seed=seed)[0], {name: part[number] for name, part in seen.items()})
        assert same(alone.step(actions(2)[number])[0], {name: part[number] for name, part in after.items()})
    row.close()


OPENGL = rendering.choose("auto")


@pytest.mark.skipif(OPENGL == "raycast", reason="there is no OpenGL here")
def test_opengl_serves_several_environments_of_a_process():
    large, small = make(renderer=OPENGL, image_size=512), make(renderer=OPENGL)
    expected = large.reset(seed=1)[0]
    small.reset(seed=1)
    assert same(large.reset(seed=1)[0], expected)
    small.close()
    assert same(large.reset(seed=1)[0], expected)


@pytest.mark.skipif(OPENGL == "raycast", reason="there is no OpenGL here")
@pytest.mark.parametrize("drawn_before", [False, True])
def test_forked_environments_draw_or_say_why_not(drawn_before):
    program = f"""
import gymnasium
import stages.simulators.household.gym
kinds = {{"renderer": {OPENGL!r}, "image_size": 32}}
if {drawn_before}:
    env = gymnasium.make("household/Practice-1-v0", **kinds)
    env.reset(seed=0)
row = gymnasium.make_vec("household/Practice-1-v0", num_envs=2, vectorization_mode="async", **kinds)
try:
    print("drawn", row.reset(seed=0)[0]["head"].shape)
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    expected = "OpenGL does not survive a fork" if drawn_before else "drawn (2, 32, 32, 3)"
    assert expected in done.stdout

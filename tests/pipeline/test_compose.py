"""Composing configs: what wins, and what each mistake is answered with."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compose import compose
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.resolve import resolve
from pipeline.resources import options as slurm_options
from pipeline.validation import dump, fields, parse


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def complaint(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        compose(path, overrides)
    return str(caught.value)


def test_an_empty_file_gives_the_defaults_and_its_own_name(tmp_path):
    config = compose(write(tmp_path, "first.yaml", "# nothing\n"))
    assert config == resolve(Config(name="first"))
    assert (config.sft.processes, config.update.processes) == (1, 1)


def test_later_sources_win(tmp_path):
    write(tmp_path, "bases/far.yaml", "name: far\nseed: 1\nepochs: 1\nsft: {steps: 1, batch: 1}\n")
    write(tmp_path, "bases/near.yaml", "extends: far.yaml\nepochs: 2\nsft: {steps: 2}\n")
    write(tmp_path, "other.yaml", "sft: {warmup_steps: 7}\n")
    recipe = write(tmp_path, "recipe.yaml", "extends: [bases/near.yaml, other.yaml]\nsft: {steps: 3}\n")
    simulator = ["simulator.name=lab.worlds", "simulator.tasks=[a, b]"]
    config = compose(recipe, ["sft.steps=4", "sft.steps=5", *simulator, "policy.checkpoint=null"])
    assert (config.name, config.seed, config.epochs) == ("recipe", 1, 2)
    assert (config.sft.steps, config.sft.batch, config.sft.warmup_steps) == (5, 1, 7)
    assert (config.simulator.tasks, config.policy.checkpoint) == (["a", "b"], None)


def test_lists_and_placements_are_replaced_and_blocks_merged(tmp_path):
    write(
        tmp_path,
        "base.yaml",
        "simulator: {name: lab.worlds, tasks: [a, b], options: {x: 1}}\ncluster: {num_nodes: 2}\n",
    )
    recipe = write(
        tmp_path,
        "r.yaml",
        "extends: base.yaml\nsimulator: {tasks: [c], options: {y: 2}}\n"
        "cluster: {component_placement: {env: 0-3, 'rollout,actor': 4-7}}\nrollout: {shards: 4}\n",
    )
    config = compose(recipe)
    assert config.simulator.tasks == ["c"]
    assert config.simulator.options == {"x": 1, "y": 2}
    assert config.cluster.num_nodes == 2
    assert config.cluster.component_placement == {"env": "0-3", "rollout,actor": "4-7"}
    changed = compose(recipe, ["cluster.component_placement.env=4-7", "cluster.num_nodes=1"])
    assert changed.cluster.component_placement == {"env": "4-7", "rollout,actor": "4-7"}
    single = [f"cluster.component_placement.{name}=0" for name in ("env", "rollout", "actor")]
    fresh = compose(write(tmp_path, "plain.yaml", ""), single)
    assert fresh.cluster.component_placement == {"env": 0, "rollout": 0, "actor": 0}
    both = compose(recipe, ["cluster.component_placement={'env,rollout,actor': 0-7}", "rollout.shards=8"])
    assert both.cluster.component_placement == {"env,rollout,actor": "0-7"}


def test_a_composed_config_is_a_resolved_one(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "cluster: {component_placement: {env: 0-1:0-3, rollout: 2-3, actor: all}}\nrollout: {shards: 2}\n"
    )
    found = compose(recipe)
    assert found.update.processes == 4
    with pytest.raises(UserError, match=r"r\.yaml with update\.processes=2: update\.processes=2, but .* 4 GPUs"):
        compose(recipe, ["update.processes=2"])


@pytest.mark.parametrize(("env", "rollout", "shards"), [("0-1:0-3", "2-3", 2), ("1:0", "0", 1)])
def test_unquoted_placements_come_through_as_text(tmp_path: Path, env: str, rollout: str, shards: int) -> None:
    """YAML 1.1 reads 1:0 as a number to the base 60."""
    rest = f"rollout: {rollout}, actor: 0-1"
    recipe = write(tmp_path, "r.yaml", f"cluster: {{component_placement: {{env: {env}, {rest}}}}}\n")
    assert compose(recipe, [f"rollout.shards={shards}"]).cluster.component_placement["env"] == env
    block = f"    actor: 0-1\n    rollout: {rollout}\n    env: {env}\n"
    write(tmp_path, "r.yaml", f"cluster:\n  component_placement:\n{block}")
    assert compose(recipe, [f"rollout.shards={shards}"]).cluster.component_placement["env"] == env
    whole = f"cluster.component_placement={{env: {env}, {rest}}}"
    write(tmp_path, "r.yaml", f"rollout: {{shards: {shards}}}\n")
    assert compose(recipe, [whole]).cluster.component_placement["env"] == env
    apart = [f"cluster.component_placement={{{rest}}}", f"cluster.component_placement.env={env}"]
    found = compose(recipe, apart)
    assert found.cluster.component_placement["env"] == env
    assert parse(dump(found)) == found


def test_a_placement_is_read_as_written_also_where_it_is_wrong(tmp_path: Path) -> None:
    recipe = write(tmp_path, "r.yaml", "cluster: {component_placement: {env: 0:3, rollout: 0, actor: 0}}\n")
    for overrides in ([], ["cluster.component_placement.env=0:3"], ["cluster.component_placement={env: 0:3}"]):
        with pytest.raises(
            UserError, match=r"cluster\.component_placement\.env = '0:3': the processes of 0:3 begin at 3"
        ):
            compose(recipe, overrides)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("4:00:00", 240), ("1:30", 2), ("1-2:3", 1563), ("90", 90)],
)
def test_unquoted_times_come_through_as_slurm_reads_them(tmp_path: Path, text: str, minutes: int) -> None:
    recipe = tmp_path / "r.yaml"
    for yaml in (f"slurm: {{update: {{time: {text}}}}}\n", f"slurm:\n  update:\n    time: {text}  # a limit\n"):
        recipe.write_text(yaml)
        assert slurm_options(compose(recipe), "update").time == minutes
    recipe.write_text("slurm: {update: {time: 1}}\n")
    for override in (f"slurm.update.time={text}", f"slurm.update={{time: {text}, mem: 1G}}"):
        assert slurm_options(compose(recipe, [override]), "update").time == minutes


def test_a_time_may_have_an_anchor(tmp_path: Path) -> None:
    recipe = write(tmp_path, "r.yaml", "slurm: {update: {time: &long 4:00:00}, sft: {time: *long}}\n")
    found = compose(recipe)
    assert (slurm_options(found, "update").time, slurm_options(found, "sft").time) == (240, 240)


def test_wrong_times_and_memory_are_refused_where_they_stand(tmp_path: Path) -> None:
    recipe = write(tmp_path, "r.yaml", "slurm:\n  time: soon\n  update:\n    mem: much\n")
    with pytest.raises(UserError) as caught:
        compose(recipe)
    time, memory = str(caught.value).splitlines()
    assert "r.yaml:2: slurm.time = 'soon': 'soon' is no time limit: write minutes, HH:MM:SS or D-HH:MM:SS" in time
    assert "r.yaml:4: slurm.update.mem = 'much': 'much' is no amount of memory" in memory


def test_interpolation_sees_defaults_and_overrides(tmp_path):
    recipe = write(tmp_path, "r.yaml", "sft: {batch: '${update.minibatch}'}\nevaluate: {num_envs: '${sft.steps}'}\n")
    config = compose(recipe, ["sft.steps=9"])
    assert config.sft.batch == Config(name="x").update.minibatch
    assert config.evaluate.num_envs == 9


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("epoch: 3\n", [], ["r.yaml:1: unknown key epoch; did you mean epochs?", "Known at the top: name, runs_dir"]),
        ("sft:\n  steps: 4\n  bach: 3\n", [], ["r.yaml:3: unknown key sft.bach", "did you mean sft.batch?", "steps"]),
        ("lr: 3\n", [], ["unknown key lr; did you mean sft.optimizer.lr or update.optimizer.lr?"]),
        ("", ["rollout.num_env=3"], ["override rollout.num_env=3: unknown key", "did you mean rollout.num_envs?"]),
        ("epochs: -1\n", [], ["r.yaml:1: epochs = -1: must be greater than or equal to 0 (RL iterations"]),
        ("epochs: 3\n", ["epochs=many"], ["override epochs=many: epochs = 'many': must be a valid integer"]),
        (
            "keep:\n  policies: some\n",
            [],
            ["r.yaml:2: keep.policies = 'some': must be 'all' or must be a valid int"],
        ),
        (
            "policy: {precision: fp8}\n",
            [],
            ["policy.precision = 'fp8': must be 'fp32', 'mixed' or 'bf16' (fp32; mixed"],
        ),
        ("sft: 5\n", [], ["r.yaml:1: sft = 5: must be a block of key: value lines"]),
        ("simulator:\n  physics_frequency: 201\n", [], ["r.yaml:1: physics_frequency 201 is not a multiple of"]),
        ("epochs: 1\n", ["rollout.shards=7"], ["r.yaml with rollout.shards=7: rollout.episodes=64 is not a multiple"]),
        ("seed: 1\nseed: 2\n", [], ["r.yaml:2: not YAML: found duplicate key seed"]),
        ("sft:\n  steps: [1\nepochs: 2\n", [], ["r.yaml:3: not YAML", "check indentation, quotes and brackets"]),
        ("sft:\n\tsteps: 1\n", [], ["r.yaml:2: not YAML"]),
        ("- epochs\n", [], ["r.yaml: must hold `key: value` lines"]),
        ("seed: ${nowhere.at.all}\n", [], ["r.yaml:1: seed: Interpolation key 'nowhere.at.all' not found"]),
        ("seed: ${epochs}\nepochs: ${seed}\n", [], ["r.yaml:", "Recursive interpolation"]),
        ("seed: ${epochs\n", [], ["r.yaml:1: seed: "]),
        ("seed: ???\n", [], ["r.yaml:1: seed = ??? is left open; add seed=..."]),
        ("extends: 3\n", [], ["r.yaml: extends = 3: must be a file or a list of files"]),
        ("extends: r.yaml\n", [], ["extends goes in a circle", "r.yaml -> "]),
        ("extends: nowhere.yaml\n", [], ["nowhere.yaml (extended by ", "no such file", "configs in ", ": r.yaml"]),
        ("", ["epochs"], ["override epochs: not of the form key=value"]),
        ("", ["=3"], ["override =3: not of the form key=value"]),
        ("", ["sft..steps=3"], ["not of the form key=value"]),
        ("", ["simulator.tasks=[a"], ["override simulator.tasks=[a: the value '[a' cannot be read"]),
        ("5: 3\n", [], ["unknown key 5"]),
        ("name: 'no spaces'\n", [], ["r.yaml:1: name = 'no spaces': must match pattern"]),
    ],
)
def test_a_mistake_is_answered_with_place_value_and_remedy(tmp_path, text, overrides, expected):
    message = complaint(write(tmp_path, "r.yaml", text), *overrides)
    assert len(message.splitlines()) == 1
    for part in expected:
        assert part in message


def test_several_problems_get_a_line_each(tmp_path):
    recipe = write(tmp_path, "r.yaml", "epochs: -1\nsft:\n  step: 3\n")
    lines = complaint(recipe, "rollout.temperature=0").splitlines()
    assert len(lines) == 3
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines] == [
        "r.yaml:1",
        "r.yaml:3",
        "override rollout.temperature=0",
    ]


def test_a_problem_in_a_base_names_the_base(tmp_path):
    write(tmp_path, "base.yaml", "seed: 0\nepochs: none\n")
    assert "base.yaml:2: epochs = 'none'" in complaint(write(tmp_path, "r.yaml", "extends: base.yaml\nseed: 1\n"))


def test_bases_in_a_circle_are_refused_but_one_base_may_be_reached_twice(tmp_path):
    write(tmp_path, "a.yaml", "extends: b.yaml\n")
    write(tmp_path, "b.yaml", "extends: a.yaml\n")
    assert "a.yaml -> " in complaint(tmp_path / "a.yaml")
    write(tmp_path, "root.yaml", "seed: 3\n")
    write(tmp_path, "left.yaml", "extends: root.yaml\n")
    write(tmp_path, "right.yaml", "extends: root.yaml\nepochs: 4\n")
    assert compose(write(tmp_path, "r.yaml", "extends: [left.yaml, right.yaml]\n")).seed == 3


def test_a_missing_file_names_what_is_there(tmp_path):
    write(tmp_path, "one.yaml", "")
    assert f"configs in {tmp_path}: one.yaml" in complaint(tmp_path / "two.yaml")
    assert "there is no directory" in complaint(tmp_path / "nowhere" / "two.yaml")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in complaint(path)


def test_a_file_name_that_makes_no_run_name_is_refused(tmp_path):
    assert "must match pattern" in complaint(write(tmp_path, "my recipe.yaml", ""))


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
options = st.dictionaries(text, nested, max_size=4)


@settings(deadline=None, max_examples=25)  # the machine may be busy
@given(
    tasks=st.lists(text, min_size=1, max_size=3, unique=True),
    options=options,
    lr=st.floats(min_value=1e-300, max_value=1e300),
    keep=st.just("all") | st.integers(1, 10**6),
    placement=st.dictionaries(text, text, max_size=3),
)
def test_dump_and_parse_are_inverse(tasks, options, lr, keep, placement):
    config = Config.model_validate(
        {
            "name": "a",
            "simulator": {"name": "lab.worlds", "tasks": tasks, "options": options},  # which takes what it likes
            "rollout": {"episodes": 6 * len(tasks)},
            "sft": {"optimizer": {"lr": lr}},
            "keep": {"policies": keep},
            "cluster": {"component_placement": placement},
        }
    )
    again = parse(dump(config))
    assert again == config
    assert dump(again) == dump(config)


def test_dump_holds_every_field_in_the_order_of_the_schema():
    lines = dump(Config(name="a")).splitlines()
    top = [line.split(":")[0] for line in lines if line[0].isalpha()]
    assert top == list(Config.model_fields)


def test_parse_names_its_place_and_line():
    with pytest.raises(UserError, match=r"runs/a/config.yaml:2: epochs = 'x'"):
        parse("name: a\nepochs: x\n", "runs/a/config.yaml")


def test_every_field_is_described():
    assert [".".join(keys) for keys, field in fields() if not field.description] == []

"""Nothing wrong gets into a shard, and nothing wrong is read from one."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts import publish
from pipeline.errors import UserError
from stages.simulators.interface import HELD_OUT, split_of
from stages.trajectories import InconsistentEpisode, ShardSpec, ShardWriter, concatenate, read, schema


@pytest.fixture(scope="module")
def sound(spec, attributes, make_episode, tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "shard"
    with pytest.MonkeyPatch.context() as smaller:  # files than are written otherwise: two for images
        smaller.setattr(schema, "DECISIONS_PER_FILE", (64, 64))
        with ShardWriter(path, spec, attributes) as writer:
            writer.append(make_episode(spec, 70, 1))
            writer.append(make_episode(spec, 3, 2))
    return path


@pytest.fixture
def shard(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "shard")


def edit(array, index, value):
    # False everywhere is what zarr takes an absent file for; it must be written all the same.
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_array(array, mode="r+")[index] = value


def put(value, *index):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


def test_a_robot_without_wrist_cameras_has_no_pictures_of_them(attributes, make_episode, tmp_path):
    two = ShardSpec("tokens", image_size=(6, 8), proprio_dim=4, chunk=3, action_dim=5)
    none = dataclasses.replace(two, wrist_cameras=0)
    with ShardWriter(tmp_path / "s", none, attributes) as writer:
        writer.append(make_episode(none, 2, 1))
        with pytest.raises(InconsistentEpisode) as refused:
            writer.append(make_episode(two, 2, 1))
    assert str(refused.value) == (
        "observations/wrist: the shard is of a robot without wrist cameras, got [2, 2, 3, 6, 8]"
    )
    with pytest.raises(ValueError, match=r"^wrist_cameras is 3: it must be 0, 1 or 2$"):
        dataclasses.replace(two, wrist_cameras=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"head": lambda a: a[:, :, 1:]},
            r"observations/head: expected uint8 \[5, 3, 6, 8\], got uint8 \[5, 3, 5",
        ),
        ({"wrist": lambda a: a[:4]}, r"observations/wrist: expected uint8 \[5, 2, 3, 6, 8\], got uint8 \[4"),
        ({"tokens": lambda a: a.astype(np.int64)}, "actions/tokens: expected int16 .* got int64"),
        ({"values": None}, "values: expected float32 .* got NoneType"),
        ({"clean": np.ones((5, 3), bool)}, "clean: a shard of kind 'tokens' has none"),
        ({"proprio": put(np.nan, 2, 0)}, "observations/proprio: decision 2 is not finite"),
        ({"log_probs": put(-np.inf, 3, 0, 0)}, "log_probs: decision 3 is not finite"),
        ({"executed": put(False, 1)}, "executed: decision 1 is a decision of which no action was executed"),
        ({"executed": put([True, False, True], 1)}, "executed: decision 1 executes an action behind one that was not"),
        ({"executed": put([True, True, False], 1)}, "rewards: decision 1 rewards an action that was not executed"),
        ({"terminated": False, "truncated": False}, "episodes/truncated: it neither terminated nor was truncated"),
        ({"bootstrap_value": np.inf}, "episodes/bootstrap_value: inf is not finite"),
        ({"seed": 2**63}, "episodes/seed: 9223372036854775808 does not fit"),
        (
            {"seed": HELD_OUT},
            "episodes/seed: 2147483648 is a state of the split 'evaluation', this shard is of 'train'",
        ),
        ({"task": "dance"}, "episodes/task: 'dance' is not a task of this shard: close the drawer, open the drawer"),
        ({"group": 0}, r"episodes/group: group 0 began with \(task, seed\) \('open the drawer', 1\)"),
    ],
)
def test_an_episode_that_no_shard_may_hold(spec, attributes, make_episode, tmp_path, changes, message):
    broken = make_episode(spec, 5, 8, **changes)
    with ShardWriter(tmp_path / "s", spec, attributes) as writer:
        writer.append(make_episode(spec, 2, 1, group=0))
        with pytest.raises(InconsistentEpisode, match=message):
            writer.append(broken)
    assert len(read(tmp_path / "s")) == 2, "nothing of the refused episode was added"


def test_an_empty_episode_and_an_empty_shard(spec, attributes, make_episode, tmp_path):
    writer = ShardWriter(tmp_path / "s", spec, attributes)
    whole = make_episode(spec, 2, 1)
    none_left = {field: getattr(whole, field)[:0] for field in spec.decision_arrays()}
    with pytest.raises(InconsistentEpisode, match="the episode has no decision"):
        writer.append(dataclasses.replace(whole, **none_left))
    with pytest.raises(InconsistentEpisode, match="a shard needs an episode"):
        writer.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "dreams"}, "kind is 'dreams'"),
        ({"kind": "chain"}, "chain_shape is None"),
        ({"chain_shape": (2, 3, 3)}, "no other kind"),
        ({"kind": "demonstration", "entropies": True}, "an expert has none"),
        ({"chunk": 0}, "sizes must be at least 1"),
        ({"kind": "chain", "chain_shape": (5, 2, 5)}, "chunk=3 or more"),
    ],
)
def test_sizes_that_do_not_belong_together(spec, fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(spec, **fields)


def test_tasks_need_names_and_instructions(attributes):
    with pytest.raises(ValueError, match="2 tasks have 1 instructions"):
        dataclasses.replace(attributes, instructions=("one",))
    with pytest.raises(ValueError, match="name each once"):
        dataclasses.replace(attributes, tasks=("a", "a"))


def test_there_are_two_splits(attributes):
    with pytest.raises(ValueError, match="split is 'test': it must be one of train, evaluation"):
        dataclasses.replace(attributes, split="test")


def test_held_out_states_do_not_pass_for_training_states(shard):
    edit(shard / "episodes/seed", 1, HELD_OUT)
    with pytest.raises(
        UserError, match="episodes/seed: episode 1 starts from a state that is not of the split 'train'"
    ):
        read(shard)


@pytest.mark.parametrize("seed", [0, HELD_OUT - 1, HELD_OUT, 2**62])
@pytest.mark.parametrize("split", ["train", "evaluation"])
def test_a_shard_holds_states_of_its_split_only(spec, attributes, make_episode, tmp_path, seed, split):
    writer = ShardWriter(tmp_path / "s", spec, dataclasses.replace(attributes, split=split))
    if split == split_of(seed):
        writer.append(make_episode(spec, 1, 1, seed=seed))
        assert writer.close().sources[0].split == split
    else:
        with pytest.raises(InconsistentEpisode, match="episodes/seed"):
            writer.append(make_episode(spec, 1, 1, seed=seed))
        writer.abort()


def test_a_shard_is_written_once(shard, spec, attributes, make_episode):
    with pytest.raises(UserError, match="holds a shard already"):
        ShardWriter(shard, spec, attributes)


def test_a_closed_writer_takes_nothing(spec, attributes, make_episode, tmp_path):
    writer = ShardWriter(tmp_path / "s", spec, attributes)
    writer.append(make_episode(spec, 2, 1))
    writer.close()
    with pytest.raises(ValueError, match="is closed"):
        writer.append(make_episode(spec, 2, 1))
    with pytest.raises(ValueError, match="is closed"):
        writer.close()


def test_an_unfinished_shard_is_refused(spec, attributes, make_episode, tmp_path):
    def interrupted():
        with ShardWriter(tmp_path / "s", spec, attributes) as writer:
            writer.append(make_episode(spec, 100, 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(UserError, match="is unfinished"):
        read(tmp_path / "s")


def test_a_full_disk_is_not_a_finished_shard(spec, attributes, make_episode, tmp_path):
    # A file in the place of the array's directory: writing fails in the thread, the caller must hear of it.
    writer = ShardWriter(tmp_path / "s", spec, attributes)
    shutil.rmtree(tmp_path / "s/observations/wrist")
    (tmp_path / "s/observations/wrist").write_text("")
    writer.append(make_episode(spec, 70, 1))
    with pytest.raises(OSError, match="wrist"):
        writer.close()
    with pytest.raises(UserError, match="is unfinished"):
        read(tmp_path / "s")


def test_the_caller_hears_of_a_full_disk_while_it_goes_on(spec, attributes, make_episode, tmp_path):
    def write() -> None:
        with ShardWriter(tmp_path / "s", spec, attributes) as writer:
            shutil.rmtree(tmp_path / "s/observations/wrist")
            (tmp_path / "s/observations/wrist").write_text("")
            for number in range(1000):
                writer.append(make_episode(spec, 64, number))
            pytest.fail("nobody told")

    with pytest.raises(OSError, match="wrist"):
        write()
    with pytest.raises(UserError, match="is unfinished"):
        read(tmp_path / "s")


def data_files(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("c.*"))


def test_a_file_cut_short(shard):
    names = data_files(shard)
    assert len(names) == 21
    for name in names:
        whole = (shard / name).read_bytes()
        for keep in (1, len(whole) // 2, len(whole) - 1):
            (shard / name).write_bytes(whole[:keep])
            with pytest.raises(UserError, match=f"{name.rsplit('/', 1)[0]} cannot be read"):
                read(shard).load_images()
        (shard / name).write_bytes(b"")
        with pytest.raises(UserError, match=f"{name} is empty"):
            read(shard)
        (shard / name).unlink()
        with pytest.raises(UserError, match=f"{name} is missing"):
            read(shard)
        (shard / name).write_bytes(whole)
    read(shard).load_images()


@pytest.fixture(scope="module")
def sound_content(sound):
    shard = read(sound)
    return shard, shard.load_images()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_noticed(data, sound, sound_content, tmp_path_factory):
    shard = shutil.copytree(sound, tmp_path_factory.mktemp("flip") / "shard")
    file = shard / data.draw(st.sampled_from(data_files(sound)))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    expected, images = sound_content
    try:
        got = read(shard)
        loaded = got.load_images()
    except UserError:
        return
    # A bit that carries no content may flip; numbers may not.
    for field in (*expected.spec.decision_arrays(), *(f.name for f in dataclasses.fields(expected.episodes))):
        pair = [getattr(t, field, getattr(t.episodes, field, None)) for t in (got, expected)]
        np.testing.assert_array_equal(*pair)
    np.testing.assert_array_equal(loaded[0], images[0])
    np.testing.assert_array_equal(loaded[1], images[1])


def test_the_manifest_notices_a_cut_file(shard, tmp_path):
    described = {
        "unit": "e0003-rollout-s0001",
        "part": "rollout",
        "attempt": 1,
        "inputs": {},
        "config_digest": "",
        "code_revision": "",
        "seed": 0,
        "metrics": {},
        "seconds": {},
        "started": "",
        "host": "",
        "job_id": "",
        "versions": {},
    }
    target = tmp_path / "run/epochs/0003/rollout/shard-0001"
    artifact = publish(shard, target, described).verify()
    assert len(read(target)) == 73, "the manifest beside it does not disturb a shard"
    name = "observations/wrist/c.0.0.0.0.0"
    (target / name).write_bytes((target / name).read_bytes()[:-1])
    with pytest.raises(UserError, match="observations/wrist"):
        artifact.verify()


def edit_json(path, change):
    stored = json.loads(path.read_text())
    change(stored["attributes"])
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(schema_version=99), "schema_version is 99, this Baton reads 1"),
        (lambda a: a.pop("schema_version"), "schema_version is None"),
        (lambda a: a.pop("run"), "do not fit .*run"),
        (lambda a: a.pop("layout"), "do not fit .*layout"),
        (lambda a: a["layout"].update(kind="dreams"), "do not fit .*dreams"),
        (
            lambda a: a["layout"].update(chunk=4),
            r"actions/executed is float32 \[73, 3, 5\], expected .* \[73, 4, 5\]",
        ),
        (lambda a: a["layout"].update(kind="demonstration"), "array clean is missing"),
        (lambda a: a.clear(), "is unfinished"),
    ],
)
def test_attributes_that_do_not_fit(shard, change, message):
    edit_json(shard / "zarr.json", change)
    with pytest.raises(UserError, match=message) as refusal:
        read(shard)
    assert str(shard) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_no_shard_at_all(tmp_path, shard):
    with pytest.raises(UserError, match="is not a shard"):
        read(tmp_path / "nowhere")
    (shard / "zarr.json").write_text("{")
    with pytest.raises(UserError, match=r"zarr\.json cannot be read"):
        read(shard)


@pytest.mark.parametrize("array", ["values", "observations/head", "episodes/seed"])
def test_a_missing_array(shard, array):
    shutil.rmtree(shard / array)
    with pytest.raises(UserError, match=f"the array {array} is missing"):
        read(shard)


@pytest.mark.parametrize(
    ("array", "index", "value", "message"),
    [
        ("episodes/start", 1, 69, "episodes/start: episode 1 does not begin where"),
        ("episodes/length", 1, 4, "the episodes hold 74 decisions, the arrays 73"),
        ("episodes/length", 0, 0, "episodes/length: episode 0 has no decision"),
        ("episodes/task", 1, 2, "episodes/task: episode 1 has a task without a name"),
        ("episodes/return", 0, 1e6, "episodes/return: episode 0 is not the sum"),
        ("episodes/bootstrap_value", 1, np.nan, "episodes/bootstrap_value: episode 1 is not finite"),
        ("episodes/group", slice(None), 5, "episodes/group: episode 1 has another seed"),
        ("values", 71, np.inf, "values: decision 71 is not finite"),
    ],
)
def test_numbers_that_contradict_each_other(shard, array, index, value, message):
    edit(shard / array, index, value)
    with pytest.raises(UserError, match=message):
        read(shard)


def test_episodes_that_are_not_whole(shard):
    for array in ("terminated", "truncated"):
        edit(shard / "episodes" / array, 0, False)
    with pytest.raises(UserError, match="episodes/truncated: episode 0 is not whole"):
        read(shard)


def test_nothing_to_concatenate():
    with pytest.raises(ValueError, match="at least one shard"):
        concatenate([])


def test_a_spec_survives_json():
    spec = ShardSpec("chain", (4, 5), 6, 7, 8, chain_shape=(9, 10, 11), entropies=True)
    assert ShardSpec.from_json(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec

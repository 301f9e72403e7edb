"""What goes into a shard comes out of it, in few files, and the same bytes each time."""

import dataclasses
import json
import math
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages.simulators.interface import HELD_OUT
from stages.trajectories import EpisodeRecord, ShardSpec, ShardWriter, concatenate, read, schema
from stages.trajectories.writer import THREADS

size = st.integers(1, 5)


@st.composite
def specs(draw: st.DrawFn) -> ShardSpec:
    kind = draw(st.sampled_from(["tokens", "chain", "demonstration"]))
    chunk, action_dim = draw(size), draw(size)
    chain_shape = (1 + draw(size), chunk + draw(size) - 1, action_dim + draw(size) - 1)
    return ShardSpec(
        kind,
        image_size=(draw(size), draw(size)),
        proprio_dim=draw(size),
        chunk=chunk,
        action_dim=action_dim,
        chain_shape=chain_shape if kind == "chain" else None,
        entropies=kind != "demonstration" and draw(st.booleans()),
        wrist_cameras=draw(st.integers(0, 2)),
    )


def write(path, spec, attributes, episodes):
    with ShardWriter(path, spec, attributes) as writer:
        for episode in episodes:
            writer.append(episode)
    return read(path)


def content(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@settings(max_examples=10, deadline=None)
@given(spec=specs(), lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4), seed=st.integers(0, HELD_OUT - 5))
def test_everything_comes_back(spec, lengths, seed, attributes, make_episode, tmp_path_factory):
    episodes = [make_episode(spec, length, seed + i) for i, length in enumerate(lengths)]
    got = write(tmp_path_factory.mktemp("shard") / "s", spec, attributes, episodes)
    assert got.spec == spec
    assert got.sources == (attributes,)
    head, wrist = got.load_images()
    assert wrist.shape == (len(head), spec.wrist_cameras, *head.shape[1:])
    last = got.images([len(head) - 1])
    assert (last[0].tobytes(), last[1].tobytes()) == (head[-1].tobytes(), wrist[-1].tobytes())
    for field, layout in spec.decision_arrays().items():
        expected = np.concatenate([getattr(episode, field) for episode in episodes])
        stored = {"head": head, "wrist": wrist}.get(field)
        stored = getattr(got, field) if stored is None else stored
        assert stored.dtype == layout.dtype
        np.testing.assert_array_equal(stored, expected)
    for field in ("tokens", "chain", "step", "log_probs", "values", "entropies", "clean"):
        assert (getattr(got, field) is None) == (field not in spec.decision_arrays())
    for field in ("seed", "group", "success", "terminated", "truncated"):
        assert getattr(got.episodes, field).tolist() == [getattr(episode, field) for episode in episodes]
    assert got.episodes.length.tolist() == lengths
    assert got.episodes.start.tolist() == [sum(lengths[:i]) for i in range(len(lengths))]
    np.testing.assert_allclose(got.episodes.bootstrap_value, [e.bootstrap_value for e in episodes], rtol=1e-6)
    np.testing.assert_allclose(got.episodes.total_reward, [e.rewards.sum() for e in episodes], rtol=1e-4, atol=1e-4)


def test_a_shard_that_does_not_say_has_two_wrist_cameras(spec, attributes, make_episode, tmp_path):
    written = write(tmp_path / "s", spec, attributes, [make_episode(spec, 3, 1)])
    about = tmp_path / "s" / "zarr.json"
    stored = json.loads(about.read_text())
    assert stored["attributes"]["layout"].pop("wrist_cameras") == 2
    about.write_text(json.dumps(stored))
    assert read(tmp_path / "s").spec == written.spec == spec


@settings(max_examples=30, deadline=None)
@given(wanted=st.lists(st.integers(0, 199), max_size=40))
def test_images_in_any_order(wanted, two_shards):
    both, head, wrist = two_shards
    got_head, got_wrist = both.images(wanted)
    index = np.array(wanted, dtype=int)
    np.testing.assert_array_equal(got_head, head[index])
    np.testing.assert_array_equal(got_wrist, wrist[index])


@pytest.fixture(scope="module")
def two_shards(spec, attributes, make_episode, tmp_path_factory):
    # Several chunks a file, the last one partial, and fewer wrist than head images a chunk.
    spec = dataclasses.replace(spec, image_size=(96, 80))
    assert [spec.decision_arrays()[field].chunk_rows for field in ("head", "wrist")] == [32, 16]
    parts = [[make_episode(spec, 70, 1), make_episode(spec, 30, 2)], [make_episode(spec, 100, 3)]]
    place = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as smaller:  # files than are written otherwise: several of them
        smaller.setattr(schema, "DECISIONS_PER_FILE", (64, 64))
        shards = [write(place / str(i), spec, attributes, episodes) for i, episodes in enumerate(parts)]
    flat = sum(parts, [])
    return concatenate(shards), *(np.concatenate([getattr(e, field) for e in flat]) for field in ("head", "wrist"))


@pytest.mark.parametrize("decision", [-1, 200])
def test_an_image_that_is_not_there(two_shards, decision):
    with pytest.raises(IndexError, match="there are 200"):
        two_shards[0].images([0, decision])


def test_decisions_know_their_episode(spec, attributes, make_episode, tmp_path):
    episodes = [make_episode(spec, 2, 1), make_episode(spec, 1, 2, task="close the drawer"), make_episode(spec, 3, 3)]
    got = write(tmp_path / "s", spec, attributes, episodes)
    assert len(got) == 6
    assert len(got.episodes) == 3
    assert got.episode_of_decision.tolist() == [0, 0, 1, 2, 2, 2]
    assert got.ends_episode.tolist() == [False, True, True, False, False, True]
    assert got.instructions_of([5, 2]) == ["please open the drawer", "please close the drawer"]
    np.testing.assert_array_equal(got.valid, got.executed)


def test_only_clean_executed_steps_of_a_demonstration_are_valid(spec, attributes, make_episode, tmp_path):
    spec = dataclasses.replace(spec, kind="demonstration")
    executed = np.array([[True, True, True], [True, True, False]])
    clean = np.array([[True, False, True], [False, True, True]])
    episode = make_episode(spec, 2, 1, executed=executed, rewards=np.zeros_like, clean=clean)
    got = write(tmp_path / "s", spec, attributes, [episode])
    assert got.valid.tolist() == [[True, False, True], [False, True, False]]


def test_concatenation_joins_tasks_by_name(spec, attributes, make_episode, tmp_path):
    swapped = dataclasses.replace(
        attributes, shard=2, tasks=attributes.tasks[::-1], instructions=attributes.instructions[::-1]
    )
    first = write(tmp_path / "1", spec, attributes, [make_episode(spec, 2, 1, group=0), make_episode(spec, 1, 4)])
    second = write(tmp_path / "2", spec, swapped, [make_episode(spec, 3, 1, group=0), make_episode(spec, 1, 4)])
    both = concatenate([first, second])
    assert both.sources == (attributes, swapped)
    assert both.instructions_of(range(len(both))) == ["please open the drawer"] * 7
    assert both.episodes.start.tolist() == [0, 2, 3, 6]
    np.testing.assert_array_equal(both.tokens, np.concatenate([first.tokens, second.tokens]))


def test_concatenation_refuses_what_does_not_belong_together(spec, attributes, make_episode, tmp_path):
    first = write(tmp_path / "1", spec, attributes, [make_episode(spec, 2, 1, group=0)])
    other_group = write(tmp_path / "2", spec, attributes, [make_episode(spec, 2, 7, group=0)])
    with pytest.raises(UserError, match=r"episodes/group: episode 1 has another seed .* within the epoch"):
        concatenate([first, other_group])
    wider = dataclasses.replace(spec, proprio_dim=9)
    with pytest.raises(UserError, match=r"3: its layout .*proprio_dim=9"):
        concatenate([first, write(tmp_path / "3", wider, attributes, [make_episode(wider, 2, 1)])])
    renamed = dataclasses.replace(attributes, instructions=("shut it", "open it"))
    with pytest.raises(UserError, match="'close the drawer' means 'shut it'"):
        concatenate([first, write(tmp_path / "4", spec, renamed, [make_episode(spec, 2, 1)])])


def test_same_episodes_same_bytes(spec, attributes, make_episode, tmp_path):
    lengths = (50, 100, 7)
    for name in ("1", "2"):
        # Memory layout is no content: the second time, arrays come transposed in memory.
        order = np.ascontiguousarray if name == "1" else np.asfortranarray
        episodes = [make_episode(spec, n, n, head=order, tokens=order, rewards=order) for n in lengths]
        write(tmp_path / name, spec, attributes, episodes)
    assert content(tmp_path / "1") == content(tmp_path / "2")
    write(tmp_path / "3", spec, attributes, [make_episode(spec, n, n) for n in lengths[::-1]])
    assert content(tmp_path / "1") != content(tmp_path / "3")


def test_images_of_full_size_share_chunks_of_a_megabyte_at_most(spec):
    arrays = dataclasses.replace(spec, image_size=(224, 224)).decision_arrays()
    assert (arrays["head"].chunk_rows, arrays["wrist"].chunk_rows) == (4, 2)


def test_few_files(spec, attributes, make_episode, tmp_path):
    write(tmp_path / "s", spec, attributes, [make_episode(spec, 600, 1), make_episode(spec, 700, 2)])
    assert len(content(tmp_path / "s")) == 40 + 2 * math.ceil(1300 / 512)


@pytest.mark.parametrize(
    ("size", "wrists", "rows"), [(8, 2, 512), (64, 2, 512), (128, 1, 256), (128, 2, 128), (224, 2, 64), (1024, 2, 64)]
)
def test_small_images_share_a_file_with_more_of_their_kind(spec, size, wrists, rows):
    spec = dataclasses.replace(spec, image_size=(size, size), wrist_cameras=wrists)
    assert spec.decisions_per_file == rows
    assert all(layout.rows_per_file in (0, rows) for layout in spec.decision_arrays().values())


def test_black_images_are_stored(spec, attributes, make_episode, tmp_path):
    got = write(tmp_path / "s", spec, attributes, [make_episode(spec, 3, 1, head=np.zeros_like, wrist=np.zeros_like)])
    assert not got.load_images()[0].any()


def test_memory_is_that_of_a_few_files(spec, attributes, make_episode, tmp_path):
    spec = dataclasses.replace(spec, image_size=(40, 40))
    file_bytes = spec.decisions_per_file * 3 * 3 * 40 * 40
    # Views of one image: only what the writer itself keeps is counted.
    image = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 40, 40), dtype=np.uint8)
    bare = make_episode(dataclasses.replace(spec, image_size=(1, 1)), 64, 1)
    episode: EpisodeRecord = dataclasses.replace(
        bare, head=np.broadcast_to(image[:, 0], (64, 3, 40, 40)), wrist=np.broadcast_to(image, (64, 2, 3, 40, 40))
    )
    tracemalloc.start()
    try:
        with ShardWriter(tmp_path / "s", spec, attributes) as writer:
            for _ in range(64):
                writer.append(episode)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    files = peak / file_bytes
    # A thread has a file, its compressed parts and what is read back; one more for what is being gathered.
    assert files < 1 + 3 * THREADS, f"{files:.1f} files of {file_bytes} bytes were held at once, 8 were written"


def test_what_waits_to_be_written_is_bounded(spec, attributes, make_episode, tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "DECISIONS_PER_FILE", (64, 64))
    monkeypatch.setattr("stages.trajectories.writer.WAITING_BYTES", 3 * 64 * 3 * 3 * 6 * 8)
    done: list[int] = []
    with ShardWriter(tmp_path / "s", spec, attributes) as writer:
        write_file = writer._write

        def slowly(parts, begin):
            time.sleep(0.02)
            write_file(parts, begin)
            done.append(begin)

        monkeypatch.setattr(writer, "_write", slowly)
        for appended in range(1, 17):
            writer.append(make_episode(spec, 64, appended))
            assert appended - len(done) <= 3
    assert sorted(done) == list(range(0, 16 * 64, 64))
    assert len(read(tmp_path / "s")) == 16 * 64

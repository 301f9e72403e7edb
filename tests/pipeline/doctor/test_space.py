"""How much disk a run takes, against what there is."""

import json
import math
import struct

import pytest

from pipeline.doctor import space

GB = 10**9


@pytest.fixture
def disk(make):
    """The check with so many bytes free: `disk(GB)`."""

    def disk(free, *overrides, quota=None):
        (check,) = space.examine(make(*overrides, gpus=False), free=lambda path: free, quota=lambda path: quota)
        return check

    return disk


def test_enough(disk):
    check = disk(10 * GB)
    assert check.verdict == "pass"
    assert "rollouts" in check.found
    assert "10.0 GB free" in check.found


def test_too_little_for_policies(disk):
    check = disk(100 * GB, "policy.preset=7b")
    assert check.verdict == "fail"
    assert "keep.optimizer_states" in check.remedy


def test_too_little_only_if_images_do_not_compress(disk):
    many = ("rollout.episodes=100000", "simulator.image_size=224", "keep.optimizer_states=1")
    assert disk(400 * GB, *many).verdict == "warn"
    assert disk(4 * GB, *many).verdict == "fail"


def test_a_quota_counts_where_it_is_less(disk):
    check = disk(1000 * GB, quota=10_000_000)
    assert check.verdict == "fail"
    assert "your quota leaves 10.0 MB" in check.found


def test_what_is_written_already_is_not_needed_again(disk, tmp_path):
    assert disk(100_000_000, "epochs=20").verdict == "fail"
    folder = tmp_path / "runs" / "recipe" / "policies" / "0000"
    folder.mkdir(parents=True)
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(GB)
    assert disk(100_000_000, "epochs=20").verdict == "pass"


def test_what_keep_frees_is_not_needed(make):
    def bytes_of(*overrides):
        return {need.what: need.most for need in space.needs(make("epochs=10", *overrides, gpus=False))}

    everything = bytes_of()
    tidy = bytes_of("keep.rollouts=1", "keep.policies=1", "keep.optimizer_states=1")
    weights = space.parameters(make(gpus=False))
    assert tidy["rollouts"] == everything["rollouts"] * 2 // 10
    assert everything["policies"] == 11 * weights * 4
    assert tidy["policies"] == 4 * weights * 4  # warm start, last, newest, the one being written
    assert everything["optimizer states"] == 3 * weights * 12
    assert tidy["optimizer states"] == 2 * weights * 12


@pytest.mark.parametrize(
    ("robot", "cameras", "actions"),
    [
        ([], 3, 14),
        (["simulator.name=lab.worlds"], 3, 14),
        (
            [
                *("simulator.name=libero", "simulator.physics_frequency=500", "policy.action_dim=7"),
                *("simulator.tasks=[pick_up_the_milk_and_place_it_in_the_basket]", "simulator.options={}"),
            ],
            *(2, 7),
        ),
    ],
)
def test_images_of_the_robots_cameras(make, robot, cameras, actions):
    config = make("simulator.max_episode_steps=81", "epochs=1", *robot, gpus=False)
    (rollouts,) = [need for need in space.needs(config) if need.what == "rollouts"]
    decisions = 4 * 11
    assert rollouts.most == decisions * (cameras * 3 * 64 * 64 + 10 * 8 * actions)


def test_without_a_step_limit_a_long_one_is_assumed(make):
    def most(*overrides):
        config = make("simulator.max_episode_steps=null", "epochs=1", *overrides, gpus=False)
        return {need.what: need.most for need in space.needs(config)}

    own, limited = most(), most(f"simulator.max_episode_steps={space.OWN_LIMIT}")
    assert own == limited
    assert most("demonstrate.max_episode_steps=8")["demonstrations"] < own["demonstrations"]
    assert most("rollout.max_episode_steps=8")["rollouts"] < own["rollouts"]


def test_parameters_of_a_checkpoint_come_from_its_headers(make, tmp_path):
    folder = tmp_path / "policy"
    folder.mkdir()
    for name, shape in (("a", [3, 5]), ("b", [7])):
        length = math.prod(shape) * 2
        header = {
            "__metadata__": {"format": "pt"},
            name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, length]},
        }
        text = json.dumps(header).encode()
        (folder / f"model-{name}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(length))
    assert space.parameters(make(f"policy.checkpoint={folder}", gpus=False)) == 22


def test_quota():
    text = (
        "Disk quotas for user alice (uid 1000):\n"
        "     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace\n"
        "     server:/home  900*    800    1000   6days      10       0       0\n"
        "     /dev/sda1     500       0       0              10       0       0\n"
    )
    assert space.quota_left(text, "server:/home") == 100 * 1024
    assert space.quota_left(text, "/dev/sda1") is None
    assert space.quota_left("", "/dev/sda1") is None


def test_mounts(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n/dev/b {tmp_path}/runsx xfs rw 0 0\n")
    assert space.mount(tmp_path / "runs", mounts) == ("server:/x", "nfs4")
    assert space.mount(tmp_path.parent, mounts) == ("/dev/a", "ext4")

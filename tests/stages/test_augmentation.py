"""Demonstrations moved and mirrored: what a camera would have seen, and a robot that does it the other way round."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts import Unit
from pipeline.config import Config
from pipeline.simulator_facts import MIRRORED
from stages.augmentation import MIRRORS, Augmentation, mirrored, mirrored_arms, recoloured, shifted
from stages.policies.interface import Observation, load
from stages.simulators.household import make
from stages.simulators.interface import Episode
from tests.stages.conftest import Tiny

HOUSEHOLD = MIRRORS["household"]


def augmentation(**sft: object) -> Augmentation:
    return Augmentation(Config.model_validate({"name": "x", "sft": sft}))


def decisions(count: int, side: int = 20) -> tuple[Observation, torch.Tensor]:
    rng = np.random.default_rng(count)
    seen = Observation.from_arrays(
        rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8),
        rng.integers(0, 256, (count, 2, 3, side, side), dtype=np.uint8),
        rng.normal(size=(count, 16)).astype(np.float32),
        [f"put cube {i} to the left of the can" for i in range(count)],
    )
    return seen, torch.from_numpy(rng.uniform(-1, 1, (count, 8, 14)).astype(np.float32))


def same(one: Observation, other: Observation) -> bool:
    arrays = all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("head", "wrist", "proprio"))
    return arrays and list(one.instructions) == list(other.instructions)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.data())
def test_a_shifted_image_is_the_scene_from_a_camera_beside_it(count, height, width, data):
    images = np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    pixels = data.draw(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=count, max_size=count))
    moved = shifted(torch.from_numpy(images), torch.tensor(pixels)).numpy()
    padded = np.pad(images, [(0, 0), (0, 0), (9, 9), (9, 9)], mode="edge")
    for image, frame, (down, right) in zip(moved, padded, pixels, strict=True):
        assert np.array_equal(image, frame[:, 9 - down :, 9 - right :][:, :height, :width])


def test_every_picture_is_moved_by_itself_and_by_no_more_than_was_asked():
    augment, (seen, actions) = augmentation(shift=0.1), decisions(400)
    changes = augment.draw(np.random.default_rng(1), 400, 3)
    moved, same_actions = augment(seen, actions, torch.from_numpy(changes))
    assert torch.equal(same_actions, actions)
    assert torch.equal(moved.proprio, seen.proprio)
    before, after = (torch.cat([part.head[:, None], part.wrist], 1)[:, :, :, 4:-4, 4:-4] for part in (seen, moved))
    whole = torch.cat([seen.head[:, None], seen.wrist], 1)
    found = {
        (down, right): (after == whole[:, :, :, 4 - down : 16 - down, 4 - right : 16 - right]).flatten(2).all(-1)
        for down in range(-3, 4)
        for right in range(-3, 4)
    }
    assert torch.stack(list(found.values())).sum(0).eq(1).all(), "every picture is found at exactly one place"
    met = {place for place, where in found.items() if where.any()}
    assert met == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}
    assert not torch.equal(before, after)
    places = torch.stack([where.float() for where in found.values()]).argmax(0)
    assert (places[:, 0] != places[:, 1]).float().mean() > 0.8, "cameras of a decision move apart"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.floats(0, 2), st.floats(0, 2), st.floats(0, 2))
def test_colours_change_as_their_names_say(count, brightness, contrast, saturation):
    images = torch.from_numpy(np.random.default_rng(count).integers(96, 160, (count, 3, 6, 7), dtype=np.uint8))

    def changed(*factors: float) -> torch.Tensor:
        return recoloured(images, torch.tensor([factors] * count)).float()

    def grey(colours: torch.Tensor) -> torch.Tensor:
        return (colours * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)

    plain = images.float()
    assert torch.equal(changed(1, 1, 1), plain)
    assert torch.allclose(changed(brightness, 1, 1), (plain * brightness).clamp(max=255), atol=0.51)
    far = changed(1, contrast, 1)
    assert torch.allclose(grey(far).mean((1, 2)), grey(plain).mean((1, 2)), atol=1)
    spread = [grey(part).flatten(1).std(1) for part in (far, plain)]
    assert torch.allclose(spread[0], contrast * spread[1], rtol=0.05, atol=0.6)
    vivid = changed(1, 1, saturation)
    assert torch.allclose(grey(vivid), grey(plain), atol=1)
    apart = [part - grey(part)[:, None] for part in (vivid, plain)]
    assert torch.allclose(apart[0], saturation * apart[1], atol=1.1)


def test_every_picture_is_recoloured_by_itself_and_by_no_more_than_was_asked():
    augment, (seen, actions) = augmentation(colour=0.2), decisions(300)
    seen.head[:], seen.wrist[:] = 100, 100  # of one grey: neither contrast nor saturation changes it
    recoloured_, same_actions = augment(seen, actions, torch.from_numpy(augment.draw(np.random.default_rng(0), 300, 3)))
    assert torch.equal(same_actions, actions)
    pictures = torch.cat([recoloured_.head[:, None], recoloured_.wrist], 1).flatten(2)
    assert pictures.amin(2).equal(pictures.amax(2))
    levels = pictures[:, :, 0]
    assert levels.min() in (80, 81, 82)
    assert levels.max() in (118, 119, 120)
    assert (levels[:, 0] != levels[:, 1]).float().mean() > 0.8, "cameras of a decision change apart"


def test_what_is_drawn_for_colours_moves_no_picture():
    seen, actions = decisions(50)
    drawn = augmentation().draw(np.random.default_rng(3), 50, 3)
    assert np.array_equal(drawn[:, :7], np.random.default_rng(3).random((50, 7), dtype=np.float32))
    moved = augmentation(shift=0.1)(seen, actions, torch.from_numpy(drawn))[0]
    drawn[:, 7:] = 0.5  # of no effect: a factor of 1
    assert same(augmentation(shift=0.1, colour=0.3)(seen, actions, torch.from_numpy(drawn))[0], moved)


def test_about_half_of_the_decisions_are_mirrored_whole():
    augment, (seen, actions) = augmentation(mirror=True), decisions(400)
    turned, turned_actions = augment(seen, actions, torch.from_numpy(augment.draw(np.random.default_rng(0), 400, 3)))
    expected, expected_actions = mirrored(seen, HOUSEHOLD), mirrored_arms(actions, HOUSEHOLD.action)
    count = 0
    for row in range(400):
        chosen = turned.instructions[row].endswith("right of the can")
        count += chosen
        assert same(turned[[row]], (expected if chosen else seen)[[row]])
        assert torch.equal(turned_actions[row], (expected_actions if chosen else actions)[row])
    assert 160 < count < 240


def test_a_mirror_image_of_the_mirror_image_is_the_thing_itself():
    seen, actions = decisions(5)
    assert same(mirrored(mirrored(seen, HOUSEHOLD), HOUSEHOLD), seen)
    for numbers, signs in ((actions, HOUSEHOLD.action), (seen.proprio, HOUSEHOLD.proprio)):
        assert torch.equal(mirrored_arms(mirrored_arms(numbers, signs), signs), numbers)


def test_words_change_sides_and_no_others():
    seen, _ = decisions(1)
    seen.instructions[:] = ["with the right hand move the upright can left of the copyright sign"]
    expected = "with the left hand move the upright can right of the copyright sign"
    assert mirrored(seen, HOUSEHOLD).instructions == [expected]


def test_nothing_is_changed_unasked():
    augment, (seen, actions) = augmentation(), decisions(50)
    unchanged, same_actions = augment(seen, actions, torch.from_numpy(augment.draw(np.random.default_rng(0), 50, 3)))
    assert same(unchanged, seen)
    assert torch.equal(same_actions, actions)


def test_a_mirror_can_be_asked_for_where_it_is_known():
    assert set(MIRRORS) == set(MIRRORED)


def test_mirrored_actions_move_the_household_robot_to_where_its_mirror_image_is():
    world = make(2, {"tasks": ["pick_onto_plate"], "image_size": 32, "renderer": "raycast"})
    try:
        world.reset([0, 1], [Episode("pick_onto_plate", 3)] * 2, [False, False])
        rng = np.random.default_rng(5)
        chunks = rng.uniform(-0.6, 0.6, (6, 1, 4, 14)).astype(np.float32)
        chunks[..., [2, 9]] = np.abs(chunks[..., [2, 9]])  # upwards, away from the table and what stands there
        for chunk in chunks:
            turned = mirrored_arms(torch.from_numpy(chunk), HOUSEHOLD.action).numpy()
            world.step_chunk([0, 1], np.concatenate([chunk, turned]))
            felt = torch.from_numpy(world.observe([0, 1]).proprio)
            assert torch.allclose(mirrored_arms(felt[0], HOUSEHOLD.proprio), felt[1], atol=2e-3)
            assert not torch.allclose(felt[0], felt[1], atol=0.05)
            cameras = [[_camera(world, slot, side) for side in ("left", "right")] for slot in (0, 1)]
            for mine, its in zip(cameras[0], cameras[1][::-1], strict=True):
                assert np.allclose(_in_the_mirror(mine), its, atol=2e-3), "it looks from where the other one does"
    finally:
        world.close()


def _camera(world, slot: int, side: str) -> np.ndarray:
    """[4, 3]: where a wrist's camera is, then its rotation, whose columns are right, up and back."""
    model, data = world.engine.view(slot)
    mujoco.mj_forward(model, data)
    camera = data.camera(f"{side}_wrist")
    return np.concatenate([camera.xpos[None], camera.xmat.reshape(3, 3)])


def _in_the_mirror(camera: np.ndarray) -> np.ndarray:
    """The camera that sees the mirrored scene as this one sees the scene, but flipped: its right is left."""
    position, rotation = camera[0], camera[1:]
    through = np.diag([1.0, -1.0, 1.0])
    return np.concatenate([(through @ position)[None], through @ rotation @ np.diag([-1.0, 1.0, 1.0])])


@pytest.mark.slow
def test_a_warm_start_from_mirrored_demonstrations_allows_both_arms_the_same(prepared, tmp_path):
    sft = Unit(0, "sft")
    bounds = {}
    for name, settings_ in (("plain", {}), ("turned", {"mirror": True, "shift": 0.05, "colour": 0.2})):
        run: Tiny = prepared.copy(tmp_path / name, sft, sft=settings_)
        code, output = run.start(sft).end()
        assert code == 0, output
        action = load(str(run.run / "policies/0000"), precision="fp32").statistics.action
        bounds[name] = np.stack([action.minimum, action.maximum]).reshape(2, 2, 7)
    signs = np.array(HOUSEHOLD.action)
    left, right = bounds["turned"].swapaxes(0, 1)
    assert np.allclose(left, np.sort(right * signs, axis=0))
    left, right = bounds["plain"].swapaxes(0, 1)
    assert not np.allclose(left, np.sort(right * signs, axis=0)), "the demonstrations are the right arm's"

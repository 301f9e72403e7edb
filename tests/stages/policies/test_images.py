"""Images made to fit: the originals' resizing and the middle of an image enlarged again."""

import numpy as np
import pytest
import torch
from PIL import Image

from stages.policies.openvla_oft.config import OpenVLAOFTConfig
from stages.policies.openvla_oft.images import Images, enlargement

SIDE = 28


def images(**options) -> Images:
    return Images(OpenVLAOFTConfig(image_size=SIDE, **options))


def pixels(height: int, width: int) -> torch.Tensor:
    """A smooth picture, uint8 [1, 3, height, width]."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [127 + 120 * np.sin(x / 7 + channel) * np.cos(y / 9) for channel in range(3)]
    return torch.from_numpy(np.stack(channels).astype(np.uint8)[None])


def test_images_of_the_right_size_are_left_alone() -> None:
    seen = pixels(SIDE, SIDE)
    for resize in ("refuse", "resize-naive", "resize-crop", "letterbox"):
        assert torch.equal(images(resize=resize)(seen), seen)


def test_naive_resizing_is_pils_bicubic() -> None:
    seen = pixels(40, 64)
    expected = Image.fromarray(seen[0].permute(1, 2, 0).numpy()).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    assert np.array_equal(images(resize="resize-naive")(seen)[0].permute(1, 2, 0), np.asarray(expected))


def test_resize_crop_keeps_the_middle_of_the_longer_side() -> None:
    seen = pixels(40, 80)
    expected = Image.fromarray(seen[0].permute(1, 2, 0).numpy()).resize((56, SIDE), Image.Resampling.BICUBIC)
    assert np.array_equal(images(resize="resize-crop")(seen)[0].permute(1, 2, 0), np.asarray(expected)[:, 14:42])


@pytest.mark.parametrize("shape", [(28, 56), (56, 28)])
def test_letterbox_pads_to_a_square_with_the_mean(shape: tuple[int, int]) -> None:
    seen = torch.full((2, 3, *shape), 250, dtype=torch.uint8)
    fitted = images(resize="letterbox")(seen)
    assert fitted.shape == (2, 3, SIDE, SIDE)
    along = fitted[0, 0] if shape[0] < shape[1] else fitted[0, 0].T
    assert set(along[:5].flatten().tolist()) == set(along[-5:].flatten().tolist()) == {127}
    assert set(along[9:19].flatten().tolist()) == {250}


def test_cropping_samples_the_box_that_tensorflow_samples() -> None:
    """Bilinear at y_i = y1 (H - 1) + i (y2 - y1) (H - 1) / (side - 1), then 255.5 x truncated."""
    seen = pixels(SIDE, SIDE)
    kept = np.sqrt(0.9)
    first, last = (1 - kept) / 2, (1 + kept) / 2
    places = first * (SIDE - 1) + np.arange(SIDE) * (last - first)
    low = np.floor(places).astype(int)
    share = places - low
    image = seen[0].numpy() / 255.0
    rows = image[:, low] * (1 - share)[:, None] + image[:, low + 1] * share[:, None]
    both = rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share
    found = images(crop=0.9)(seen)
    assert found.dtype == torch.uint8
    assert np.abs(found[0].numpy().astype(int) - (both * 255.5).astype(int)).max() <= 1
    assert (found[0].numpy() == (both * 255.5).astype(int)).mean() > 0.99


def test_weights_of_an_enlargement_sum_to_one_and_all_of_an_image_is_itself() -> None:
    torch.testing.assert_close(enlargement(SIDE, 0.9).sum(dim=1), torch.ones(SIDE))
    assert torch.equal(enlargement(SIDE, 1.0), torch.eye(SIDE))

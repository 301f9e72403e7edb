"""Images of all worlds of a workspace at once, by MuJoCo Warp's batch renderer: a ray a pixel."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import mujoco
import mujoco_warp as mjw
import numpy as np
import warp as wp

from stages.simulators.household.options import Options
from stages.simulators.household.warp.device import Device

wp.set_module_options({"enable_backward": False})


def draws(options: Options, device: Device) -> bool:
    """Whether it is this renderer that draws, and not one of the household's others."""
    return options.renderer == "mujoco_warp" or (options.renderer == "auto" and device.is_gpu)


@wp.kernel
def _unpack(packed: wp.array2d[wp.uint32], places: wp.array[wp.int32], images: wp.array4d[wp.uint8]) -> None:
    """Spread pixels [n, cameras * H * W], each 0xAARRGGBB, over the planes of rows of images [N, cameras, 3, H * W]."""
    world, camera, pixel = wp.tid()
    colour = packed[world, camera * images.shape[3] + pixel]
    place = places[world]
    images[place, camera, 0, pixel] = wp.uint8((colour >> wp.uint32(16)) & wp.uint32(255))
    images[place, camera, 1, pixel] = wp.uint8((colour >> wp.uint32(8)) & wp.uint32(255))
    images[place, camera, 2, pixel] = wp.uint8(colour & wp.uint32(255))


class BatchRenderer:
    """Draws the worlds of one workspace; all calls are made with its device and stream as the current ones.

    Like the other renderers it knows no shadows, no reflections and no sky: rays that meet nothing are black.
    """

    def __init__(
        self, described: mujoco.MjModel, model: mjw.Model, data: mjw.Data, cameras: Sequence[str], size: int
    ) -> None:
        """Allocate.

        Args:
            described: the scene.
            model: the scene on the device.
            data: the worlds, posed whenever `draw` is called.
            cameras: names of those whose images are wanted, in the order of the scene.
            size: height and width of an image, in pixels.
        """
        self._model, self._data, self._cameras, self._size = model, data, len(cameras), size
        self._context = mjw.create_render_context(
            described,
            nworld=data.nworld,
            cam_res=(size, size),
            cam_active=list(cameras),
            render_rgb=True,
            render_depth=False,
            render_seg=False,
            use_textures=False,
            enable_specular=False,
            enable_emission=False,
            enable_per_light_ambient=False,
        )
        shape = (data.nworld, len(cameras), 3, size * size)
        self._in_order = wp.array(np.arange(data.nworld), dtype=wp.int32)
        self._images = self._on_host = wp.empty(shape, dtype=wp.uint8)
        if self._images.device.is_cuda:
            self._on_host = wp.empty(shape, dtype=wp.uint8, device="cpu", pinned=True)

    def draw(self, count: int) -> None:
        """Have the first n = `count` worlds drawn; `drawn` waits for it."""
        self._render(count, self._in_order, self._images)
        if self._on_host is not self._images:
            wp.copy(self._on_host, self._images, count=count * self._images[0].size)

    def hang(self, places: np.ndarray, gallery: wp.array) -> None:
        """Have the first n worlds drawn into other memory.

        Args:
            places: int [n], the row of each.
            gallery: uint8 [rows, cameras, 3, H * W].
        """
        self._render(len(places), wp.array(places, dtype=wp.int32), gallery)

    def drawn(self, count: int) -> np.ndarray:
        """What the cameras of the first n worlds saw.

        Args:
            count: n.

        Returns:
            uint8 [n, cameras, 3, size, size], RGB; overwritten by `draw`.
        """
        wp.synchronize_stream()
        return self._on_host.numpy()[:count].reshape(count, self._cameras, 3, self._size, self._size)

    def _render(self, count: int, places: wp.array, images: wp.array) -> None:
        """Have the first n = `count` worlds drawn into some rows of `images` [N, cameras, 3, H * W]."""
        worlds = copy.copy(self._data)
        worlds.nworld = count  # no ray is followed for the rest
        mjw.refit_bvh(self._model, worlds, self._context)
        mjw.render(self._model, worlds, self._context)
        dimensions = (count, self._cameras, self._size**2)
        wp.launch(_unpack, dim=dimensions, inputs=[self._context.rgb_data, places], outputs=[images])

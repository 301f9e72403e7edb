"""The scenes that a process has in memory, which world is in which, and what they look like."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.simulators.libero import rendering
from stages.simulators.libero.catalogue import Entry
from stages.simulators.libero.scene import Scene, Snapshot


class Stage:
    """Scenes by task. Of the worlds of a task one at a time is in its scene, the others are kept as snapshots."""

    def __init__(self, environments: Any, renderer: str, size: int, kept: int) -> None:
        """Begin without a scene.

        Args:
            environments: LIBERO's module of them.
            renderer: egl or osmesa.
            size: height and width of the largest image, in pixels.
            kept: how many scenes stay in memory at most, unless worlds are in more.
        """
        self._environments, self._renderer, self._size, self._kept = environments, renderer, size, kept
        self._scenes: dict[str, Scene] = {}  # by task, the one used longest ago first
        self._canvases: dict[bytes, rendering.Canvas] = {}  # by what is drawn with them
        self._painter: rendering.Painter | None = None
        self._task: dict[int, str] = {}  # of a world
        self._inside: dict[str, int] = {}  # the world that is in a scene
        self._away: dict[int, Snapshot] = {}  # the worlds that are not

    def enter(self, slot: int, entry: Entry) -> Scene:
        """Give a world a task; whoever calls then starts or restores it in the scene.

        Args:
            slot: the world.
            entry: the task.
        """
        before = self._task.pop(slot, "")
        self._away.pop(slot, None)
        if self._inside.get(before) == slot:
            del self._inside[before]
        self._task[slot] = entry.name
        if entry.name in self._scenes:
            self._clear_idle(self._kept)
        else:
            self._clear_idle(self._kept - 1)
            self._scenes[entry.name] = Scene(self._environments, entry)
        return self._occupied(slot)

    def scene(self, slot: int) -> Scene:
        """The scene of a world, with the world in it."""
        name = self._task[slot]
        if self._inside.get(name) == slot:
            return self._scenes[name]
        scene = self._occupied(slot)
        scene.restore(self._away.pop(slot))
        return scene

    def save(self, slot: int) -> Snapshot:
        """A world as it is."""
        return self._away[slot] if slot in self._away else self.scene(slot).save()

    def draw(self, slot: int, camera: str, size: int) -> np.ndarray:
        """An image of a world: uint8 [size, size, 3], RGB."""
        scene = self.scene(slot)
        if self._painter is None:
            self._painter = rendering.Painter(self._renderer, self._size)
        if scene.drawn_with not in self._canvases:
            self._canvases[scene.drawn_with] = self._painter.take(scene.model)
        return self._canvases[scene.drawn_with].draw(scene.model, scene.data, camera, size)

    def close(self) -> None:
        """Free everything."""
        for name in list(self._scenes):
            self._clear(name)
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def _occupied(self, slot: int) -> Scene:
        """The scene of a world, with whoever else was in it out of the way."""
        name = self._task[slot]
        scene = self._scenes[name] = self._scenes.pop(name)  # used last
        other = self._inside.get(name)
        if other is not None and other != slot:
            self._away[other] = scene.save()
        self._inside[name] = slot
        return scene

    def _clear_idle(self, most: int) -> None:
        """Clear scenes that no world is in, until there are `most`."""
        needed = set(self._task.values())
        for name in [name for name in self._scenes if name not in needed]:
            if len(self._scenes) > most:
                self._clear(name)

    def _clear(self, name: str) -> None:
        scene = self._scenes.pop(name)
        if all(other.drawn_with != scene.drawn_with for other in self._scenes.values()):
            canvas = self._canvases.pop(scene.drawn_with, None)
            if canvas is not None:
                canvas.close()
        scene.close()

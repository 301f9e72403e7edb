"""The simulator: its clock, and physics and rendering of all scenes at once."""

import contextlib
import time

from fake_omnigibson import faults


class Simulator:
    def __init__(self, physics_frequency, rendering_frequency, action_frequency):
        self.physics_dt, self.rendering_dt = 1 / physics_frequency, 1 / rendering_frequency
        self.sim_step_dt = 1 / action_frequency
        substeps, frames = self.rendering_dt / self.physics_dt, self.sim_step_dt / self.rendering_dt
        assert all(ratio > 0.999 and abs(ratio - round(ratio)) < 1e-4 for ratio in (substeps, frames)), (
            "rates do not nest"
        )
        self._render_on_step = True
        self._playing = False
        self._scenes = []
        self.steps = self.renders = 0
        self._leaked = []

    def is_playing(self):
        return self._playing

    def play(self):
        self._playing = True

    def stop(self):
        self._playing = False

    @contextlib.contextmanager
    def stopped(self):
        playing, self._playing = self._playing, False
        yield
        self._playing = playing

    @contextlib.contextmanager
    def render_on_step(self, value):
        before = self._render_on_step
        self._render_on_step = value
        yield  # no try: an exception in here leaves rendering as it is, as in the real one
        self._render_on_step = before

    def update_handles(self):
        pass

    def step(self):
        assert self._playing
        self.steps += 1
        if self.steps == 5:
            faults.strike("step")
        if faults.active("leak"):
            self._leaked.append(bytes(range(256)) * 8192)
        if faults.active("slow"):
            time.sleep(0.5)
        for _ in range(int(self.sim_step_dt // self.rendering_dt)):
            for _ in range(round(self.rendering_dt / self.physics_dt)):
                self.step_physics()
            if self._render_on_step:
                self.render()

    def step_physics(self):
        for scene in self._scenes:
            for robot in scene.robots:
                robot.advance(self.physics_dt)

    def render(self):
        self.renders += 1
        for scene in self._scenes:
            for robot in scene.robots:
                for camera in robot.sensors.values():
                    camera.render()

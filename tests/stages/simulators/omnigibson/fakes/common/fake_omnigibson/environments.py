"""Environment and VectorEnvironment of each generation and build."""

import copy
import sys

import torch

from fake_omnigibson import package, scene
from fake_omnigibson.task import CONFIG, BehaviorTask, BehaviorTaskOfScenes

DEFAULTS = {
    "env": {
        "action_frequency": 30, "rendering_frequency": 30, "physics_frequency": 120, "device": None,
        "automatic_reset": False, "flatten_action_space": False, "flatten_obs_space": False,
        "initial_pos_z_offset": 0.1, "external_sensors": None,
    },
    "render": {"viewer_width": 1280, "viewer_height": 720},
    "scene": {
        "waypoint_resolution": 0.2, "num_waypoints": 10, "trav_map_resolution": 0.1, "default_erosion_radius": 0.0,
        "trav_map_with_objects": True, "scene_instance": None, "scene_file": None,
    },
    "robots": [], "objects": [], "task": {"type": "DummyTask"}, "wrapper": {"type": None},
}  # fmt: skip
ROBOT = {
    "type", "model", "name", "position", "orientation", "pose_frame", "scale", "visible", "fixed_base",
    "self_collisions", "control_freq", "controller_config", "action_normalize", "reset_joint_pos", "obs_modalities",
    "include_sensor_names", "exclude_sensor_names", "proprio_obs", "sensor_config", "grasping_mode",
    "grasping_direction", "disable_grasp_handling", "default_reset_mode",
}  # fmt: skip
ONE_GENERATION = {"B": {"initial_pos_z_offset"}, "C": {"num_envs", "num_rerenders_on_reset"}}


class _Common:
    def _load(self, configs, count):
        """Build `count` scenes; what nobody reads is dropped without a word, and kept in `dropped` for the tests."""
        config = copy.deepcopy(DEFAULTS)
        for key, value in copy.deepcopy(configs).items():
            config[key] = {**config[key], **value} if isinstance(value, dict) else value
        self.config = config
        self.dropped = sorted(self._unread(configs))
        if package.generation == "C" and (unknown := set(config["robots"][0]) - (ROBOT - {"type"})):
            raise TypeError(f"Robot.__init__() got an unexpected keyword argument {unknown.pop()!r}")
        rates = {name: config["env"][name] for name in ("action_frequency", "rendering_frequency", "physics_frequency")}
        if package.og.sim is None:
            package.launch(**rates)
        sim = package.og.sim
        assert abs(sim.physics_dt - 1 / rates["physics_frequency"]) < 1e-9, "Physics dt must match!"
        assert not sim.is_playing(), "Simulator must be stopped before loading scene!"
        self._new_scenes = []
        for _ in range(count):
            verified = dict(config["scene"])
            if verified["scene_file"] is None and verified["scene_instance"] is None:
                task = config["task"]
                ids = (task.get("activity_definition_id", 0), task.get("activity_instance_id", 0))
                verified["scene_instance"] = BehaviorTask.get_cached_activity_scene_filename(
                    verified["scene_model"], task["activity_name"], *ids
                )
            built = scene.Scene(len(sim._scenes), verified)
            built.add_robot(config["robots"][0])
            sim._scenes.append(built)
            self._new_scenes.append(built)
        kind = BehaviorTaskOfScenes if (package.generation, package.build) == ("C", "upstream") else BehaviorTask
        self.task = kind(config["task"], self._new_scenes)

    def _unread(self, configs):
        generation = package.generation
        other = ONE_GENERATION["C" if generation == "B" else "B"]
        known = (set(DEFAULTS["env"]) | (ONE_GENERATION[generation] if package.build != "vector" else set())) - other
        yield from (f"env.{key}" for key in set(configs["env"]) - known)
        yield from (f"scene.{key}" for key in set(configs["scene"]) - scene.KEYS - {"type"})
        task = CONFIG - ({"predefined_problem"} if generation == "C" else set())
        yield from (f"task.{key}" for key in set(configs["task"]) - task)
        yield from (f"robots.{key}" for key in set(configs["robots"][0]) - ROBOT)

    def _observation(self, built):
        robot = built.robots[0]
        obs, info = robot.get_obs()
        seen = {robot.name: obs}
        if self.task.include_obs:
            seen["task"] = {"low_dim": torch.zeros(6)}
        return seen, {robot.name: info}


class EnvironmentB(_Common):
    """One scene; `in_vec_env` leaves playing and the rest of loading to the vector environment."""

    keeps_observation = False  # whether `_post_step` can do without

    def __init__(self, configs, in_vec_env=False):
        self._load(configs, 1)
        [self.scene] = self._new_scenes
        self.robots, self._current_step = self.scene.robots, 0
        if not in_vec_env:
            package.og.sim.play()
            self.post_play_load()

    def post_play_load(self):
        self.scene.update_initial_file()
        self.reset()

    @property
    def episode_steps(self):
        return self._current_step

    def get_obs(self):
        return self._observation(self.scene)

    def reset(self, get_obs=True, **kwargs):
        self.task.reset(0)
        self._current_step = 0
        if not get_obs:
            return None
        package.og.sim.step()
        for _ in range(3):
            package.og.sim.render()
        obs, info = self.get_obs()
        return obs, {"obs_info": info}

    def _pre_step(self, action):
        self.robots[0].apply_action(torch.as_tensor(action, dtype=torch.float).flatten())

    def _post_step(self, action, get_obs=True):
        obs, obs_info = self.get_obs() if get_obs else (None, None)
        reward, success, timeout, info = self.task.step(0, self._current_step)
        info["episode_length"] = self._current_step
        if get_obs:
            info["obs_info"] = obs_info
        self._current_step += 1
        return obs, reward, success, timeout, info

    def step(self, action, n_render_iterations=1):
        self._pre_step(action)
        package.og.sim.step()
        for _ in range(n_render_iterations - 1):
            package.og.sim.render()
        return self._post_step(action)

    def close(self):
        pass


class _Vector:
    def __init__(self, num_envs, config):
        og = package.og
        self.num_envs = num_envs
        if og.sim is not None:
            og.sim.stop()
        self.envs = [og.Environment(configs=copy.deepcopy(config), in_vec_env=True) for _ in range(num_envs)]
        og.sim.play()
        for env in self.envs:
            env.post_play_load()

    def reset(self, get_obs=True, **kwargs):
        told = [env.reset(get_obs=get_obs, **kwargs) for env in self.envs]
        return ([obs for obs, _ in told], [info for _, info in told]) if get_obs else None

    def _step(self, envs, actions, get_obs, render):
        for env, action in zip(envs, actions):  # noqa: B905
            env._pre_step(action)
        with package.og.sim.render_on_step(render):
            package.og.sim.step()
        told = [env._post_step(action, get_obs=get_obs) for env, action in zip(envs, actions)]  # noqa: B905
        return tuple(map(list, zip(*told)))  # noqa: B905

    def close(self):
        pass

    def __len__(self):
        return self.num_envs


class VectorUpstream(_Vector):
    """3.7.2 as Stanford has it: every step looks, and renders as the simulator is told to."""

    def step(self, actions):
        for env, action in zip(self.envs, actions):  # noqa: B905
            env._pre_step(action)
        package.og.sim.step()
        told = [env._post_step(action) for env, action in zip(self.envs, actions)]  # noqa: B905
        return tuple(map(list, zip(*told)))  # noqa: B905


class VectorFirstPatch(_Vector):
    """RLinf's fork at its first patch."""

    def step(self, actions, get_obs=True, render=True):
        return self._step(self.envs, actions, get_obs, render)


class VectorFork(_Vector):
    """RLinf's fork: some worlds can be stepped, though physics and rendering go on for all."""

    def step(self, actions, env_indices=None, get_obs=True, render=True):
        envs = self.envs if env_indices is None else [self.envs[int(index)] for index in env_indices]
        assert len(actions) == len(envs)
        return self._step(envs, actions, get_obs, render)

    def reset(self, get_obs=True, env_indices=None, **kwargs):
        envs = self.envs if env_indices is None else [self.envs[int(index)] for index in env_indices]
        told = [env.reset(get_obs=get_obs, **kwargs) for env in envs]
        return ([obs for obs, _ in told], [info for _, info in told]) if get_obs else None


class EnvironmentC(_Common):
    """3.9: one environment of several scenes."""

    def __init__(self, configs):
        if package.og.sim is not None:
            package.og.sim.stop()
        self.num_envs = configs["env"].get("num_envs", 1)
        self._load(configs, self.num_envs)
        self.scenes = self._new_scenes
        self.robots = [built.robots for built in self.scenes]
        self._current_steps = torch.zeros(self.num_envs, dtype=torch.int64)
        package.og.sim.play()
        for built in self.scenes:
            built.update_initial_file()
        self.reset()

    @property
    def episode_steps(self):
        return self._current_steps

    def get_obs(self, env_indices=None):
        indices = range(self.num_envs) if env_indices is None else [int(index) for index in env_indices]
        told = [self._observation(self.scenes[index]) for index in indices]
        return [obs for obs, _ in told], [info for _, info in told]

    def reset(self, env_indices=None, get_obs=True, **kwargs):
        indices = torch.arange(self.num_envs) if env_indices is None else env_indices
        assert isinstance(indices, torch.Tensor)
        for index in indices:
            self.task.reset(int(index))
        self._current_steps[indices] = 0
        if not get_obs:
            return None
        package.og.sim.step()
        for _ in range(self.config["env"].get("num_rerenders_on_reset", 3)):
            package.og.sim.render()
        obs, info = self.get_obs(indices)
        return obs, {"obs_info": info}

    def step(self, action, n_render_iterations=1):
        action = torch.as_tensor(action, dtype=torch.float)
        action = action.unsqueeze(0) if action.dim() == 1 else action
        for index, built in enumerate(self.scenes):
            built.robots[0].apply_action(action[index])
        package.og.sim.step()
        for _ in range(n_render_iterations - 1):
            package.og.sim.render()
        obs, obs_info = self.get_obs()
        told = [self.task.step(index, int(self._current_steps[index])) for index in range(self.num_envs)]
        infos = [info for *_, info in told]
        for index, info in enumerate(infos):
            info |= {"episode_length": int(self._current_steps[index]), "obs_info": obs_info[index]}
        self._current_steps += 1
        rewards = torch.tensor([reward for reward, *_ in told], dtype=torch.float32)
        terminated = torch.tensor([success for _, success, _, _ in told])
        truncated = torch.tensor([timeout for _, _, timeout, _ in told])
        return obs, rewards, terminated, truncated, infos

    def close(self):
        pass


classes = {
    ("B", "upstream"): {"Environment": EnvironmentB, "VectorEnvironment": VectorUpstream},
    ("B", "first_patch"): {"Environment": EnvironmentB, "VectorEnvironment": VectorFirstPatch},
    ("B", "fork"): {"Environment": EnvironmentB, "VectorEnvironment": VectorFork},
    ("C", "vector"): {"Environment": EnvironmentB, "VectorEnvironment": VectorUpstream},
    ("C", "upstream"): {"Environment": EnvironmentC},
}
assert sys.version_info >= (3, 10)

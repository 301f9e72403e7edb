"""A stand-in for ManiSkill's TwoRobotPickCube-v1 with many worlds: its batched interface, and hands without bodies.

What `Worlds` relies on is as in ManiSkill 3.0.1: a reset of some worlds (`env_idx`) leaves the others, seeds torch by
the first seed only and notes `left_init_qpos` for all; states are set row by row in ascending order of the worlds; a
step takes a dictionary of the arms' actions and moves every world.
"""

import types

import numpy as np
import torch

from stages.simulators.interface import SimulatorSpec, Task
from stages.simulators.maniskill.options import parse
from stages.simulators.maniskill.parallel import Parallel
from stages.simulators.maniskill.worlds import Worlds

PICK = "TwoRobotPickCube-v1"
SIZE = 32
SPEED = 0.04  # metres that a hand moves at an action of 1
CUBE = 0.02  # half its edge
HOLDS = 0.025  # within this distance a hand that closes takes the cube
REACHED = 0.025


class _Arm:
    """What the adapter reads off an arm."""

    def __init__(self, env, side):
        self._env, self._side = env, side
        self.robot = self

    @property
    def tcp(self):
        count = self._env.num_envs
        yaw = self._env.base[self._side] / 2  # half of the angle, and fingers down
        down = torch.tensor([0.0, np.cos(yaw), np.sin(yaw), 0.0]).expand(count, 4).float()
        return types.SimpleNamespace(pose=types.SimpleNamespace(p=self._env.hand[:, self._side], q=down))

    @property
    def pose(self):
        yaw = self._env.base[self._side] / 2
        upright = torch.tensor([np.cos(yaw), 0.0, 0.0, np.sin(yaw)]).expand(self._env.num_envs, 4).float()
        return types.SimpleNamespace(p=torch.zeros(self._env.num_envs, 3), q=upright)

    def get_qpos(self):
        finger = self._env.opening[:, self._side, None] / 2
        return torch.cat([self._env.hand[:, self._side], torch.zeros(self._env.num_envs, 4), finger, finger], dim=1)


class StandIn:
    """`count` worlds."""

    base = (np.pi / 2, -np.pi / 2)

    def __init__(self, count):
        self.num_envs, self.device = count, torch.device("cpu")
        self.hand = torch.zeros(count, 2, 3)
        self.opening = torch.zeros(count, 2)
        self.held = torch.full((count,), -1.0)
        self.places = torch.zeros(count, 2, 3)  # of the cube and of its goal
        self.left_init_qpos = None
        self.closed = False
        self.resets = []
        agents = [_Arm(self, 0), _Arm(self, 1)]
        self.agent = types.SimpleNamespace(agents=agents, agents_dict=dict(zip("lr", agents, strict=True)))
        self._batched_episode_rng = types.SimpleNamespace(rngs=[np.random.RandomState(2022 + i) for i in range(count)])
        self._episode_rng = self._batched_episode_rng.rngs[0]
        self.reset(seed=[2022 + i for i in range(count)])

    @property
    def cube(self):
        return self._thing(0)

    @property
    def goal_site(self):
        return self._thing(1)

    def reset(self, seed=None, options=None):
        rows = (options or {}).get("env_idx", torch.arange(self.num_envs))
        self.resets.append(rows.tolist())
        if seed is None:
            return self._initialize(rows)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed[0])
            self._episode_rng = np.random.RandomState(seed[0])
            return self._initialize(rows)

    def step(self, actions):
        assert list(actions) == ["l", "r"]
        for side, action in enumerate(actions.values()):
            assert action.shape == (self.num_envs, 7)
            assert action.dtype == torch.float32
            self._move(side, action)
        success = torch.linalg.norm(self.places[:, 0] - self.places[:, 1], dim=1) <= REACHED
        return {}, success.float(), success, torch.zeros(self.num_envs, dtype=bool), {"success": success}

    def get_state_dict(self):
        still = torch.zeros(self.num_envs, 10)
        bodies = torch.cat([self.hand.flatten(1), self.opening, self.held[:, None]], dim=1)
        return {
            "actors": {name: torch.cat([self.places[:, i], still], 1) for i, name in enumerate(("cube", "goal_site"))},
            "articulations": {"arms": bodies},
        }

    def set_state_dict(self, state, env_idx):
        rows = torch.zeros(self.num_envs, dtype=bool)
        rows[env_idx] = True
        for i, name in enumerate(("cube", "goal_site")):
            self.places[rows, i] = state["actors"][name][:, :3]
        bodies = state["articulations"]["arms"]
        assert len(bodies) == rows.sum()
        self.hand[rows] = bodies[:, :6].reshape(-1, 2, 3)
        self.opening[rows], self.held[rows] = bodies[:, 6:8], bodies[:, 8]

    def close(self):
        self.closed = True

    def _initialize(self, rows):
        count = len(rows)
        noise = torch.from_numpy(self._episode_rng.normal(0, 0.02, (count, 2, 3))).float()
        self.hand[rows] = torch.tensor([[0.0, -0.13, 0.18], [0.0, 0.13, 0.18]]) + noise
        self.opening[rows], self.held[rows] = 0.08, -1.0
        self.left_init_qpos = self.agent.agents[0].get_qpos().clone()
        low = torch.tensor([[-0.05, -0.2, CUBE], [-0.05, 0.1, CUBE]])
        self.places[rows] = low + torch.rand(count, 2, 3) * torch.tensor([[0.1, 0.1, 0.0], [0.1, 0.1, 0.3]])

    def _move(self, side, action):
        action = action.clamp(-1, 1)
        cosine, sine = np.cos(self.base[side]), np.sin(self.base[side])
        x, y, z = action[:, 0], action[:, 1], action[:, 2]
        motion = SPEED * torch.stack([cosine * x - sine * y, sine * x + cosine * y, z], dim=1)
        self.hand[:, side] += motion
        self.hand[:, side, 2].clamp_(min=0.01)
        wanted = (action[:, 6] + 1) * 0.04
        holding = self.held == side
        wanted = torch.where(holding, wanted.clamp(min=2 * CUBE), wanted)
        self.opening[:, side] += (wanted - self.opening[:, side]).clamp(-0.02, 0.02)
        near = torch.linalg.norm(self.hand[:, side] - self.places[:, 0], dim=1) < HOLDS
        takes = near & (self.held < 0) & (self.opening[:, side] <= 2 * CUBE + 1e-6)
        drops = holding & (self.opening[:, side] > 2 * CUBE + 0.01)
        self.held[takes], self.held[drops] = float(side), -1.0
        self.places[holding & ~drops, 0] += motion[holding & ~drops]
        self.places[drops, 0, 2] = CUBE

    def _thing(self, number):
        upright = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(self.num_envs, 4)
        return types.SimpleNamespace(pose=types.SimpleNamespace(p=self.places[:, number], q=upright))


class Coloured(Worlds):
    """Worlds whose pictures tell how high the left hands are."""

    drawn = 0

    def look(self):
        self.drawn += 1
        shade = (self.env.hand[:, 0, 2] * 500).clamp(0, 255).to(torch.uint8)
        head = shade[:, None, None, None].expand(self.count, 3, SIZE, SIZE)
        return head, head[:, None].expand(self.count, 2, 3, SIZE, SIZE)

    def proprioception(self):
        return self.env.hand.flatten(1).repeat(1, 6)[:, :32]


def make(num_envs, options):
    """The simulator of many worlds over the stand-in; a simulator that a config could name."""
    parsed = parse({"tasks": [PICK], "backend": "physx_cuda", "image_size": SIZE, **options})
    limit = parsed.max_episode_steps or 100
    spec = SimulatorSpec(
        "maniskill", "", "", (Task(PICK, ""),), 14, 32, (SIZE, SIZE), limit, False, one_clock=True, wrist_cameras=2
    )
    return Parallel(Coloured(StandIn(num_envs), PICK), spec, parsed)

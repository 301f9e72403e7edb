"""BehaviorTask: both hands at the height of the thing, told as a BDDL goal with two groundings."""

import numpy as np

from fake_omnigibson import faults, package

ACTIVITIES = ("turning_on_radio", "picking_up_trash")
CONFIG = {
    "type", "activity_name", "activity_definition_id", "activity_instance_id", "predefined_problem",
    "online_object_sampling", "use_presampled_robot_pose", "randomize_presampled_pose", "sampling_whitelist",
    "sampling_blacklist", "highlight_task_relevant_objects", "termination_config", "reward_config", "include_obs",
}  # fmt: skip


class Head:
    """A ground predicate: a hand is as high as the thing."""

    def __init__(self, scenes, arm):
        self._scenes, self._arm, self.terms = scenes, arm, ["raised", arm]
        self.currently_satisfied = False

    def check(self, index):
        scene = self._scenes[index]
        self.currently_satisfied = bool(scene.robots[0].hand(self._arm)[2] >= scene.thing.position[2])
        return self.currently_satisfied

    def evaluate(self):
        return self.check(0)


class UnboundHead(Head):
    """Of bddl 3.7, which is told how to look a predicate up."""

    def evaluate(self, evaluate_predicate):
        return evaluate_predicate(*self.terms)


class BehaviorTask:
    def __init__(self, config, scenes):
        from omnigibson.macros import gm

        assert gm.ENABLE_OBJECT_STATES, "Must set gm.ENABLE_OBJECT_STATES=True in order to use BehaviorTask!"
        name = config["activity_name"]
        assert name in ACTIVITIES, f"Invalid Behavior Task received: {name}"
        assert not (config.get("online_object_sampling") and config.get("use_presampled_robot_pose", True))
        for part, default in (("termination_config", {"max_steps": 500}), ("reward_config", {"r_potential": 1.0})):
            given = config.get(part) or {}
            unknown = set(given) - set(default)
            assert not unknown, f"Got unknown {part.partition('_')[0]} config keys inputted: {unknown}"
            setattr(self, f"_{part}", default | given)
        self.activity_name, self.scene_name = name, scenes[0].scene_model
        self.activity_definition_id = config.get("activity_definition_id", 0)
        self.include_obs = config.get("include_obs", True)
        self._scenes = scenes
        scopes = [{"radio.n.01_1": scene.thing, "agent.n.01_1": scene.robots[0]} for scene in scenes]
        if (package.generation, package.build) == ("C", "upstream"):
            self.object_scopes = scopes
        else:
            self.object_scope = scopes[0]
        head = Head if package.generation == "B" else UnboundHead
        left, right = head(scenes, "left"), head(scenes, "right")
        self.activity_goal_conditions = [left, right]
        self.ground_goal_state_options = [[left, right], [right, left, left]]
        if faults.active("predicates"):
            self.ground_goal_state_options = [[left, right, left], [right]]
        self._potential = np.zeros(len(scenes))

    @staticmethod
    def get_cached_activity_scene_filename(scene_model, activity_name, activity_definition_id, activity_instance_id):
        return f"{scene_model}_task_{activity_name}_{activity_definition_id}_{activity_instance_id}_template"

    def _evaluate_predicate(self, *terms):
        """3.8 has one world a task; later the world is the first argument."""
        *world, _, arm = terms
        return Head(self._scenes, arm).check(world[0] if world else 0)

    def reset(self, index):
        scene = self._scenes[index]
        scene.reset()
        poses = scene.get_task_metadata("robot_poses")
        poses = {key.lower(): value for key, value in poses.items()}
        pose = poses.get("robot", poses["r1pro"])[0]
        scene.robots[0].set_position_orientation(pose["position"], pose["orientation"], frame="scene")
        self._potential[index] = self._satisfied(index)

    def _satisfied(self, index):
        option = self.ground_goal_state_options[0]
        return sum(head.check(index) for head in option) / len(option)

    def step(self, index, episode_steps):
        """Reward, whether it is over, and info of a world; the step counter is the one before this step."""
        now = self._satisfied(index)
        potential = self._reward_config["r_potential"] * (now - self._potential[index])
        self._potential[index] = now
        success = now == 1.0
        late = faults.active("late_timeout")
        timeout = bool(episode_steps >= self._termination_config["max_steps"] + late)
        option = self.ground_goal_state_options[0]
        satisfied = [i for i, head in enumerate(option) if head.currently_satisfied]
        done = {
            "success": success,
            "termination_conditions": {
                "timeout": {"done": timeout, "success": False},
                "predicate": {"done": success, "success": success},
            },
            "goal_status": {
                "satisfied": satisfied,
                "unsatisfied": [i for i in range(len(option)) if i not in satisfied],
            },
        }
        info = {"reward": {"potential": potential, "reward_breakdown": {"potential": potential}}, "done": done}
        if faults.active("no_success"):
            del info["done"]
        return potential, success, timeout, info


class BehaviorTaskOfScenes(BehaviorTask):
    """Of 3.9.3: one task for all scenes."""

    def get_goal_option_satisfaction(self, env_idx):
        return [[head.check(env_idx) for head in option] for option in self.ground_goal_state_options]

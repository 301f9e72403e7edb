"""Evaluate a policy version on held-out initial states, and film some of the episodes.

    python -m stages.evaluate runs/quickstart --epoch 0

The initial states are the same for every version and every run (`stages.schedule`), so successes can be compared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from stages import schedule
from stages.door import run_stage
from stages.play import LOG, Played, Player, logged
from stages.simulation import open_pool
from stages.unit import Work, prepare_torch
from stages.video.filming import filming


def main() -> int:
    """Carry out the units that the command line names."""
    return run_stage("evaluate", evaluate)


def evaluate(work: Work) -> None:
    """Play every held-out episode; write `episodes.jsonl`, `simulator.json`, films and the success rates."""
    config, stage = work.config, work.config.evaluate
    with work.phases("load"):
        device = prepare_torch(stage.threads)
        from stages.policies import interface as policies
        from stages.policy_actor import PolicyActor

        policy = policies.load(work.policy(work.unit.epoch), device, config.policy.precision).eval()
        if config.policy.compile:
            policy.accelerate()
    plan = schedule.evaluations(config)
    scratch = work.scratch("evaluate")
    outcomes, solved = dict[int, Played](), 0
    with open_pool(work, stage) as pool, filming(work, pool.spec) as films:
        about = {"name": pool.spec.name, "version": pool.spec.version, "renderer": pool.spec.renderer}
        (scratch / "simulator.json").write_text(json.dumps({**about, "split": schedule.EVALUATION}) + "\n")
        actor = PolicyActor(pool, policy, temperature=stage.temperature or 1.0, coherent=False, phases=work.phases)
        player = Player(pool, actor, groups=stage.pipeline_stage_num, phases=work.phases, shoot=films.shoot)
        for played in logged(work.directory / LOG, player.play(plan)):
            outcomes[played.planned.index] = played
            played.forget_images()
            solved += played.success
            work.tell(len(outcomes), len(plan), {"env/success_rate": solved / len(outcomes)})
    played_all = [outcomes[i] for i in sorted(outcomes)]
    with (scratch / "episodes.jsonl").open("w") as file:
        for played in played_all:
            file.write(json.dumps(outcome(played)) + "\n")
    work.summary |= env_metrics(played_all)


def outcome(played: Played) -> dict[str, object]:
    """A line of `episodes.jsonl`."""
    return {
        "task": played.planned.task,
        "seed": played.planned.seed,
        "success": played.success,
        "steps": played.steps,
        "return": played.reward,
        **({} if played.score is None else {"q_score": played.score}),
    }


def env_metrics(played: list[Played]) -> dict[str, float]:
    """Success, reward a step and the share of steps that end an episode, over all episodes and by task."""
    steps = sum(p.steps for p in played)
    metrics = {
        "env/success_rate": mean(played, lambda p: p.success),
        "env/step_reward": sum(p.reward for p in played) / steps,
        "env/termination_rate": sum(p.terminated for p in played) / steps,
        "env/episode_length": mean(played, lambda p: p.steps),
        "env/episodes": float(len(played)),
    }
    if scores := [p.score for p in played if p.score is not None]:
        metrics["env/q_score"] = sum(scores) / len(scores)
    for task in dict.fromkeys(p.planned.task for p in played):
        metrics[f"env/success_rate/{task}"] = mean([p for p in played if p.planned.task == task], lambda p: p.success)
    return metrics


def mean(played: list[Played], of: Callable[[Played], float]) -> float:
    """Mean over episodes."""
    return sum(float(of(p)) for p in played) / len(played)


if __name__ == "__main__":
    sys.exit(main())

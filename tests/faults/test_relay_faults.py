"""The real relay, tiny: whatever is killed whenever, the same command ends in the same policy, bit for bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.artifacts import Unit, open_artifact
from stages.trajectories import read

pytestmark = pytest.mark.slow

RECIPE = """
epochs: 2
simulator:
  tasks: [pick_onto_plate]
  image_size: 32
  max_episode_steps: 24
  options: {object_size: 0.05, plate_radius: 0.09, spread: 0.2, arms: right, renderer: raycast}
policy: {precision: fp32, chunk: 8}
demonstrate: {episodes: 4, num_envs: 2, stride: 8, max_episode_steps: 60}
sft: {steps: 4, batch: 8, threads: 1, optimizer: {name: muon, lr: 2.0e-3}}
rollout: {episodes: 8, shards: 2, num_envs: 2}
update: {minibatch: 8, threads: 1, processes: 1}
evaluate: {episodes: 4, num_envs: 4, num_workers: 2, threads: 1}
video_cfg: {episodes: 1}
trainer: {logger: {mlflow: {enable: false}}}
slurm: {launcher: local}
"""


def command(recipe: Path, *overrides: str) -> list[str]:
    runs = f"runs_dir={recipe.parent / 'runs'}"
    return [sys.executable, "-c", "from pipeline.cli import main; main()", "run", str(recipe), runs, *overrides]


def relay(recipe: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(recipe, *overrides), capture_output=True, text=True, timeout=500)


def processes_of(run: Path) -> list[psutil.Process]:
    """Stages and simulator workers of a run; they name its directory, or descend from one that does."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if str(run) in " ".join(process.cmdline()) and process.pid != os.getpid():
                found |= {p.pid: p for p in [process, *process.children(recursive=True)]}
        except psutil.Error:
            continue
    return list(found.values())


def policies(run: Path) -> dict[str, str]:
    """Digest of every artifact that carries numbers on, whatever attempt made it."""
    units = [Unit(0, "sft"), Unit(1, "update"), Unit(2, "update")]
    places = {unit.outputs["policy"]: run / unit.outputs["policy"] for unit in units}
    digests = {}
    for name, path in places.items():
        artifact = open_artifact(path)
        assert artifact is not None, f"{path} is not published"
        digests[name] = artifact.verify().digest
    return digests


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE)
    done = relay(recipe)
    assert done.returncode == 0, done.stderr + done.stdout
    return recipe


def test_the_relay_ends_with_a_result(undisturbed):
    run = undisturbed.parent / "runs" / "tiny"
    assert (run / "result.json").is_file()
    assert "warm start" in (run / "result.txt").read_text()
    assert len(list(run.glob("epochs/0002/evaluate/videos/*.mp4"))) == 1
    assert relay(undisturbed).returncode == 0, "a run that is done is only shown again"


def test_kills_at_random_moments_change_nothing(undisturbed, tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown by pytest when this fails
    rng = random.Random(seed)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    run = tmp_path / "runs" / "tiny"
    killed: list[str] = []
    deadline = time.monotonic() + 450
    while True:
        orchestrator = subprocess.Popen(
            command(recipe, "max_attempts=50"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            while orchestrator.poll() is None and len(killed) < 6:
                time.sleep(rng.uniform(2.0, 7.0))
                victims = [*processes_of(run)]
                stages = [p for p in victims if p.pid != orchestrator.pid]
                victim = rng.choice(stages) if stages and rng.random() < 0.7 else psutil.Process(orchestrator.pid)
                try:
                    killed.append(" ".join(victim.cmdline())[-60:])
                    victim.send_signal(signal.SIGKILL)
                except psutil.Error:
                    continue
            output, _ = orchestrator.communicate(timeout=max(1.0, deadline - time.monotonic()))
        finally:
            orchestrator.kill()
        if orchestrator.returncode == 0:
            break
        assert orchestrator.returncode == -signal.SIGKILL, f"seed {seed}, after killing {killed}:\n{output}"
    assert killed
    assert policies(run) == policies(undisturbed.parent / "runs" / "tiny"), f"seed {seed}, after killing {killed}"


def damaged(undisturbed: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the run as it was before its last update."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    shutil.copytree(undisturbed.parent / "runs", tmp_path / "runs")
    run = tmp_path / "runs" / "tiny"
    for name in ("update", "engine", "evaluate"):
        shutil.rmtree(run / "epochs" / "0002" / name)
    shutil.rmtree(run / "policies" / "0002")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(str(undisturbed.parent / "runs"), str(tmp_path / "runs")))
    return recipe, run


def test_a_cut_or_edited_shard_is_named_with_its_remedy_which_works(undisturbed, tmp_path):
    recipe, run = damaged(undisturbed, tmp_path)
    shard = run / "epochs/0002/rollout/shard-0001"
    victim = max((p for p in shard.glob("observations/head/**/*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-7])
    refused = relay(recipe)
    assert refused.returncode == 2
    lines = [line for line in refused.stderr.splitlines() if "damaged" in line]
    assert len(lines) == 1
    assert "Traceback" not in refused.stderr
    remedy = f"rerun {run} rollout --epoch 2 --shard 1"
    assert f"baton {remedy}" in lines[0]
    baton = [sys.executable, "-c", "from pipeline.cli import main; main()"]
    assert subprocess.run([*baton, *remedy.split()], capture_output=True).returncode == 0
    again = relay(recipe)
    assert again.returncode == 0, again.stderr
    assert policies(run) == policies(undisturbed.parent / "runs" / "tiny")


def test_a_stage_alone_does_one_unit_as_the_orchestrator_would(undisturbed, tmp_path):
    _, run = damaged(undisturbed, tmp_path)
    alone = [sys.executable, "-m", "stages.update", str(run), "--epoch", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(alone, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    assert policies(run) == policies(undisturbed.parent / "runs" / "tiny")


def test_grpo_on_two_ranks_with_split_optimizer_state(undisturbed, tmp_path):
    _, run = damaged(undisturbed, tmp_path)
    for part in ("policies/0001", "epochs/0001", "epochs/0002"):
        shutil.rmtree(run / part)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["algorithm"]["name"], config["rollout"]["group_size"] = "grpo", 4
    config["update"]["processes"], config["deepspeed"]["zero_stage"] = 2, 2
    config["sft"]["optimizer"]["name"] = "adamw"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for module, shard in (("rollout", 0), ("rollout", 1), ("update", None)):
        alone = [sys.executable, "-m", f"stages.{module}", str(run), "--epoch", "1"]
        done = subprocess.run(
            alone if shard is None else [*alone, "--shard", str(shard)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    groups = [read(run / f"epochs/0001/rollout/shard-000{s}").episodes for s in range(2)]
    assert [g.group.tolist() for g in groups] == [[0] * 4, [1] * 4]
    assert all(len(set(g.seed.tolist())) == 1 for g in groups), "a group starts from one state"
    update = open_artifact(run / "epochs/0001/update")
    assert update is not None
    assert "actor/policy_loss" in update.verify().manifest.metrics
    assert "actor/value_loss" not in update.manifest.metrics, "GRPO has no critic"


def test_stale_rollouts_with_a_kl_to_the_warm_start_in_small_pieces(undisturbed, tmp_path):
    _, run = damaged(undisturbed, tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["rollout"]["staleness"], config["update"]["micro_batch"] = 1, 3
    config["algorithm"] |= {"kl_coef": 0.1, "entropy_coef": 0.01}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    alone = [sys.executable, "-m", "stages.update", str(run), "--epoch", "2"]
    done = subprocess.run(alone, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert policies(run)["policies/0002"] != policies(undisturbed.parent / "runs" / "tiny")["policies/0002"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("simulator.tasks=[fold_laundry]", "baton tasks household"),
        ("rollout.num_workers=500", "rollout.num_workers"),
        ("simulator.options={object_sise: 0.05}", "object_size"),
        ("rollout.episods=8", "episodes"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(tmp_path, override, says):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    refused = relay(recipe, override)
    assert refused.returncode == 2
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr + refused.stdout


def test_a_config_spoilt_by_hand_is_one_clear_line(undisturbed, tmp_path):
    _, run = damaged(undisturbed, tmp_path)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("epochs: 2", "epochs: many"))
    alone = [sys.executable, "-m", "stages.update", str(run), "--epoch", "2"]
    refused = subprocess.run(alone, capture_output=True, text=True, timeout=200)
    assert refused.returncode == 2
    assert "epochs" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_full_disk_is_one_clear_line_and_loses_nothing(undisturbed, tmp_path):
    _, run = damaged(undisturbed, tmp_path)
    attempts = run / "attempts" / "e0002-update"
    shutil.rmtree(attempts)
    attempts.mkdir()
    small = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*small, f"mount -t tmpfs -o size=4m tmpfs {attempts}"], capture_output=True).returncode:
        pytest.skip("this machine lets no one mount a small disk (unshare --user --mount): a full one cannot be made")
    alone = f"{sys.executable} -m stages.update {run} --epoch 2; echo exit code $?; ls {attempts}/*"
    script = f"mount -t tmpfs -o size=4m tmpfs {attempts} && {alone}"
    refused = subprocess.run([*small, script], capture_output=True, text=True, timeout=200)
    assert "exit code 2" in refused.stdout, refused.stderr
    assert "the disk is full" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "scratch" not in refused.stdout, "what was half written is gone"
    assert not (run / "epochs/0002/update").exists()
    alone_again = [sys.executable, "-m", "stages.update", str(run), "--epoch", "2"]
    assert subprocess.run(alone_again, capture_output=True, timeout=200).returncode == 0
    assert policies(run) == policies(undisturbed.parent / "runs" / "tiny")

"""The batch script, read by people, by bash and by sbatch."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from slurm.cluster import ClusterError, packages
from slurm.launcher import EXIT, KEY_VARIABLE, LOG, Request, fill
from slurm.options import Options
from slurm.script import RESTARTS, batch_script, gpu_request, ranges

ROLLOUT = Request(
    key="run-1:e0003-rollout-s%4a:1",
    name="run-e0003-rollout",
    module="stages.rollout",
    arguments=("/data/run", "--epoch", "3", "--shard", "%a", "--attempt", "1"),
    folder=Path("/data/run/attempts/e0003-rollout-s%4a/1"),
    environment={"OMP_NUM_THREADS": "2", "PYTHONPATH": "/code", "BATON_CELL": "1+1"},
    options=Options(time=240, partition="sim", array_throttle=4),
    cpus=3,
    gpus=2,
    gpu_type="rtx",
    indices=(0, 1, 2, 7),
)
ARRAY = f"""\
#!/bin/bash

# Parameters
#SBATCH --array=0-2,7%4
#SBATCH --comment=run-1:e0003-rollout-s%4a:1
#SBATCH --cpus-per-task=3
#SBATCH --gres=gpu:rtx:2
#SBATCH --job-name=run-e0003-rollout
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/data/run/attempts/e0003-rollout-s%4a/1/log.txt
#SBATCH --partition=sim
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=240

# command
printf -v task %04d "$SLURM_ARRAY_TASK_ID"
export BATON_CELL=1+1
export OMP_NUM_THREADS=2
export PYTHONPATH=/code
export BATON_KEY=run-1:e0003-rollout-s"$task":1
folder=/data/run/attempts/e0003-rollout-s"$task"/1
rm -f "$folder/exit"
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=3 --kill-on-bad-exit=1 --unbuffered {sys.executable} \
-u -P -m stages.rollout /data/run --epoch 3 --shard "$SLURM_ARRAY_TASK_ID" --attempt 1
code=$?
echo "$code" > "$folder/exit"
exit "$code"
"""

UPDATE = Request(
    key="run-1:e0003-update:2",
    name="run-e0003-update",
    module="stages.update",
    arguments=("/data/run", "--epoch", "3", "--attempt", "2"),
    folder=Path("/data/run/attempts/e0003-update/2"),
    environment={"PYTHONPATH": "/code"},
    options=Options(
        time=90,
        partition="train",
        account="lab",
        qos="high",
        constraint="ib&h100",
        reservation="deadline",
        nodelist="n[1-4]",
        exclude="n3",
        gres="nvme:1",
        gpu_option="gpus-per-node",
        mem="64G",
        mail_user="me@example.org",
        mail_type="FAIL",
        requeue=False,
        signal_seconds=300,
        setup=("module load cuda", "export GREETING='good day'"),
        extra={"exclusive": True, "nice": 100, "licenses": "sim:1"},
        python="apptainer exec --nv 'my image.sif' python3",
    ),
    tasks=8,
    nodes=2,
    cpus=6,
    gpus=4,
    gpu_type="h100",
)
MULTI_NODE = """\
#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --comment=run-1:e0003-update:2
#SBATCH --constraint='ib&h100'
#SBATCH --cpus-per-task=6
#SBATCH --exclude=n3
#SBATCH --exclusive
#SBATCH --gpus-per-node=h100:4
#SBATCH --gres=nvme:1
#SBATCH --job-name=run-e0003-update
#SBATCH --licenses=sim:1
#SBATCH --mail-type=FAIL
#SBATCH --mail-user=me@example.org
#SBATCH --mem=64G
#SBATCH --nice=100
#SBATCH --no-requeue
#SBATCH --nodelist='n[1-4]'
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/data/run/attempts/e0003-update/2/log.txt
#SBATCH --partition=train
#SBATCH --qos=high
#SBATCH --reservation=deadline
#SBATCH --signal=USR2@300
#SBATCH --time=90

# setup
module load cuda
export GREETING='good day'

# command
export PYTHONPATH=/code
export BATON_KEY=run-1:e0003-update:2
folder=/data/run/attempts/e0003-update/2
rm -f "$folder/exit"
srun --nodes=2 --ntasks=8 --ntasks-per-node=4 --cpus-per-task=6 --kill-on-bad-exit=1 --unbuffered \
apptainer exec --nv 'my image.sif' python3 -u -P -m stages.update /data/run --epoch 3 --attempt 2
code=$?
echo "$code" > "$folder/exit"
exit "$code"
"""

LINK = dataclasses.replace(
    UPDATE,
    options=Options(time=60, python="python3"),
    tasks=1,
    nodes=1,
    cpus=2,
    gpus=0,
    after=("101_0", "101_1", "99"),
)
CHAIN_LINK = """\
#!/bin/bash

# Parameters
#SBATCH --comment=run-1:e0003-update:2
#SBATCH --cpus-per-task=2
#SBATCH --dependency=afterok:101_0:101_1:99
#SBATCH --job-name=run-e0003-update
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/data/run/attempts/e0003-update/2/log.txt
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=60

# command
export PYTHONPATH=/code
export BATON_KEY=run-1:e0003-update:2
folder=/data/run/attempts/e0003-update/2
rm -f "$folder/exit"
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=2 --kill-on-bad-exit=1 --unbuffered \
python3 -u -P -m stages.update /data/run --epoch 3 --attempt 2
code=$?
# 75: its time was up, or it has to make room, and it goes on when it is started again
if [ "$code" = 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 5 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
echo "$code" > "$folder/exit"
exit "$code"
"""

SRUN = """#!/bin/bash
printf '%s\\0' "$@" > "$RECORD/argv"
env -0 > "$RECORD/environment"
[ -e "$FOLDER/exit" ] && touch "$RECORD/exit-was-there"
exit "${CODE:-0}"
"""
SCONTROL = """#!/bin/bash
printf '%s\\n' "$*" >> "$RECORD/scontrol"
"""
HARD_NAMES = ("plain", "with space", "it's", 'a "quote"', "100%", "50% off & $HOME; `true` \\ *", "ümlaut#")


def made_in(base: Path, request: Request) -> Request:
    """The request with folders below a directory, as the orchestrator makes them."""
    folder = base / "run" / "attempts" / (request.folder.parent.name) / request.folder.name
    made = dataclasses.replace(request, folder=folder, arguments=(str(base / "run"), *request.arguments[1:]))
    for single in made.members().values():
        single.folder.mkdir(parents=True)
    return made


def execute(
    script: str, record: Path, folder: Path, variables: Mapping[str, str] | None = None
) -> tuple[int, list[str], dict[str, str]]:
    """Run a script with an srun that only notes how it was called.

    Returns:
        The script's exit code; srun's arguments; srun's environment.
    """
    commands = record / "commands"
    commands.mkdir(parents=True, exist_ok=True)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    given = {"PATH": f"{commands}:{os.environ['PATH']}", "RECORD": str(record), "FOLDER": str(folder), "HOME": "/x"}
    done = subprocess.run(["bash"], input=script, text=True, env={**given, **(variables or {})}, capture_output=True)
    assert done.stderr == ""
    argv = (record / "argv").read_text().split("\0")[:-1]
    pairs = (entry.partition("=") for entry in (record / "environment").read_text().split("\0")[:-1])
    return done.returncode, argv, {name: value for name, _, value in pairs}


def headers(script: str) -> dict[str, str]:
    """Options of the header by name, as a shell would read them."""
    (words,) = [shlex.split("\n".join(re.findall(r"^#SBATCH (.*)$", script, flags=re.MULTILINE)))]
    return {name: value for name, _, value in (word.removeprefix("--").partition("=") for word in words)}


def expanded(pattern: str, index: int) -> str:
    """A file name as sbatch makes it of a pattern."""
    return re.sub(r"%(%|4a|a)", lambda found: "%" if found[1] == "%" else fill(found[0], index), pattern)


@pytest.mark.parametrize(
    ("request_", "requeues_itself", "text"),
    [(ROLLOUT, False, ARRAY), (UPDATE, False, MULTI_NODE), (LINK, True, CHAIN_LINK)],
    ids=["array", "multi-node", "chain link"],
)
def test_the_script_reads_as_it_is_meant(request_: Request, requeues_itself: bool, text: str) -> None:
    script = batch_script(request_, requeues_itself=requeues_itself)
    assert script == text
    assert script == batch_script(request_, requeues_itself=requeues_itself)
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""


@pytest.mark.parametrize("name", HARD_NAMES)
def test_a_task_of_an_array_gets_its_own_index_folder_and_key(tmp_path: Path, name: str) -> None:
    variables = {"TEXT": f"{name} %x", "PYTHONPATH": f"/code:{tmp_path}/{name}"}
    request = dataclasses.replace(made_in(tmp_path / name, ROLLOUT), environment=variables)
    script = batch_script(request)
    for index, single in zip(request.indices, request.members().values(), strict=True):
        record = tmp_path / f"record-{index}"
        code, argv, environment = execute(
            script, record, single.folder, {"SLURM_ARRAY_TASK_ID": str(index), "CODE": str(index)}
        )
        assert argv[-len(single.arguments) :] == list(single.arguments)
        assert argv[argv.index("-m") + 1] == "stages.rollout"
        assert environment[KEY_VARIABLE] == single.key
        assert {key: environment[key] for key in variables} == variables
        assert code == index
        assert (single.folder / EXIT).read_text() == f"{index}\n"
        assert expanded(headers(script)["output"], index) == str(single.folder / LOG)


@pytest.mark.parametrize("name", HARD_NAMES)
def test_a_single_job_keeps_paths_and_words_as_they_are(tmp_path: Path, name: str) -> None:
    request = made_in(tmp_path / name, UPDATE)
    options = dataclasses.replace(request.options, setup=("export GREETING='good day'",))
    script = batch_script(dataclasses.replace(request, options=options))
    code, argv, environment = execute(script, tmp_path / "record", request.folder, {"CODE": "3"})
    assert argv[-5:] == [str(tmp_path / name / "run"), "--epoch", "3", "--attempt", "2"]
    program = ["apptainer", "exec", "--nv", "my image.sif", "python3", "-u", "-P", "-m", "stages.update"]
    assert argv[argv.index("apptainer") : -5] == program
    assert {"--nodes=2", "--ntasks=8", "--cpus-per-task=6", "--kill-on-bad-exit=1"} <= set(argv)
    assert (environment[KEY_VARIABLE], environment["GREETING"]) == (request.key, "good day")
    assert (code, (request.folder / EXIT).read_text()) == (3, "3\n")
    assert expanded(headers(script)["output"], 0) == str(request.folder / LOG)


@pytest.mark.parametrize(("code", "restarts", "requeued"), [(75, 0, 1), (75, RESTARTS, 0), (1, 0, 0), (0, 0, 0)])
def test_a_link_that_was_told_to_stop_puts_itself_back_a_few_times(
    tmp_path: Path, code: int, restarts: int, requeued: int
) -> None:
    request = made_in(tmp_path, LINK)
    variables = {"CODE": str(code), "SLURM_RESTART_COUNT": str(restarts), "SLURM_JOB_ID": "17"}
    ended, _, _ = execute(batch_script(request, requeues_itself=True), tmp_path / "r", request.folder, variables)
    assert ended == code
    requeues = tmp_path / "r" / "scontrol"
    assert (requeues.read_text().splitlines() if requeues.exists() else []) == ["requeue 17"] * requeued
    execute(batch_script(request), tmp_path / "plain", request.folder, variables)
    assert not (tmp_path / "plain" / "scontrol").exists(), "whoever supervises submits it again"


def test_a_job_that_is_started_again_has_not_ended(tmp_path: Path) -> None:
    request = made_in(tmp_path, LINK)
    for start in ("first", "second"):
        execute(batch_script(request), tmp_path / start, request.folder, {"CODE": "75"})
    assert not (tmp_path / "second" / "exit-was-there").exists(), "the orchestrator would ask Slurm every second"


def test_gpus_and_indices_are_written_in_slurms_way() -> None:
    assert (gpu_request(2, "h100"), gpu_request(1, None), gpu_request(0, "h100")) == ("h100:2", "1", None)
    assert ranges((5, 0, 1, 2, 7, 8)) == "0-2,5,7-8"
    own = dataclasses.replace(UPDATE, options=dataclasses.replace(UPDATE.options, gpu_option="gres"))
    assert headers(batch_script(own))["gres"] == "nvme:1,gpu:h100:4"
    none = headers(batch_script(dataclasses.replace(LINK, options=Options(time=1))))
    assert not {"gres", "gpus-per-node", "mem", "partition", "array"} & set(none)
    unthrottled = dataclasses.replace(ROLLOUT, options=Options(time=1))
    assert headers(batch_script(unthrottled))["array"] == "0-2,7"


def test_an_extra_option_that_is_false_is_not_asked_for() -> None:
    extra = {"exclusive": True, "overcommit": False, "nice": 0}
    asked = headers(batch_script(dataclasses.replace(LINK, options=Options(time=1, extra=extra))))
    assert (asked["exclusive"], asked["nice"]) == ("", "0")
    assert "overcommit" not in asked


@pytest.fixture(scope="module")
def _sbatch() -> None:
    try:
        packages.install()
    except ClusterError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("_sbatch")
@pytest.mark.parametrize("name", [name for name in HARD_NAMES if "\\" not in name])  # sbatch has its own idea of \
def test_sbatch_itself_reads_the_header(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    request = dataclasses.replace(ROLLOUT, folder=folder / "e0003-rollout-s%4a")
    (tmp_path / "job.sh").write_text(batch_script(request))
    # A cluster that is not there: sbatch shows what it has read before it looks for the controller.
    lines = ("ClusterName=none", "SlurmctldHost=localhost(127.0.0.1)", "SlurmctldPort=1", "NodeName=n CPUs=1")
    (tmp_path / "slurm.conf").write_text("\n".join((*lines, "PartitionName=sim Nodes=n Default=YES\n")))
    names = ("output", "comment", "job-name", "time")
    seen = what_sbatch_reads(tmp_path / "job.sh", tmp_path / "slurm.conf", names)
    assert expanded(seen["output"], 7) == fill(str(request.folder / LOG), 7)
    assert (seen["comment"], seen["job-name"], seen["time"]) == (request.key, request.name, "04:00:00")


def what_sbatch_reads(script: Path, configuration: Path, names: Sequence[str]) -> dict[str, str]:
    """Options in sbatch's own words."""
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    found: dict[str, str] = {}
    command = ["sbatch", "-vv", str(script)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment) as it:
        assert it.stderr is not None
        for line in it.stderr:
            name, _, value = line.removeprefix("sbatch: ").partition(": ")
            found[name.strip()] = value.strip()
            if set(names) <= set(found) or "error" in line:
                break
        it.kill()
    return found

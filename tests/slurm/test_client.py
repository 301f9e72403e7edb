"""Slurm's commands: what is asked, how answers are read, and what kind of trouble an error is."""

from __future__ import annotations

import datetime
import getpass
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm import client
from slurm.client import SEPARATOR, Entry, Unanswered
from slurm.launcher import LaunchError, TryLater

Stub = Callable[..., Callable[[], list[list[str]]]]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Puts a command on PATH that notes its arguments: `calls = stub("squeue", "printf ...")`."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, body: str = "") -> Callable[[], list[list[str]]]:
        log = folder / f"{name}.calls"
        path = folder / name
        path.write_text(f"#!/bin/bash\nprintf '%s\\0' \"$@\" >> {log}; echo >> {log}\n{body}\n")
        path.chmod(0o755)
        return lambda: [line.split("\0")[:-1] for line in log.read_text().splitlines()] if log.exists() else []

    return make


def says(text: str) -> str:
    return f"cat <<'END'\n{text}\nEND"


def complains(text: str, code: int = 1) -> str:
    return f"cat >&2 <<'END'\n{text}\nEND\nexit {code}"


def local(text: str) -> float:
    """Unix time of what Slurm writes in local time."""
    return datetime.datetime.fromisoformat(text).timestamp()


def test_the_queue_is_asked_for_everything_of_this_user_once(stub: Stub) -> None:
    calls = stub("squeue")
    assert client.queue() == []
    (arguments,) = calls()
    assert {"--noheader", "--array", "--states=all", f"--user={getpass.getuser()}"} <= set(arguments)


def test_lines_of_the_queue_become_entries(stub: Stub) -> None:
    began, soon, late = "2026-11-25T10:00:00", "2026-11-25T11:30:00", "2026-11-25T15:30:00"
    lines = [
        ("12_3", "3", "RUNNING", "None", "sim[0-1]", "run-1:e0001-rollout-s%4a:1", began, soon, late),
        ("12_4", "4", "PENDING", "(Resources)", "", "run-1:e0001-rollout-s%4a:1", began, late, "N/A"),
        ("13", "N/A", "PENDING", "Dependency", "", "(null)", began, "N/A", "N/A"),
        ("14", "N/A", "COMPLETED", "None", "train0", "two words", "Unknown", "Unknown", "NONE"),
    ]
    stub("squeue", says("\n".join(SEPARATOR.join(line) for line in lines)))
    key = "run-1:e0001-rollout-s%4a:1"
    assert client.queue() == [
        Entry("12_3", 3, "RUNNING", "", "sim[0-1]", key, local(began), local(soon), local(late)),
        Entry("12_4", 4, "PENDING", "Resources", "", key, local(began), local(late), None),
        Entry("13", None, "PENDING", "Dependency", "", "", local(began), None, None),
        Entry("14", None, "COMPLETED", "", "train0", "two words", None, None, None),
    ]


@pytest.mark.parametrize(
    "complaint",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "squeue: error: Socket timed out on send/recv operation",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
        "sbatch: error: Batch job submission failed: Resource temporarily unavailable",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
        "slurm_load_jobs error: Slurm backup controller in standby mode",
        "sbatch: error: Batch job submission failed: Transport endpoint is not connected",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "error: slurm_receive_msg: Connection reset by peer",
        "error: slurm_unpack_received_msg: Incompatible versions of client and server code: protocol version",
    ],
)
def test_no_answer_is_no_refusal(stub: Stub, complaint: str) -> None:
    stub("sbatch", complains(complaint))
    with pytest.raises(Unanswered, match="^sbatch: ") as caught:
        client.run(["sbatch"])
    assert complaint.partition("error: ")[2] in str(caught.value)


@pytest.mark.parametrize(
    "complaint",
    [
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
        "(job submit limit, user's size and/or time limits)",
        "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates policy",
        "sbatch: error: AssocGrpSubmitJobsLimit",
        "sbatch: error: QOSGrpSubmitJobsLimit",
        "sbatch: error: Batch job submission failed: Job submit limit reached",
    ],
)
def test_a_limit_on_jobs_may_be_waited_out(stub: Stub, complaint: str) -> None:
    stub("sbatch", complains(complaint))
    with pytest.raises(TryLater, match="^sbatch: ") as caught:
        client.run(["sbatch"])
    assert "error: " not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("complaint", "said"),
    [
        (
            "sbatch: error: invalid partition specified: nowhere\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified",
            "sbatch: invalid partition specified: nowhere; Batch job submission failed: Invalid partition name "
            "specified",
        ),
        ("sbatch: error: Invalid --mem specification\n" * 2, "sbatch: Invalid --mem specification"),
        (
            "sbatch: error: Batch job submission failed: Requested node configuration is not available",
            "sbatch: Batch job submission failed: Requested node configuration is not available",
        ),
        (
            "sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job violates",
            "sbatch: QOSMaxWallDurationPerJobLimit; Batch job submission failed: Job violates",
        ),
        ("sbatch: unrecognized option '--wish'", "sbatch: sbatch: unrecognized option '--wish'"),
    ],
)
def test_a_refusal_is_one_line_in_slurms_words(stub: Stub, complaint: str, said: str) -> None:
    stub("sbatch", complains(complaint))
    with pytest.raises(LaunchError) as caught:
        client.run(["sbatch"])
    assert str(caught.value) == said


def test_a_silent_failure_names_its_exit_code(stub: Stub) -> None:
    stub("scancel", "exit 3")
    with pytest.raises(LaunchError, match=r"^scancel: exit code 3$"):
        client.run(["scancel"])


def test_a_command_that_hangs_is_no_answer(stub: Stub) -> None:
    stub("squeue", "exec sleep 30")
    begun = time.monotonic()
    with pytest.raises(Unanswered, match="squeue did not answer within 1 s"):
        client.run(["squeue"], seconds=0.6)
    assert time.monotonic() - begun < 10


def test_a_machine_without_slurm_is_a_refusal_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="there is no sbatch on this machine; slurm.launcher=local"):
        client.run(["sbatch"])
    assert not client.configured()


def test_slurm_is_configured_where_sbatch_finds_a_cluster(stub: Stub) -> None:
    stub("sbatch", says("slurm 24.05.1"))
    assert client.configured()
    stub("sbatch", complains("sbatch: fatal: Could not establish a configuration source"))
    assert not client.configured()


def test_sbatch_gives_the_id_whatever_stands_before_and_behind_it(stub: Stub, tmp_path: Path) -> None:
    calls = stub("sbatch", 'echo "welcome to the cluster"; echo "4711;cluster"; env -0 > ' + str(tmp_path / "env"))
    found = client.sbatch(tmp_path / "job.sh", ["--hold"], ["a b", "c"], {"BATON": "x y"})
    assert found == "4711"
    assert calls() == [["--parsable", "--hold", str(tmp_path / "job.sh"), "a b", "c"]]
    assert "BATON=x y" in (tmp_path / "env").read_text().split("\0")


def test_no_command_inherits_the_job_it_is_called_from(stub: Stub, tmp_path: Path) -> None:
    stub("squeue", f"env -0 > {tmp_path / 'env'}")
    inherited = ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SLURMD_NODENAME", "SRUN_DEBUG", "SBATCH_X", "SUBMITIT_FOLDER")
    with pytest.MonkeyPatch.context() as patch:
        for name in (*inherited, "SLURM_CONF", "SLURMISH", "MY_SLURM_VARIABLE"):
            patch.setenv(name, "7")
        found = client.environment()
        client.run(["squeue"])
    kept = {"SLURM_CONF", "SLURMISH", "MY_SLURM_VARIABLE"}
    assert kept <= set(found)
    assert not set(inherited) & set(found)
    seen = {entry.partition("=")[0] for entry in (tmp_path / "env").read_text().split("\0")}
    assert kept <= seen
    assert not set(inherited) & seen


def test_accounting_tells_the_newest_state_of_a_job(stub: Stub) -> None:
    since = local("2026-11-25T10:00:00")
    calls = stub("sacct", says("PREEMPTED|2026-11-25T10:00:01\nCANCELLED by 1001|2026-11-25T10:05:00"))
    assert client.ended_state("12_3", since) == "CANCELLED by 1001"
    (arguments,) = calls()
    assert arguments[arguments.index("--jobs") + 1] == "12_3"
    assert "--starttime=2026-11-25T09:50:00" in arguments, "an older job had the same id"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "exit 1",
        complains("Slurm accounting storage is disabled"),
        complains("sacct: error: slurm_persist_conn_open_without_init: failed to open: Connection refused"),
    ],
)
def test_accounting_that_knows_nothing_is_no_mistake(stub: Stub, body: str) -> None:
    stub("sacct", body)
    assert client.ended_state("12", time.time()) is None


def test_cancelling_tells_slurm_everything_in_lines_of_bounded_length(stub: Stub) -> None:
    calls = stub("scancel")
    ids = [str(number) for number in range(450)]
    client.cancel(ids, "--full")
    assert [arguments[0] for arguments in calls()] == ["--full"] * 3
    assert [id_ for arguments in calls() for id_ in arguments[1:]] == ids
    client.cancel([])
    assert len(calls()) == 3


def test_cancelling_what_is_gone_is_no_mistake_and_anything_else_is(stub: Stub) -> None:
    stub("scancel", complains("scancel: error: Kill job error on job id 12: Invalid job id specified"))
    client.cancel(["12"])
    stub("scancel", complains("scancel: error: Kill job error on job id 12: Job/step already completing or completed"))
    client.cancel(["12"])
    stub("scancel", complains("scancel: error: Kill job error on job id 12: Access/permission denied"))
    with pytest.raises(LaunchError, match="permission denied"):
        client.cancel(["12"])

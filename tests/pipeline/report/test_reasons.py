"""Slurm's reasons for letting a job wait, in words."""

import pytest

from pipeline.report.reasons import words


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Resources", "nothing that fits is free yet; it is next (Resources)"),
        ("Dependency", "for e0000-sft (Dependency)"),
        ("QOSMaxJobsPerUserLimit", "the QOS or account has as many jobs as it may (QOSMaxJobsPerUserLimit)"),
        ("AssocGrpGRES", "the QOS or account has as much as it may (AssocGrpGRES)"),
        ("MaxGRESPerAccount", "the QOS or account has as much as it may (MaxGRESPerAccount)"),
        (
            "ReqNodeNotAvail, UnavailableNodes:sim0",
            "the nodes it needs are down, drained or reserved (ReqNodeNotAvail, UnavailableNodes:sim0)",
        ),
        ("JobHeldUser", "it is held; to let it go: scontrol release 71_0 (JobHeldUser)"),
        ("PartitionTimeLimit", "its partition gives less time: lower slurm.rollout.time (PartitionTimeLimit)"),
        ("JobArrayTaskLimit", "as many shards run as slurm.rollout.array_throttle allows (JobArrayTaskLimit)"),
        ("FrontEndDown", "FrontEndDown"),
    ],
)
def test_slurms_reasons_in_words(reason, said):
    assert words(f"PENDING ({reason})", "rollout", "71_0", "e0000-sft") == said

"""The benchmark of pi0 runs anywhere, and its sides compute the same."""

import re

import pytest

from tests.benchmarks import pi0

TINY = ["--preset", "tiny", "--repeats", "1", "--plain"]


@pytest.mark.parametrize("version", ["pi0", "pi05"])
def test_the_sides_of_act_give_the_same_actions(capsys, version):
    pi0.main([*TINY, "--version", version, "act", "--batches", "1", "2", "--steps", "3"])
    told = capsys.readouterr().out
    assert len(re.findall(r"^ +[12] ", told, re.MULTILINE)) == 2
    assert all(float(found) < 1e-5 for found in re.findall(r"ours: (\S+)$", told, re.MULTILINE))


def test_evaluate_measures_each_setting(capsys):
    pi0.main([*TINY, "evaluate", "--settings", "mlp:2", "none:1"])
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[2:]] == [["mlp", "2"], ["none", "1"]]

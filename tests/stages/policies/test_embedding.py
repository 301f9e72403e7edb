"""Building and loading a policy does not load torch's compiler, which takes a process a second."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stages.policies import openvla_oft_for_tests
from tests.stages.policies.pi0 import policies_for_pi0

ROOT = Path(__file__).parents[3]
SMALL = {"openvla_oft": openvla_oft_for_tests.SMALL, "pi0": policies_for_pi0.SMALL}
CODE = """
import json, sys
from stages.policies.interface import load, make
from tests.stages.policies.openvla_oft_for_tests import statistics
name, options, folder = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
make(name, options, statistics(), seed=0).save(folder)
load(folder)
print([module for module in sys.modules if module == "torch._dynamo"])
"""


@pytest.mark.parametrize("name", SMALL)
def test_a_policy_is_built_and_loaded_without_torchs_compiler(name, tmp_path):
    words = [sys.executable, "-c", CODE, name, json.dumps(SMALL[name]), str(tmp_path)]
    made = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (made.returncode, made.stdout) == (0, "[]\n"), made.stderr

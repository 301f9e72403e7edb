"""The README's tree is the tree."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MODULES = sorted(
    path.relative_to(ROOT)
    for package in ("pipeline", "slurm", "stages")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py"
)


def test_every_file_has_its_line():
    tree = README[README.index("    pipeline/") :]
    listed = re.findall(r"^ +(\w+\.py) +\S", tree, flags=re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in MODULES)


def test_every_module_says_what_it_is():
    silent = [str(path) for path in MODULES if not ast.get_docstring(ast.parse((ROOT / path).read_text()))]
    assert not silent


def test_the_commands_named_are_there():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for recipe in set(re.findall(r"configs/\w+\.yaml", README)):
        assert (ROOT / recipe).is_file(), recipe

"""Installing what a cluster is made of: several at once, as the workers of one pytest do on a new machine."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
APT = """#!/bin/sh
# Like apt, it ends with an error where another is at work.
mkdir {folder}/busy 2>/dev/null || {{ echo "E: Unable to acquire the dpkg frontend lock" >&2; exit 100; }}
sleep 0.5
echo "$*" >> {folder}/calls
[ "$1" = update ] || for name in somed somectl; do printf "" > {folder}/$name; chmod +x {folder}/$name; done
rmdir {folder}/busy
"""
INSTALL = """
import os, sys
from pathlib import Path
from slurm.cluster import packages

os.geteuid = lambda: 0
packages.PATH, packages.LOCK = f"{sys.argv[1]}:/usr/bin:/bin", Path(sys.argv[1], "lock")
packages.PROGRAMS = {"somed": ("somed", "somectl")}
packages.install()
"""


def test_of_several_that_install_at_once_one_does_and_the_others_wait_for_it(tmp_path):
    apt = tmp_path / "apt-get"
    apt.write_text(APT.format(folder=tmp_path))
    apt.chmod(0o755)
    command = [sys.executable, "-c", INSTALL, str(tmp_path)]
    installing = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate(timeout=60)[1] for process in installing]
    assert [process.returncode for process in installing] == [0, 0, 0], errors
    assert (tmp_path / "calls").read_text().splitlines() == [
        "update",
        "install --yes --no-install-recommends -o DPkg::Lock::Timeout=300 somed",
    ]

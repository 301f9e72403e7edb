"""Commands of Slurm that do what they are told: every trouble of a controller at will."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from slurm.batch import HOST
from slurm.launcher import Job

KEY = "run-1:e0001-rollout-s%4a:1"
TIMED_OUT = "Socket timed out on send/recv operation"
NOW = "2026-11-25T10:00:00"
# All four commands: jobs.json holds what squeue shows, trouble.json what fails, calls.jsonl who was called with what.
PROGRAM = f'''#!{sys.executable} -IS
import getpass, json, re, sys
from pathlib import Path
here, name, arguments = Path(__file__).parent, Path(sys.argv[0]).name, sys.argv[1:]
def load(what): return json.loads((here / what).read_text()) if (here / what).exists() else {{}}
with (here / "calls.jsonl").open("a") as log: log.write(json.dumps([name, *arguments]) + "\\n")
jobs, trouble = load("jobs.json"), load("trouble.json")
if name in trouble:
    sys.exit(f"{{name}}: error: " + trouble[name])
if name == "sbatch":
    header = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", Path(arguments[-1]).read_text(), flags=re.M))
    base = str(100 + len({{id_.partition("_")[0] for id_ in jobs}}))
    tasks = [None]
    if array := header.get("array"):
        spans = [[int(end) for end in part.split("-")] for part in array.partition("%")[0].split(",")]
        tasks = [index for span in spans for index in range(span[0], span[-1] + 1)]
    for task in tasks:
        id_ = base if task is None else f"{{base}}_{{task}}"
        jobs[id_] = {{"state": "PENDING", "reason": "Priority", "index": task, "comment": header["comment"]}}
    (here / "jobs.json").write_text(json.dumps(jobs))
    if "late" in trouble: sys.exit("sbatch: error: Batch job submission failed: " + trouble["late"])
    print(base)
elif name == "squeue":
    given = next(a for a in arguments if a.startswith("--format=")).removeprefix("--format=")
    ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "OUT_OF_MEMORY")
    for id_, job in jobs.items():
        if job["state"] in ended and "--states=all" not in arguments: continue
        fields = {{
            "i": id_, "K": "N/A" if job.get("index") is None else job["index"], "T": job["state"],
            "r": job.get("reason", "None"), "N": job.get("nodes", ""), "k": job["comment"] or "(null)",
            "V": job.get("submitted", "{NOW}"), "S": job.get("started", "N/A"), "e": job.get("ended", "N/A"),
        }}
        print(re.sub("%(.)", lambda found: str(fields[found[1]]), given))
elif name == "scancel":
    for id_ in arguments:
        if id_ in jobs and not jobs[id_].get("stubborn"): jobs[id_]["state"] = "CANCELLED"
    (here / "jobs.json").write_text(json.dumps(jobs))
elif name == "sacct":
    wanted = arguments[arguments.index("--jobs") + 1]
    print("".join(f"{{state}}|{NOW}\\n" for state in load("accounting.json").get(wanted, [])), end="")
'''


class FakeSlurm:
    """What the commands on PATH believe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sbatch", "squeue", "scancel", "sacct"):
            (folder / name).write_text(PROGRAM)
            (folder / name).chmod(0o755)

    def show(self, id_: str, state: str, comment: str = KEY, **more: Any) -> None:
        """Have squeue show a job like this from now on."""
        index = int(id_.partition("_")[2]) if "_" in id_ else None
        jobs = {**self._load("jobs.json"), id_: {"state": state, "comment": comment, "index": index, **more}}
        self._save("jobs.json", jobs)

    def forget(self, *ids: str) -> None:
        """Have squeue show jobs no longer."""
        self._save("jobs.json", {id_: job for id_, job in self._load("jobs.json").items() if id_ not in ids})

    def remember(self, id_: str, *states: str) -> None:
        """Have accounting know states of a job, the newest last."""
        self._save("accounting.json", {**self._load("accounting.json"), id_: states})

    def trouble(self, **commands: str) -> None:
        """Have commands fail with a message; `late` is an sbatch that fails after the job is accepted."""
        self._save("trouble.json", commands)

    def ids(self) -> list[str]:
        return list(self._load("jobs.json"))

    def calls(self, name: str) -> int:
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return sum(json.loads(line)[0] == name for line in lines)

    def _load(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else {}

    def _save(self, name: str, content: dict[str, Any]) -> None:
        (self.folder / name).write_text(json.dumps(content))


def job(id_: str, key: str = "run-1:e0001-rollout-s0000:1") -> Job:
    return Job(key, id_, HOST)

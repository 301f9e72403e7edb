"""`baton status` of a run with many shards or epochs: it fits on a screen, and is there at once."""

import json
import time

import pytest

from pipeline import chain, rundir
from pipeline.validation import dump
from slurm.launcher import Sight
from slurm.states import State
from tests.pipeline.report.status_for_tests import end, line, submit, told


def test_many_shards_do_not_fill_the_screen(run, status, queue):
    config = rundir.load(run)
    (run / "config.yaml").write_text(
        dump(config.model_copy(update={"rollout": config.rollout.model_copy(update={"shards": 64, "episodes": 128})}))
    )
    for shard in range(64):
        submit(run, f"e0001-rollout-s{shard:04d}", f"71_{shard}")
        queue.sights[f"71_{shard}"] = Sight(State.RUNNING, "RUNNING", "sim0", 1.0, 2.0)
    text = status()
    assert len(text.splitlines()) < 30
    assert "and 56 more: --all" in text
    assert line(status(width=130), "1", "rollout")[-2:] == ["71", "sim0"]
    assert "e0001-rollout-s0063" in status("--all")
    for shard in range(64):
        end(run, f"e0001-rollout-s{shard:04d}", f"71_{shard}", "refused", error="no simulator")
    text = status()
    assert "and 56 more failed: --all" in text
    assert text.count("failed after 1 attempts: no simulator") == 8
    assert status("--all").count("failed after 1 attempts: no simulator") == 64


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """900 of 1,000 epochs with five units each, published without their files."""
    from pipeline.config import Config

    folder = tmp_path_factory.mktemp("long")
    values = {"name": "long", "runs_dir": str(folder), "epochs": 1000, "rollout": {"shards": 3, "episodes": 6}}
    run = rundir.create_or_resume(Config.model_validate({**values, "evaluate": {"interval": 1}}))
    id_, lines, began = rundir.identity(run)["id"], [], time.time() - 1e6
    manifest = {
        "part": "",
        "attempt": 1,
        "inputs": {},
        "config_digest": "",
        "code_revision": "",
        "seed": 0,
        "files": {f"data/c/{index}": {"size": 1, "sha256": "d" * 64} for index in range(20)},
        "seconds": {"total": 9.0},
        "started": "2026-01-01T00:00:00+00:00",
        "published": "2026-01-01T00:00:10+00:00",
        "host": "sim0",
        "job_id": "1",
        "versions": {},
    }
    for number, plan in enumerate(chain.ledger.run_plan(run, rundir.load(run))):
        unit = plan.unit
        if unit.epoch > 900:
            break
        text = json.dumps({**manifest, "unit": str(unit), "metrics": {"env/success_rate": unit.epoch / 1000}})
        (run / unit.marker).mkdir(parents=True)
        (run / unit.marker / "manifest.json").write_text(text)
        common = {"unit": str(unit), "attempt": 1, "key": f"{id_}:{unit}:1", "time": began + number}
        lines += [
            {"event": "submit", **common},
            {"event": "submitted", "job": str(number), "host": "slurm", **common},
            {"event": "ended", "job": str(number), "outcome": "published", "queued": 3.0, "node": "sim0", **common},
        ]
    (run / "jobs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return run


def test_a_thousand_epochs_fit_on_a_screen(long_run, status, queue):
    text = status(directory=long_run)
    assert len(text.splitlines()) <= 32
    assert max(len(line) for line in text.splitlines() if not line.startswith("to continue")) <= 80
    assert line(text, "0-895")[1:] == ["all", "published", "4478", "4478", "success", "89.5", "%"]
    assert line(text, "900", "evaluate")[-3:] == ["success", "90.0", "%"]
    assert "epochs 901 to 1000: waiting" in text
    assert told(text, "e0901-rollout x 3") == "e0901-rollout x 3 waiting for somebody to drive the run"
    assert len(status("--all", directory=long_run).splitlines()) > 3000


def test_a_thousand_epochs_are_read_at_once(long_run):
    """Under a second on a quiet machine; the bound leaves room for a busy one."""
    from pipeline.report.standing import look

    begin = time.process_time()
    look(long_run)
    assert time.process_time() - begin < 3


def test_a_chain_far_ahead_shares_a_line(long_run, status, queue):
    before = (long_run / "jobs.jsonl").read_bytes()
    try:
        for number, plan in enumerate(chain.ledger.run_plan(long_run, rundir.load(long_run))):
            if plan.unit.epoch > 900:
                submit(long_run, str(plan.unit), f"9{number}")
                queue.sights[f"9{number}"] = Sight(State.WAITING, "PENDING (Dependency)", queued=3.0)
            if plan.unit.epoch == 905:
                break
        text = status(directory=long_run)
    finally:
        (long_run / "jobs.jsonl").write_bytes(before)
    assert line(text, "901", "rollout")[2:4] == ["queued", "0/3"]
    assert "epochs 903 to 905: queued" in text
    assert "epochs 906 to 1000: waiting" in text
    assert len(text.splitlines()) <= 52

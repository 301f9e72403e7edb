"""jobs.jsonl: what was tried, read bit by bit or at once."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import jobs
from pipeline.artifacts import Unit
from pipeline.errors import UserError
from pipeline.jobs import FILE, History, Record, append, histories
from slurm.states import Cause

SFT, UPDATE = Unit(0, "sft"), Unit(1, "update")
Line = dict[str, Any]

units = st.sampled_from(["e0000-sft", "e0001-update", "e0001-rollout-s0000", "e0001-rollout-s0001"])
lines = st.one_of(
    st.just({"event": "session"}),
    st.fixed_dictionaries({"event": st.sampled_from(["submit", "submitted"]), "unit": units, "job": st.just("1")}),
    st.fixed_dictionaries(
        {
            "event": st.just("ended"),
            "unit": units,
            "outcome": st.sampled_from(["published", "failed", "failed", "refused", "unsubmitted", "cancelled"]),
            "cause": st.sampled_from([None, *get_args(Cause)]),
        }
    ),
    st.fixed_dictionaries(
        {
            "event": st.just("reset"),
            "unit": units,
            "mem": st.sampled_from([None, "8G"]),
            "minutes": st.none() | st.just(9),
        }
    ),
)


def encoded(sequence: Iterable[Line]) -> bytes:
    return b"".join(json.dumps({"time": float(n), **line}).encode() + b"\n" for n, line in enumerate(sequence))


def at_once(content: bytes) -> dict[Unit, History]:
    """What a process reads that has never read the file before."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE).write_bytes(content)
        return histories(Path(folder))


def tried(run: Path, *events: Line) -> History:
    """The history of the warm start after these lines about it."""
    for event in events:
        append(run, unit=str(SFT), **event)
    return histories(run)[SFT]


def failure(cause: Cause | None = None) -> tuple[Line, Line]:
    return {"event": "submit"}, {"event": "ended", "outcome": "failed", "cause": cause}


@settings(max_examples=60, deadline=None)
@given(sequence=st.lists(lines, max_size=12), data=st.data())
def test_reading_bit_by_bit_is_reading_at_once(sequence: Sequence[Line], data: st.DataObject) -> None:
    content = encoded(sequence)
    # Any cut is allowed: what is read between two of them may end in the middle of a line.
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.touch()
        for begin, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
            with path.open("ab") as file:
                file.write(content[begin:end])
            assert histories(Path(folder)) == at_once(content[:end])


@settings(max_examples=40, deadline=None)
@given(batches=st.lists(st.lists(lines, min_size=1, max_size=3), max_size=4), torn=st.binary(min_size=1, max_size=30))
def test_a_torn_line_goes_with_the_next_append_and_leaves_no_trace(
    batches: Sequence[Sequence[Line]], torn: bytes
) -> None:
    torn = torn.replace(b"\n", b" ")
    with tempfile.TemporaryDirectory() as folder:
        run, written = Path(folder), []
        for batch in batches:
            for line in batch:
                append(run, **line)
                written.append(line)
                assert histories(run) == at_once((run / FILE).read_bytes())
            with (run / FILE).open("ab") as file:
                file.write(torn)
            assert histories(run) == at_once((run / FILE).read_bytes()), "the torn line says nothing yet"
        append(run, event="session")
        text = (run / FILE).read_text()
        assert text.endswith("\n")
        found = [json.loads(line) for line in text.splitlines()]
        assert [entry["event"] for entry in found] == [*(line["event"] for line in written), "session"]
        assert histories(run) == at_once((run / FILE).read_bytes())


def test_no_file_is_no_history(tmp_path: Path) -> None:
    assert histories(tmp_path) == {}


def test_another_file_in_its_place_is_read_anew(tmp_path: Path) -> None:
    assert tried(tmp_path, *failure(), *failure()).submissions == 2
    (tmp_path / "other").write_bytes(encoded([{"event": "submit", "unit": str(UPDATE)}]))
    os.replace(tmp_path / "other", tmp_path / FILE)
    assert list(histories(tmp_path)) == [UPDATE]


def test_what_was_handed_out_does_not_change_later(tmp_path: Path) -> None:
    before = tried(tmp_path, *failure())
    known = histories(tmp_path)
    after = tried(tmp_path, *failure("memory"))
    assert (before.failures, after.failures) == ({"crash": 1}, {"crash": 1, "memory": 1})
    assert known == {SFT: before}


def test_failures_are_counted_by_cause_and_only_failures(tmp_path: Path) -> None:
    found = tried(
        tmp_path, *failure("memory"), *failure("preempted"), *failure("preempted"), *failure(), *failure("node")
    )
    assert found.failures == {"memory": 1, "preempted": 2, "crash": 1, "node": 1}
    assert found.outgrown == {"memory": 1}
    for outcome in ("published", "refused", "unsubmitted", "cancelled"):
        found = tried(tmp_path, {"event": "submit"}, {"event": "ended", "outcome": outcome})
        assert sum(Counter(found.failures).values()) == 5
    assert found.submissions == 9
    assert found.last is not None
    assert found.last.outcome == "cancelled"


def test_a_submission_is_open_until_it_has_ended(tmp_path: Path) -> None:
    found = tried(tmp_path, {"event": "submit", "attempt": 1, "key": "k"})
    assert found.open is not None
    assert (found.open.job, found.began) == ("", found.open.time), "killed here it is not known what became of it"
    found = tried(tmp_path, {"event": "submitted", "attempt": 1, "key": "k", "job": "12_3", "host": "slurm"})
    assert found.open is not None
    assert (found.open.job, found.open.host, found.submissions) == ("12_3", "slurm", 1)
    found = tried(tmp_path, {"event": "ended", "attempt": 1, "outcome": "published"})
    assert found.open is None


def test_a_session_forgives_failures_but_not_what_was_outgrown(tmp_path: Path) -> None:
    tried(tmp_path, *failure("memory"), *failure("timeout"), *failure("crash"))
    append(tmp_path, "session", host="here", note="pid 1")
    found = histories(tmp_path)[SFT]
    assert (found.failures, found.last) == ({}, None)
    assert found.outgrown == {"memory": 1, "timeout": 1}
    assert found.submissions == 3
    running = tried(tmp_path, {"event": "submit", "attempt": 4, "key": "k"})
    append(tmp_path, "session")
    assert histories(tmp_path)[SFT].open == running.open, "a job goes on over a session"


def test_a_session_says_nothing_of_what_comes_after_it(tmp_path: Path) -> None:
    append(tmp_path, "session")
    assert tried(tmp_path, *failure()).failures == {"crash": 1}


def test_a_reset_forgets_everything_but_the_count_and_may_give_more(tmp_path: Path) -> None:
    tried(tmp_path, *failure("memory"), *failure("timeout"))
    found = tried(tmp_path, {"event": "reset", "mem": "64G", "minutes": 600, "note": "baton retry"})
    assert found == History(submissions=2, mem="64G", minutes=600)
    append(tmp_path, "session")
    assert histories(tmp_path)[SFT] == found
    assert tried(tmp_path, *failure("memory")).mem == "64G"
    assert tried(tmp_path, {"event": "reset"}) == History(submissions=3), "a rerun gives nothing beside the config"


def test_units_do_not_share_a_history(tmp_path: Path) -> None:
    append(tmp_path, "submit", unit=str(UPDATE))
    assert tried(tmp_path, *failure()).submissions == 1
    assert histories(tmp_path)[UPDATE].failures == {}


@pytest.mark.parametrize("line", ['{"event": "went", "time": 1}', "{", '{"event": "session", "time": 1, "more": 2}'])
def test_a_damaged_line_is_named_each_time(tmp_path: Path, line: str) -> None:
    append(tmp_path, "session")
    with (tmp_path / FILE).open("a") as file:
        file.write(line + "\n")
    append(tmp_path, "session")
    for _ in range(2):
        with pytest.raises(UserError, match=r"jobs\.jsonl, line 2 cannot be read .*: delete it$"):
            histories(tmp_path)


def test_only_new_lines_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried(tmp_path, *failure(), *failure())
    read: list[str] = []
    validate = Record.model_validate_json

    def counted(line: bytes) -> Record:
        read.append(line.decode())
        return validate(line)

    monkeypatch.setattr(jobs.Record, "model_validate_json", counted)
    histories(tmp_path)
    assert read == []
    append(tmp_path, "session")
    histories(tmp_path)
    assert [json.loads(line)["event"] for line in read] == ["session"]

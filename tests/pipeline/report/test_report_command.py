"""`baton report` as it is given."""

import json

import pytest

from pipeline.commands.report import report
from pipeline.errors import UserError


def test_it_prints_the_result_and_names_the_page(run, evaluate, capsys):
    evaluate(0, {"open": "+---", "close": "++--"})
    report(str(run))
    out = capsys.readouterr().out
    assert out == (run / "result.txt").read_text() + f"page:      {run / 'report.html'}\n"
    assert "37.5" in (run / "report.html").read_text()


def test_json_is_result_json_and_no_page(run, evaluate, capsys):
    evaluate(0, {"open": "+---", "close": "++--"})
    report(str(run), as_json=True)
    out = capsys.readouterr().out
    assert json.loads(out)["warm_start"]["success"] == 3 / 8
    assert out == (run / "result.json").read_text()
    assert not (run / "report.html").exists()


def test_the_same_run_gives_the_same_page(run, evaluate, put, tmp_path):
    evaluate(0, {"open": "+---", "close": "++--"})
    put("update", 1, metrics={"actor/loss": 1.0})
    pages = [tmp_path / name for name in ("one.html", "other.html")]
    for page in pages:
        report(str(run), out=page)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_a_place_that_is_none_is_refused(run, tmp_path):
    with pytest.raises(UserError) as refusal:
        report(str(run), out=tmp_path)
    assert str(refusal.value) == f"--out {tmp_path} is a directory; name a file, e.g. {tmp_path / 'report.html'}"
    missing = tmp_path / "none" / "page.html"
    with pytest.raises(UserError) as refusal:
        report(str(run), out=missing)
    assert str(refusal.value) == f"--out {missing}: {missing.parent} does not exist; make it, or name another file"


def test_a_run_of_another_baton_is_told_in_a_line(run):
    config = run / "config.yaml"
    config.write_text(config.read_text() + "shuffle: true\n")
    with pytest.raises(UserError) as refusal:
        report(str(run))
    what, remedy = str(refusal.value).splitlines()
    assert what.startswith(f"{config}:")
    assert "unknown key shuffle" in what
    assert remedy == (
        f"{config} was changed by hand or written by another version of Baton: put it back, or use the version that "
        f"{run / 'run.json'} names under code"
    )


def test_a_damaged_evaluation_is_told_with_the_way_out(run, evaluate):
    artifact = evaluate(0, {"open": "+---", "close": "++--"})
    (artifact.path / "episodes.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=rf"baton rerun {run} evaluate --epoch 0"):
        report(str(run))
    assert not (run / "report.html").exists()

"""The page of a run, as people see it: in a browser."""

import json
import re

import numpy as np
import pytest

from pipeline import jobs
from pipeline.artifacts import Unit
from pipeline.config import Config
from pipeline.report.html.page import write
from pipeline.report.results import collect
from pipeline.resolve import resolve
from pipeline.rundir import create_or_resume
from stages.video import VideoWriter
from tests.pipeline.report.conftest import into

WARM = {"open": "+---+---", "close": "++--++--"}
LATER = {"open": "++++-+++", "close": "+++-++++"}
OUTCOMES = {"+": "success", "-": "failure"}
HOSTILE = (
    "</style><script>document.title='owned'</script>&amp;<img src=x onerror=\"document.title='owned'\">$x^2$\x1b[31m"
)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A second of H.264."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with VideoWriter(path, fps=20) as writer:
        for shade in range(0, 200, 10):
            writer.write(np.full((448, 672, 3), shade, np.uint8))
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, film):
    """A run that has done all it was asked for, with its report."""
    run = made(tmp_path_factory.mktemp("whole"))
    for shard in range(2):
        into(run)("demonstrate", 0, shard, seconds=5)
    steps = [json.dumps({"time": 0, "step": step, "metrics": {"actor/loss": 3.0 - step}}) for step in range(3)]
    into(run)("sft", 0, seconds=20, metrics={"actor/loss": 1.0}, files={"metrics.jsonl": "\n".join(steps)})
    evaluate(run, 0, WARM, film, start=30)
    for epoch in (1, 2):
        train(run, epoch)
    evaluate(run, 2, LATER, film, start=200)
    write(run, run / "report.html")
    return run


def made(folder, **changes):
    """An empty run of two epochs, two shards and two tasks."""
    config = {
        "name": "made",
        "epochs": 2,
        "simulator": {"name": "lab.worlds", "tasks": ["open", "close"]},
        "rollout": {"shards": 2, "episodes": 8, "num_envs": 2},
        "evaluate": {"episodes": 16},
        "runs_dir": str(folder / "runs"),
    }
    return create_or_resume(resolve(Config.model_validate(config | changes)))


def evaluate(run, epoch, outcomes, film=None, **described):
    """Publish an evaluation, a letter an episode, `+` for success; episodes 0 and 3 of each task may be filmed."""
    lines = [
        json.dumps({"task": task, "seed": seed, "success": letter == "+"}) + "\n"
        for task, letters in outcomes.items()
        for seed, letter in enumerate(letters)
    ]
    films = {
        f"videos/epoch-{epoch:04d}-evaluate-{task}-episode-{number:04d}-{OUTCOMES[letters[number]]}.mp4": film
        for task, letters in outcomes.items()
        for number in (0, 3)
        if film is not None
    }
    by_task = {f"env/success_rate/{task}": letters.count("+") / len(letters) for task, letters in outcomes.items()}
    into(run)("evaluate", epoch, metrics=by_task, files={"episodes.jsonl": "".join(lines), **films}, **described)


def train(run, epoch, tasks=("open", "close")):
    """Publish an epoch of RL."""
    for shard in (0, 1):
        success = {f"rollout/success_rate/{task}": 0.25 * (shard + 1) for task in tasks}
        rollout = {"rollout/success_rate": 0.25 * (shard + 1), "rollout/episodes": 4.0, "rollout/reward_mean": 0.5}
        into(run)("rollout", epoch, shard, start=60.0 * epoch, seconds=20, metrics=rollout | success)
    update = {"actor/loss": 1 / epoch, "actor/entropy": 2.5, "actor/approx_kl": 0.01, "actor/clip_fraction": 0.1}
    into(run)("update", epoch, start=60.0 * epoch + 25, seconds=30, metrics=update)


def opened(tab, run):
    if not (run / "report.html").exists():
        write(run, run / "report.html")
    tab.page.goto((run / "report.html").as_uri())
    return tab.page


def text(page, selector):
    return " ".join(page.locator(selector).all_inner_texts())


def test_the_top_says_what_result_json_says(whole, tab):
    page, result = opened(tab, whole), collect(whole)
    warm, later, gain = page.locator(".big").all_inner_texts()
    for shown, rate in ((warm, result.warm_start), (later, result.rl)):
        numbers = [f"{100 * number:.1f}" for number in (rate.success, rate.low, rate.high)]
        assert re.findall(r"\d+\.\d", shown) == numbers
        assert f"of {rate.episodes} episodes" in shown
    assert f"{100 * result.gain.value:+.1f}" in gain
    rows = {row.split("\t")[0].split("\n")[0]: row for row in page.locator(".success tbody tr").all_inner_texts()}
    assert list(rows) == ["open", "close", "All tasks"]
    for task in ("open", "close"):
        for rate in (result.warm_start.tasks[task], result.rl.tasks[task]):
            assert f"{100 * rate.success:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]" in rows[task]
    assert f"RL won {result.gain.won} of them and lost {result.gain.lost}" in text(page, ".success caption")
    assert text(page, ".state").startswith("finished")


def test_curves_tell_their_numbers(whole, tab):
    page = opened(tab, whole)
    titles = page.locator(".plot figcaption b").all_inner_texts()
    assert titles[0] == "Success over epochs"
    assert {"Loss", "Entropy", "Return of an episode", "Clip fraction", "Warm start: loss"} <= set(titles)
    points = page.locator("svg use > title").all_text_contents()
    result = collect(whole)
    rate = result.rl
    assert (
        f"evaluation, epoch 2: {100 * rate.success:.1f} % [{100 * rate.low:.1f} %, {100 * rate.high:.1f} %]" in points
    )
    assert "Loss, epoch 2: 0.5" in points
    assert "Warm start: loss, step 2: 1" in points
    assert "rollouts in training, epoch 1: 37.5 % [13.7 %, 69.4 %]" in points
    visible = page.locator("#curves svg").first.bounding_box()
    assert visible["width"] > 900
    assert page.locator(".heat").count() == 2
    assert page.locator(".strip i").first.get_attribute("title") == "epoch 0: 25.0 %"


def test_nothing_is_asked_of_the_network_and_nothing_complains(whole, tab):
    page = opened(tab, whole)
    page.wait_for_timeout(300)
    assert tab.errors == []
    assert {url.split(":")[0] for url in tab.requests} <= {"file", "data"}
    assert [url for url in tab.requests if url.startswith("file:")] == [(whole / "report.html").as_uri()]
    html = (whole / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//[^"']*""", html)
    assert "<script" not in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_telephone(whole, tab, theme):
    tab.page.emulate_media(color_scheme=theme)
    tab.page.set_viewport_size({"width": 400, "height": 800})
    page = opened(tab, whole)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3
    assert (brightness > 200) is (theme == "light")
    assert page.locator("#curves .on-narrow svg").first.bounding_box()["width"] > 300


def test_films_of_a_success_and_a_failure_play(whole, tab):
    page = opened(tab, whole)
    shown = page.locator(".film figcaption").all_inner_texts()
    # Episode 3 of open fails before and succeeds after, so it goes first; else the first of its kind is shown.
    assert shown == [
        "success, warm start\nclose, episode 0",
        "failure, warm start\nopen, episode 3",
        "success, after RL, epoch 2\nopen, episode 3",
        "failure, after RL, epoch 2\nclose, episode 3",
    ]
    for film in page.locator("video").all():
        film.evaluate("film => film.play()")
    page.wait_for_function(
        "[...document.querySelectorAll('video')].every(film => film.currentTime > 0.1)", timeout=8000
    )
    assert page.locator("video").first.evaluate("film => [film.videoWidth, film.videoHeight]") == [672, 448]


def test_a_large_film_is_named_instead(tmp_path, film, tab, monkeypatch):
    monkeypatch.setattr("pipeline.report.html.films.LARGEST", len(film) - 1)
    run = made(tmp_path)
    evaluate(run, 0, WARM, film)
    page = opened(tab, run)
    assert page.locator("video").count() == 0
    name = "epochs/0000/evaluate/videos/epoch-0000-evaluate-close-episode-0000-success.mp4"
    assert f"not embedded: {name}" in text(page, "#films")


def test_before_anything_is_published(tmp_path, tab):
    page = opened(tab, made(tmp_path))
    assert re.match(r"unfinished 0 of \d+ units are published$", text(page, ".state"))
    assert text(page, ".empty").count("Nothing is") == 3
    assert tab.errors == []


def test_half_a_run(tmp_path, tab):
    run = made(tmp_path)
    evaluate(run, 0, WARM)
    train(run, 1)
    # The other shard is to come.
    into(run)("rollout", 2, 0, metrics={"rollout/success_rate": 1.0, "rollout/episodes": 4.0})
    page = opened(tab, run)
    assert "not evaluated yet" in text(page, ".big")
    assert "needs both" in text(page, ".big")
    points = page.locator("svg use > title").all_text_contents()
    assert any(point.startswith("rollouts in training, epoch 1") for point in points)
    assert not any(point.startswith("rollouts in training, epoch 2") for point in points)
    assert page.locator(".heat").count() == 0


def test_failures_and_retries(tmp_path, tab):
    run, unit = made(tmp_path), str(Unit(2, "rollout", 0))
    for attempt in (1, 2, 3):
        jobs.append(run, "submit", unit=unit, attempt=attempt, key=f"k{attempt}", host="here")
        end = {"outcome": "failed", "cause": "memory", "error": "it grew <too> big", "node": "node7"}
        jobs.append(run, "ended", unit=unit, attempt=attempt, seconds=90.0, queued=30.0, **end)
    page = opened(tab, run)
    assert text(page, ".state").startswith(f"failed {unit} failed; ")
    assert text(page, "header .alarm") == f"{unit}: it grew <too> big"
    assert f"{unit} failed after 3 attempts: it grew <too> big" in text(page, "#failures .alarm")
    assert "3 of 3 attempts came to nothing and cost 3:00 min of running time." in text(page, "#failures")
    rows = page.locator(".setbacks tbody tr").all_inner_texts()
    assert len(rows) == 3
    for words in (f"{unit}, 3", "ran out of memory", "1:00 min", "node7"):
        assert words in rows[0]


def test_where_the_policies_come_from(whole, tab):
    page = opened(tab, whole)
    assert "recorded inputs is what is there" in text(page, "#lineage")
    assert page.locator(".chain li").count() == 3


def test_hostile_names_stay_text(tmp_path, tab):
    tasks = [HOSTILE, "close"]
    simulator = {"name": "lab.worlds", "tasks": tasks, "options": {HOSTILE: HOSTILE}}
    run = made(tmp_path, simulator=simulator)
    for epoch in (0, 2):
        evaluate(run, epoch, dict.fromkeys(tasks, "+-"))
        train(run, 1 + epoch // 2, tasks)
    jobs.append(run, "submit", unit="e0001-update", attempt=1, key="k", host="here")
    jobs.append(run, "ended", unit="e0001-update", attempt=1, outcome="failed", cause="crash", error=HOSTILE)
    page = opened(tab, run)
    assert page.title() == "made · Baton"
    assert page.locator("img, script").count() == 0
    assert tab.errors == []
    shown = HOSTILE.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    for section in (".success", ".heat", ".config", "#failures"):
        assert shown in text(page, section)


def test_a_long_run_is_thinned_out_and_says_so(tmp_path, tab):
    run = made(tmp_path, epochs=201, rollout={"shards": 1, "episodes": 8})
    for epoch in range(1, 202):
        place = run / "epochs" / f"{epoch:04d}" / "update"
        if epoch == 1:
            into(run)("update", 1, metrics={"actor/loss": 1.0})
            text_of_first = (place / "manifest.json").read_text()
            continue
        place.mkdir(parents=True)
        manifest = text_of_first.replace("e0001-update", f"e{epoch:04d}-update")
        (place / "manifest.json").write_text(manifest.replace('"actor/loss": 1.0', f'"actor/loss": {epoch}.0'))
    page = opened(tab, run)
    points = [point for point in page.locator("svg use > title").all_text_contents() if point.startswith("Loss")]
    assert len(points) == 101
    assert points[0] == "Loss, epoch 1-2: 1.5 (mean; 1 to 2)"
    assert points[-1] == "Loss, epoch 201: 201"
    assert "A point is the mean of 2 epochs, the band goes from their least to their greatest." in text(page, ".grid")
    assert page.locator(".chain li").count() <= 12
    assert "191 more versions" in text(page, ".chain")

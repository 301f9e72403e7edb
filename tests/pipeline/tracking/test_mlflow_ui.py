"""MLflow's pages in a real browser: the experiment, its runs, a chart, a film that plays."""

import sys

import numpy as np
import pytest
from playwright.sync_api import expect

from pipeline.tracking.writer import Writer
from stages.video import VideoWriter
from tests.pipeline.tracking.runs_for_tests import free_port, make_run, publish_all, publish_unit, serving, store

PATIENCE = 120_000  # milliseconds; the pages are megabytes of script


def film(path) -> bytes:
    """A film as evaluations make them."""
    with VideoWriter(path, fps=10) as writer:
        for shade in range(0, 250, 10):
            writer.write(np.full((448, 672, 3), shade, np.uint8))
    return path.read_bytes()


@pytest.fixture
def pages(runs, tmp_path, monkeypatch):
    """The address that `baton ui` tells to open, of a tracked run."""
    run = make_run(runs)
    publish_all(run)
    publish_unit(run, "e0001-evaluate", {"env/success_rate": 0.5}, at=9, films={"film.mp4": film(tmp_path / "f.mp4")})
    assert Writer(run).catch_up() == []
    port = free_port()
    line = [sys.executable, "-m", "pipeline.cli", "ui", str(run), "--port", str(port)]
    said = tmp_path / "ui.log"
    with serving(line, port, said):
        yield next(line for line in said.read_text().splitlines() if line.startswith("open ")).removeprefix("open ")


@pytest.mark.slow
def test_the_pages_show_the_runs_a_chart_and_a_film(pages, runs, tab):
    page = tab.page
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.goto(pages)  # what it tells to open: the charts of this run
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    expect(page.get_by_text("env/success_rate").first).to_be_visible()

    page.get_by_text("Overview", exact=True).first.click()
    expect(page.get_by_role("link", name="e0002-update")).to_be_visible()

    page.get_by_role("link", name="Runs", exact=True).first.click()
    expect(page.get_by_text("pick", exact=True).first).to_be_visible()

    shown = store(runs)
    parent = f"/#/experiments/{shown.parent.info.experiment_id}/runs/{shown.parent.info.run_id}"
    assert pages.partition("/#")[1:] == ("/#", f"{parent[2:]}/model-metrics?workflowType=machine_learning")
    page.goto(f"{pages.partition('/#')[0]}{parent}/artifacts/videos/epoch-0001/evaluate/film.mp4")
    video = page.locator("video")
    expect(video).to_be_visible()
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    video.evaluate("film => { film.muted = true; return film.play(); }")
    page.wait_for_function("document.querySelector('video').currentTime > 0.3")
    assert video.evaluate("film => [film.videoWidth, film.videoHeight]") == [672, 448]

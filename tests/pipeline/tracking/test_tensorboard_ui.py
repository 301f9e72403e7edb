"""TensorBoard's page in a real browser: the run and its units are there, with their charts."""

import sys

import pytest
from playwright.sync_api import expect

from pipeline.tracking.writer import Writer
from tests.pipeline.tracking.runs_for_tests import free_port, make_run, publish_all, serving

PATIENCE = 60_000  # milliseconds


@pytest.fixture
def page_address(tmp_path):
    """Of the real server, of a run that was written for it."""
    run = make_run(tmp_path / "runs", logger={"mlflow": {"enable": False}, "tensorboard": {"enable": True}})
    publish_all(run)
    writer = Writer(run)
    assert writer.catch_up() == []
    writer.close()
    port = free_port()
    line = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run.parent / "tensorboard"), "--port", str(port)]
    with serving([*line, "--load_fast", "false"], port, tmp_path / "tensorboard.log", "data/logdir"):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.slow
def test_the_page_shows_the_runs_and_their_charts(page_address, tab):
    page = tab.page
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.goto(page_address)
    for run in ("pick", "pick/e0000-sft", "pick/e0002-update"):
        expect(page.get_by_text(run, exact=True).first).to_be_visible()
    for group, tag, value in (("actor", "/loss", "0.5"), ("env", "/success_rate", "0.75")):  # of the run's last epoch
        chart = page.locator("scalar-card").filter(has_text=group).filter(has_text=tag).first
        expect(chart.locator("svg, canvas").first).to_be_visible()
        chart.scroll_into_view_if_needed()
        of_the_run = chart.locator("tb-data-table-content-row").filter(has=page.get_by_text("pick", exact=True))
        expect(of_the_run).to_contain_text(value)
    assert tab.errors == []

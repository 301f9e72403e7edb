"""Headless Chromium for tests that look at pages as people do."""

import dataclasses
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from slurm.cluster.packages import LOCK

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "apt-get install --no-install-recommends chromium"


@dataclasses.dataclass(frozen=True)
class Tab:
    """A page with what it complained about and asked the network for.

    Attributes:
        page: the page itself.
        errors: errors of its console and of its scripts.
        requests: addresses it loaded, its own included.
    """

    page: Page
    errors: list[str] = dataclasses.field(default_factory=list)
    requests: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the system's Chromium, which plays H.264; where it is missing and may be installed, it is."""
    program = _installed() or _install()
    if program is None:
        pytest.skip(f"no Chromium here: as root, {INSTALL}")
    return program


# Not for the whole session: while Playwright is at work, asyncio.run() is refused in its thread, to other tests too.
@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Headless Chromium, shared by the tests of a module."""
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to work for root, and /dev/shm of a container is small.
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=60_000
        )
        yield started
        started.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A fresh tab, 1440 x 900 pixels, that shares nothing with any other."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    yield Tab(context.new_page())
    context.close()


def _installed() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def _install() -> str | None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of one pytest start at once, some of which install Slurm
        if _installed() is None:
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            for command in ("apt-get update -qq", f"{INSTALL} -qq --yes"):
                subprocess.run(command.split(), env=environment, capture_output=True, timeout=300)
    return _installed()

"""A real browser on the real stack: Chromium, the gateway and everything behind it.

`make test-browser` runs these tests. A page that logs an error, loads something from elsewhere or
asks for what is refused fails its test, whatever else it shows.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from selftaught.client import Client
from selftaught.stack.handle import Stack
from tests.system.conftest import SEED, TINY

expect.set_options(timeout=20_000)  # a busy machine draws slowly
SHOTS = Path(__file__).parents[2] / "docs" / "screenshots"
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PATIENCE = 90_000
"""Milliseconds that a page has for something that a worker does."""
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def sign_in(page: Page, key: str) -> None:
    """The next page asks with `key`. A file is opened: a page that is open would ask too."""
    page.goto("/web/style.css")
    page.evaluate("key => sessionStorage.setItem('selftaught.key', key)", key)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all browser tests."""
    env = {
        "SELFTAUGHT_WEBHOOK_NETWORKS": '["127.0.0.0/8"]',
        "SELFTAUGHT_VERDICT_LOG": "texts",
    }
    with Stack(tmp_path_factory.mktemp("web"), generator_workers=1, env=env) as running:
        yield running


@pytest.fixture(scope="session")
def api(stack: Stack) -> Iterator[Client]:
    """For what a test needs to be there before its page is opened."""
    with Client(stack.gateway_url) as found:
        yield found


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small file of each kind, to upload."""
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for kind, source, rows in (("instructions", "instructions", 100), ("labelled", "dev", 12)):
        lines = (SEED / "data" / f"{source}.jsonl").read_text().splitlines(keepends=True)
        found[kind] = folder / f"{kind}.jsonl"
        found[kind].write_text("".join(lines[:rows]))
    return found


@pytest.fixture(scope="session")
def done(api: Client, files: dict[str, Path]) -> dict[str, Any]:
    """A small job that has succeeded: two iterations of the model `shown`."""
    job = api.jobs.create(
        api.datasets.upload(files["instructions"]).id,
        labelled_dataset=api.datasets.upload(files["labelled"], kind="labelled").id,
        recipe="quickstart",
        overrides=json.loads(json.dumps(TINY)),
        model="shown",
    )
    return job.wait(600).model_dump(mode="json")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """CHROMIUM, a Chromium on the path, or the one that Playwright has installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser, stack: Stack) -> Iterator[BrowserContext]:
    """A browser of its own: nothing is signed in or remembered."""
    options: dict[str, Any] = {"base_url": stack.gateway_url, "viewport": DESK}
    found = browser.new_context(**options, locale="en-GB", timezone_id="UTC")
    found.grant_permissions(["clipboard-read", "clipboard-write"])
    yield found
    found.close()


@pytest.fixture
def refused() -> set[int]:
    """Statuses that a test means to see: add them before the page asks."""
    return set()


@pytest.fixture
def page(context: BrowserContext, stack: Stack, refused: set[int]) -> Iterator[Page]:
    """A tab; whatever goes wrong in it unseen fails the test at its end."""
    wrong: list[str] = []
    found = context.new_page()
    found.set_default_timeout(20_000)
    found.on("pageerror", lambda error: wrong.append(f"error: {error}"))

    def logged(message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            wrong.append(f"console: {message.text}")

    def answered(response: Any) -> None:
        if not response.url.startswith((stack.gateway_url, "blob:", "data:")):
            wrong.append(f"from elsewhere: {response.url}")
        if response.status >= 400 and response.status not in refused:
            wrong.append(f"{response.status}: {response.request.method} {response.url}")

    found.on("console", logged)
    found.on("response", answered)
    yield found
    found.close()
    assert not wrong, wrong


@pytest.fixture
def clean() -> Callable[[Page], None]:
    """Asserts that axe finds nothing (WCAG 2.2 A and AA, and its best practices), light and dark,
    and that the page is not wider than a phone."""
    axe = Axe()

    def check(page: Page) -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            found = axe.run(page).response["violations"]
            told = [
                (one["id"], one["help"], [node["html"][:200] for node in one["nodes"][:3]])
                for one in found
            ]
            assert not told, f"{scheme}: {json.dumps(told, indent=1)}"
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"], f"{wide} pixels wide on a phone"
        page.set_viewport_size(DESK)  # type: ignore[arg-type]

    return check


@pytest.fixture
def shot() -> Callable[..., None]:
    """Keep a picture of a page for the docs, where SCREENSHOTS is set."""

    def take(page: Page, name: str, *, dark: bool = False, phone: bool = False) -> None:
        if not os.environ.get("SCREENSHOTS"):
            return
        page.emulate_media(color_scheme="dark" if dark else "light")
        if phone:
            page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        page.wait_for_timeout(300)
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / f"{name}.png", full_page=not phone)
        page.set_viewport_size(DESK)  # type: ignore[arg-type]
        page.emulate_media(color_scheme="light")

    return take

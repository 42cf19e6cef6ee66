"""The frame around every page: what it weighs, who is signed in, light and dark, by keyboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from selftaught.client import Client
from tests.web.conftest import sign_in

pytestmark = pytest.mark.browser

FIRST_LOAD = 300_000
"""Bytes over the wire until the first page is there."""


def test_the_first_load_is_small(page: Page) -> None:
    sizes: list[int] = []

    def count(request: Any) -> None:
        sent = request.sizes()
        sizes.append(sent["responseBodySize"] + sent["responseHeadersSize"])

    page.on("requestfinished", count)
    page.goto("/")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert len(sizes) > 5 and sum(sizes) < FIRST_LOAD, sum(sizes)


def test_jobs_are_listed(page: Page, done: dict[str, Any], clean: Callable[[Page], None]) -> None:
    page.goto("/")
    row = page.get_by_role("row").filter(has_text=done["id"])
    expect(row.get_by_text("succeeded")).to_be_visible()
    clean(page)


def test_a_closed_gateway_asks_for_a_key(
    page: Page, api: Client, refused: set[int], clean: Callable[[Page], None]
) -> None:
    """This one is open: a wrong key is what it refuses, as a closed one refuses none."""
    refused.add(401)
    secret = api.keys.create("browser", ["read"]).secret
    sign_in(page, "st_wrong")
    page.goto("/")
    field = page.get_by_label("API key")
    expect(field).to_be_visible()
    clean(page)
    field.fill(secret)
    page.keyboard.press("Enter")
    expect(page.get_by_text("key browser")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("key browser")).to_have_count(0)


def test_an_address_leads_nowhere_else(page: Page) -> None:
    """What a link names is one thing below its own kind, whatever the link's maker wrote."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/#/datasets/%")
    expect(page.get_by_role("heading", name="Nothing is here")).to_be_visible()
    for name in ("..%2Fcaller", "x%2F%252e.%2F..%2Fcaller", "..%5Ccaller", ".%09.%2Fcaller"):
        asked.clear()
        page.goto(f"/#/datasets/{name}")
        expect(page.get_by_text("There is no such address.").first).to_be_visible()
        assert not [one for one in asked if "caller" in one], asked


def test_the_theme_is_kept(page: Page) -> None:
    page.goto("/")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme: system").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(ground) != light
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()


def test_the_first_tab_skips_the_navigation(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_focused()
    page.get_by_role("link", name="Skip to the page").focus()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_the_api_pages_load_nothing_from_elsewhere(page: Page) -> None:
    page.goto("/docs")
    expect(page.get_by_text("/v1/caller")).to_be_visible()

"""The playground: two versions beside each other, streamed, swapped, and told what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from selftaught.client import Client
from selftaught.stack.handle import Stack
from tests.web.conftest import PATIENCE, sign_in

pytestmark = pytest.mark.browser


def test_two_versions_are_asked(
    page: Page, done: dict[str, Any], clean: Callable[[Page], None], shot: Callable[..., None]
) -> None:
    page.goto("/#/playground?a=shown:2&b=shown:0")
    expect(page.get_by_label("Response A")).to_have_value("q f m")  # the first example
    page.get_by_label("Begin with").select_option(label="Replaced letters")
    expect(page.get_by_label("Response A")).to_have_value("c w u k")
    page.get_by_role("button", name="Swap responses").click()
    expect(page.get_by_label("Response A")).to_have_value("c w k u")
    page.get_by_label("Response B").press("Control+Enter")
    verdicts = page.locator(".verdict")
    expect(verdicts).to_have_count(2, timeout=PATIENCE)
    for version in ("shown:2", "shown:0"):
        card = page.get_by_role("region", name=version, exact=True)
        for shown in ("A shown first", "B shown first"):
            order = page.get_by_role("group", name=f"{version}, {shown}")
            expect(order.locator(".reasoning")).not_to_be_empty()
            swapped = order.get_by_text("A and B are swapped: [[B]] is your A")
            expect(swapped).to_have_count(int(shown == "B shown first"))
        expect(card.get_by_text("Confidence")).to_be_visible()
    expect(page.locator(".between")).to_contain_text("shown:2")
    clean(page)
    shot(page, "playground")


def test_votes_are_counted_and_not_streamed(page: Page, done: dict[str, Any]) -> None:
    page.goto("/#/playground?a=shown:latest")
    page.get_by_label("Begin with").select_option(label="Swapped letters")
    page.get_by_text("System prompt and options").click()
    page.get_by_label("Votes").fill("3")
    page.get_by_label("in both orders").uncheck()
    page.get_by_role("button", name="Judge").click()
    expect(page.locator(".verdict")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("heading", name="shown:latest is shown:")).to_be_visible()
    expect(page.get_by_text("one was asked")).to_be_visible()


def test_a_pair_of_a_job_is_brought_along(page: Page, done: dict[str, Any], stack: Stack) -> None:
    at = f"/v1/jobs/{done['id']}/iterations/1/pairs"
    first = httpx.get(f"{stack.gateway_url}{at}").json()["data"][0]["id"]
    pair = httpx.get(f"{stack.gateway_url}{at}/{first}").json()
    page.goto(f"/#/playground?job={done['id']}&iteration=1&pair={first}")
    expect(page.get_by_label("Instruction")).to_have_value(pair["instruction"])
    expect(page.get_by_label("Response A")).to_have_value(pair["chosen"])
    expect(page.get_by_label("Response B")).to_have_value(pair["rejected"])


def test_a_key_that_may_judge_alone_can(page: Page, api: Client, done: dict[str, Any]) -> None:
    """It may look at no lists, so none is asked for: `latest` answers."""
    secret = api.keys.create("judge-alone", ["judge"]).secret
    sign_in(page, secret)
    page.goto("/#/playground")
    expect(page.get_by_label("Version")).to_have_value("")
    expect(page.get_by_role("button", name="Judge")).to_be_enabled()


def test_what_cannot_be_answered_is_told(
    page: Page, done: dict[str, Any], refused: set[int], clean: Callable[[Page], None]
) -> None:
    refused.add(422)
    page.goto("/#/playground?a=shown:2")
    page.get_by_label("Instruction").fill("x" * 100_001)
    page.get_by_role("button", name="Judge").click()
    expect(page.get_by_role("alert")).to_contain_text("instruction")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    clean(page)

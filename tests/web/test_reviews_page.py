"""The review queue by keyboard alone: blind until the answer, and what the answers come to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import PATIENCE

pytestmark = pytest.mark.browser

TELLS = re.compile(r"verdict|confidence|stratum|agrees|orders_agree|label|chosen|swapped")
"""What no answer may name before the reviewer's own."""


def test_a_queue_is_filled_and_reviewed_by_keyboard(
    page: Page, done: dict[str, Any], clean: Callable[[Page], None], shot: Callable[..., None]
) -> None:
    came: list[tuple[str, str]] = []

    def answered(response: Any) -> None:
        if "/v1/reviews" in response.url or "/reviews/" in response.url:
            came.append((response.url, response.text()))

    page.on("requestfinished", lambda request: answered(request.response()))
    page.goto("/#/reviews")
    page.get_by_role("link", name="Review shown:1").click()
    expect(page.get_by_text("The queue is empty")).to_be_visible()
    expect(page.get_by_label("Your name")).to_have_count(0)
    clean(page)
    came.clear()
    page.get_by_label("Pairs from").select_option(done["labelled_dataset"])
    page.get_by_label("Pairs", exact=True).fill("10")
    page.get_by_role("button", name="Fill it").click()
    page.get_by_label("Your name").fill("ada", timeout=PATIENCE)
    page.keyboard.press("Enter")
    left = page.get_by_text("0 answered, 10 left")
    expect(left).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("group", name="Response A")).to_be_visible()
    clean(page)
    shot(page, "review")
    shot(page, "review-phone", phone=True)
    assert came and not [(url, text) for url, text in came if TELLS.search(text)]
    page.get_by_role("heading", level=1).focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.keyboard.type("as a test has it")  # letters are typed, not answers given
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.locator(".told")).to_contain_text("You: A is better. shown:1:")
    clean(page)
    for key in "btaba":
        page.keyboard.press("n")
        expect(page.get_by_role("button", name="A is better")).to_be_enabled()
        page.keyboard.press(key)
        expect(page.locator(".told")).to_be_visible()
    page.keyboard.press("n")
    expect(page.get_by_role("button", name="A is better")).to_be_enabled()
    expect(page.get_by_text("6 answered, 4 left")).to_be_visible()
    page.keyboard.press("s")
    expect(page.get_by_text("6 answered, 3 left")).to_be_visible()
    page.get_by_role("link", name="Answers").click()
    expect(page.get_by_text("as a test has it")).to_be_visible()
    clean(page)
    page.get_by_role("link", name="Summary").click()
    expect(page.get_by_role("table", name="Agreement by kind of pair")).to_be_visible()
    expect(page.get_by_text("6 of 10")).to_be_visible()
    expect(page.get_by_role("table", name="Verdicts of the version and of people")).to_be_visible()
    clean(page)
    shot(page, "review-summary")
    page.get_by_role("link", name="Reviews", exact=True).first.click()
    expect(page.get_by_role("link", name="Summary of shown:1")).to_be_visible()
    clean(page)
    shot(page, "reviews")


def test_the_name_is_kept_in_the_tab(page: Page, done: dict[str, Any]) -> None:
    page.goto("/#/reviews/shown/1")  # a queue that was filled
    page.get_by_label("Your name").fill("grace")
    page.keyboard.press("Enter")
    expect(page.get_by_text("You are grace")).to_be_visible()
    page.reload()
    expect(page.get_by_text("You are grace")).to_be_visible()
    page.get_by_role("button", name="Somebody else").click()
    expect(page.get_by_label("Your name")).to_be_visible()

"""The pair browser: what was kept and why the rest not, by keyboard, by filter, by link."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from selftaught.stack.handle import Stack

pytestmark = pytest.mark.browser


@pytest.fixture
def told(stack: Stack, done: dict[str, Any]) -> list[dict[str, Any]]:
    """The job's second iteration's pairs, as the API lists them."""
    at = f"{stack.gateway_url}/v1/jobs/{done['id']}/iterations/2/pairs?limit=100"
    found: list[dict[str, Any]] = httpx.get(at).json()["data"]
    return found


def test_pairs_are_gone_through_by_keyboard(
    page: Page,
    done: dict[str, Any],
    told: list[dict[str, Any]],
    clean: Callable[[Page], None],
    shot: Callable[..., None],
) -> None:
    page.goto(f"/#/jobs/{done['id']}/pairs")
    links = page.get_by_role("region", name="Pairs", exact=True).get_by_role("link")
    expect(links.first).to_be_visible()
    assert links.count() == min(len(told), 25)
    # The first one is open, without a pair in the address.
    expect(page.get_by_role("heading", name=told[0]["id"], level=2)).to_be_visible()
    assert "pair=" not in page.url
    clean(page)
    shot(page, "pairs")
    for key, place in (("j", 1), ("j", 2), ("k", 1), ("k", 0)):
        page.keyboard.press(key)
        expect(page.get_by_role("heading", name=told[place]["id"], level=2)).to_be_visible()
        assert f"pair={told[place]['id']}" in page.url
    clean(page)


def test_a_pair_tells_what_became_of_every_judgment(
    page: Page,
    done: dict[str, Any],
    told: list[dict[str, Any]],
    clean: Callable[[Page], None],
    shot: Callable[..., None],
) -> None:
    kept = next(one for one in told if "kept" in one["outcomes"])
    page.goto(f"/#/jobs/{done['id']}/pairs?iteration=2&pair={kept['id']}")  # a link from elsewhere
    instruction = page.get_by_role("group", name="Instruction", exact=True)
    expect(instruction).to_contain_text(kept["instruction"])
    for part in ("Modified instruction", "Better response", "Worse response"):
        expect(page.get_by_role("group", name=part)).to_be_visible()
    fates: dict[str, int] = {}
    for order in kept["orders"]:
        for fate, n in order["fates"].items():
            fates[fate] = fates.get(fate, 0) + n
    expect(page.locator(".judgment")).to_have_count(6)
    for fate, n in fates.items():
        name = fate.replace("_", " ")
        expect(page.locator(".judgment .chip").get_by_text(name, exact=True)).to_have_count(n)
    page.get_by_role("button", name="Reasoning of judgment 1, order AB").click()
    expect(page.locator(".reasoning")).to_contain_text("sample 0")
    clean(page)
    shot(page, "pair")
    shot(page, "pair-dark", dark=True)


def test_pairs_are_filtered(page: Page, done: dict[str, Any], told: list[dict[str, Any]]) -> None:
    page.goto(f"/#/jobs/{done['id']}/pairs?iteration=2")
    links = page.get_by_role("region", name="Pairs", exact=True).get_by_role("link")
    for outcome in ("kept", "dropped", "none_right", "flipped", "unparsable"):
        wanted = [one["id"] for one in told if outcome in one["outcomes"]][:25]
        page.get_by_label("Show").select_option(outcome)
        expect(links).to_have_count(len(wanted))
        if wanted:
            expect(links.first).to_contain_text(wanted[0])
    last = told[-1]["id"]
    begins = page.get_by_label("Id begins with")
    held: list[Route] = []
    page.route("**/pairs?*", lambda route: held.append(route), times=1)
    page.get_by_label("Show").select_option("")
    begins.fill(last)  # while the list is still to come
    while not held:
        page.wait_for_timeout(10)
    held[0].continue_()
    expect(links).to_have_count(25)
    expect(begins).to_have_value(last)
    page.keyboard.press("Enter")
    expect(links).to_have_count(sum(one["id"].startswith(last) for one in told))


def test_a_job_without_pairs_says_so(page: Page, refused: set[int]) -> None:
    refused.add(404)
    page.goto("/#/jobs/job_0/pairs")
    expect(page.get_by_role("alert")).to_contain_text("there is no job 'job_0'")

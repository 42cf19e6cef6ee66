"""From a file of prompts to a judge that was rolled back, in one browser, as a newcomer goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.system.conftest import TINY
from tests.web.conftest import PATIENCE

pytestmark = pytest.mark.browser


def test_a_judge_is_made_looked_at_asked_promoted_and_rolled_back(
    page: Page, files: dict[str, Path]
) -> None:
    # Upload.
    page.goto("/#/datasets")
    page.get_by_label("Choose files").set_input_files(files["instructions"])
    page.get_by_role("link", name="100 rows: open instructions.jsonl").click()

    # A job, and its progress without a reload.
    page.get_by_role("link", name="Start a job with it").click()
    page.get_by_label("Model").fill("walked")
    page.get_by_label("Iterations").fill("1")
    settings = {key: value for key, value in TINY.items() if key != "iterations"}
    page.get_by_label("Other settings, as JSON").fill(json.dumps(settings))
    page.get_by_role("button", name="Start the job").click()
    bar = page.get_by_role("progressbar", name="Progress of the job")
    expect(bar).not_to_have_attribute("aria-valuenow", "0", timeout=PATIENCE)
    state = page.locator(".page-head .chip")
    expect(state).to_have_text("succeeded", timeout=3 * PATIENCE)

    # Curves with intervals, and the same figures as a table.
    page.get_by_role("link", name="Quality").click()
    curve = page.locator("figure", has_text="Strict accuracy").first
    expect(curve.locator(".whisker")).to_have_count(2)
    curve.get_by_text("The figures").click()
    expect(curve.get_by_role("row")).to_have_count(1 + 2)
    page.get_by_role("link", name="Training").click()
    expect(page.locator("figure", has_text="Training loss").locator(".line")).to_have_count(1)

    # Pairs: what was kept, and why the rest not.
    page.get_by_role("link", name="Data", exact=True).click()
    page.get_by_role("link", name="Look at the pairs").click()
    expect(page.get_by_role("heading", name="Pairs", level=1)).to_be_visible()
    listed = page.get_by_role("region", name="Pairs", exact=True).get_by_role("link")
    expect(listed.first).to_be_visible()
    expect(page.get_by_role("group", name="Modified instruction")).to_be_visible()

    # Reviews: fill the queue, answer one blind.
    page.goto("/#/reviews/walked/1")
    page.get_by_role("button", name="Fill it").click()
    page.get_by_label("Your name").fill("ada", timeout=PATIENCE)
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Response A")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("heading", level=1).focus()
    page.keyboard.press("a")
    expect(page.locator(".told")).to_contain_text("You: A is better. walked:1:")

    # Ask both versions.
    page.goto("/#/playground?a=walked:1&b=walked:0")
    page.get_by_label("Begin with").select_option(label="Swapped letters")
    page.get_by_role("button", name="Judge").click()
    expect(page.locator(".verdict")).to_have_count(2, timeout=PATIENCE)

    # The gate has promoted it; back to the seed, and by the gate to it again.
    page.goto("/#/models/walked?tab=aliases")
    latest = page.get_by_role("region", name="latest")
    latest.get_by_role("button", name="Roll back to :0").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back to walked:0").click()
    expect(page.get_by_text("latest names walked:0 again.")).to_be_visible()
    page.goto("/#/models/walked")
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="walked:1"))
    expect(row).to_contain_text("rolled back to :0")
    page.get_by_role("button", name="Promote walked:1").click()
    page.get_by_role("dialog").get_by_role("button", name="Ask the gate").click()
    expect(row.get_by_text("latest")).to_be_visible()

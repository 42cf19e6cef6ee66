"""What the system is doing: health, queues, engines, usage; the audit and the verdict log."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from selftaught.client import Client
from tests.web.conftest import until

pytestmark = pytest.mark.browser

Clean = Callable[[Page], None]
Shot = Callable[..., None]


def test_the_operator_sees_what_it_is_doing(
    page: Page, done: dict[str, Any], clean: Clean, shot: Shot
) -> None:
    page.goto("/#/system")
    health = page.get_by_role("region", name="Health")
    expect(health.get_by_text("ok", exact=True)).to_have_count(3)
    jobs = page.get_by_role("region", name="Jobs by state")
    expect(jobs.get_by_text("succeeded")).to_be_visible()
    expect(jobs.get_by_text("Database")).to_have_count(0)
    signs = page.get_by_role("region", name="Leases, tokens, database")
    expect(signs.get_by_text("Database", exact=True)).to_be_visible()
    expect(page.get_by_role("region", name="Usage")).to_contain_text("Tokens today")
    expect(page.get_by_role("region", name="Engines")).to_contain_text("No engine nodes")
    clean(page)
    shot(page, "system")


def test_the_metrics_are_read_as_prometheus_reads_them(page: Page) -> None:
    page.goto("/")
    found = page.evaluate(
        r"""async () => {
          const { parse, sum, one } = await import("/web/parts/metrics.js");
          const text = '# HELP a b\n# TYPE a gauge\na 1.5\nb{q="x,y",z="say \\"hi\\""} 2e3\n';
          const all = parse(text + 'b{q="{}"} +Inf\n');
          return [all, one(all, "a"), sum(all, "none") === undefined];
        }"""
    )
    samples = [
        {"name": "a", "labels": {}, "value": 1.5},
        {"name": "b", "labels": {"q": "x,y", "z": 'say "hi"'}, "value": 2000},
        {"name": "b", "labels": {"q": "{}"}, "value": float("inf")},
    ]
    assert found == [samples, 1.5, True]


def test_who_did_what_is_found(page: Page, api: Client, clean: Clean, shot: Shot) -> None:
    key = api.keys.create("auditor", ["admin"])
    with Client(api.base_url, key=key.secret) as auditor:
        made = auditor.keys.create("made-by-auditor", ["read"])
        auditor.keys.revoke(made.id)
    page.goto("/#/audit")
    expect(page.get_by_role("heading", name="Audit log", level=1)).to_be_visible()
    when = page.get_by_role("table").get_by_role("rowheader").first
    expect(when).to_have_text(re.compile(r", \d\d:\d\d:\d\d$"))
    clean(page)
    shot(page, "audit")
    page.get_by_label("Who").fill("auditor")
    page.get_by_label("Method").select_option("DELETE")
    page.get_by_role("button", name="Search").click()
    lines = page.get_by_role("table").get_by_role("row")
    expect(lines).to_have_count(2)
    expect(lines.last).to_contain_text(f"/v1/keys/{made.id}")
    expect(lines.last).to_contain_text("200")
    expect(page).to_have_url(re.compile(r"#/audit\?key=auditor&method=DELETE"))
    page.get_by_role("button", name="Clear").click()
    expect(lines).not_to_have_count(2)


def test_long_logs_go_on(page: Page, api: Client) -> None:
    for number in range(30):
        api.keys.create(f"one-of-many-{number}", ["read"])
    page.goto("/#/audit?method=POST&route=/v1/keys")
    lines = page.get_by_role("table").get_by_role("row")
    expect(lines).to_have_count(26)
    page.get_by_role("button", name="Show more").click()
    expect(lines).not_to_have_count(26)


def test_a_verdict_leads_to_the_version_that_gave_it(
    page: Page, api: Client, done: dict[str, Any], clean: Clean, shot: Shot
) -> None:
    answer = api.judge("sort a b c", "c b a", "a b c", model="shown:1")
    until(lambda: any(one.id == answer.id for one in api.verdicts.list(model="shown")))  # batched
    page.goto("/#/verdicts?model=shown&version=1")
    line = page.get_by_role("table").get_by_role("row").last
    expect(line.get_by_role("link", name="shown:1")).to_be_visible()
    expect(line.get_by_role("rowheader")).to_have_text(re.compile(r", \d\d:\d\d:\d\d$"))
    clean(page)
    shot(page, "verdicts")
    page.get_by_label("One verdict").fill(answer.id)
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("heading", name=answer.id, level=1)).to_be_visible()
    expect(page.get_by_role("region", name="The texts")).to_contain_text("sort a b c")
    expect(page.get_by_role("link", name=done["id"])).to_be_visible()
    clean(page)


def test_an_empty_verdict_log_says_how_it_is_set(page: Page, clean: Clean) -> None:
    nothing = {"object": "list", "data": [], "has_more": False}
    page.route("**/v1/verdicts?*", lambda route: route.fulfill(json=nothing))
    page.goto("/#/verdicts")
    expect(page.get_by_text("SELFTAUGHT_VERDICT_LOG=hashes")).to_be_visible()
    clean(page)

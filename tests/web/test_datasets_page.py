"""Datasets: uploaded by hand and by drop, told what is wrong line by line, looked at, deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from selftaught.client import Client

pytestmark = pytest.mark.browser

BAD = "".join(
    json.dumps({"instruction": f"do {n}"} if n % 3 else {"instruction": n if n % 2 else ""}) + "\n"
    for n in range(400)
)
"""134 bad lines of 400: empty ones and numbers."""


def test_files_are_uploaded_one_after_the_other(
    page: Page,
    files: dict[str, Path],
    tmp_path: Path,
    clean: Callable[[Page], None],
    shot: Callable[..., None],
) -> None:
    page.goto("/#/datasets")
    second = tmp_path / "plain.txt"
    second.write_text("Reverse these letters: k f a b\nSort these letters: k f a b\n")
    page.get_by_label("Choose files").set_input_files([files["instructions"], second])
    expect(page.get_by_role("link", name="100 rows: open instructions.jsonl")).to_be_visible()
    opened = page.get_by_role("link", name="2 rows: open plain.txt")
    expect(opened).to_be_visible()
    listed = page.get_by_role("row").filter(has_text="plain.txt")
    expect(listed.get_by_role("cell", name="instructions")).to_be_visible()
    clean(page)
    shot(page, "datasets")
    opened.click()
    expect(page.get_by_role("heading", name="plain.txt", level=1)).to_be_visible()
    expect(page.get_by_text("Sort these letters: k f a b")).to_be_visible()


def test_what_is_wrong_is_told_by_line(
    page: Page,
    tmp_path: Path,
    refused: set[int],
    clean: Callable[[Page], None],
    shot: Callable[..., None],
) -> None:
    refused.add(422)
    bad = tmp_path / "prompts.jsonl"
    bad.write_text(BAD)
    page.goto("/#/datasets")
    page.get_by_label("Choose files").set_input_files(bad)
    expect(page.get_by_text("134 errors, the first in line 1; nothing was kept")).to_be_visible()
    table = page.get_by_role("table", name="What is wrong with prompts.jsonl")
    expect(table.get_by_role("row")).to_have_count(101)
    first = table.get_by_role("row").nth(1)
    expect(first).to_contain_text("instruction")
    expect(first).to_contain_text("empty")
    expect(table.get_by_role("row").nth(2)).to_contain_text("not a string")
    clean(page)
    shot(page, "upload-errors")


def test_a_file_of_no_known_kind_is_not_sent(page: Page, tmp_path: Path) -> None:
    odd = tmp_path / "prompts.docx"
    odd.write_text("x")
    page.goto("/#/datasets")
    page.get_by_label("Choose files").set_input_files(odd)
    expect(page.get_by_text("prompts.docx ends with none of")).to_be_visible()


def test_files_are_dropped(page: Page) -> None:
    page.goto("/#/datasets")
    page.get_by_label("Kind").select_option("labelled")
    page.get_by_label("Name (optional)").fill("checks")
    given = page.evaluate_handle("""() => {
        const data = new DataTransfer();
        const row = JSON.stringify({instruction: 'i', chosen: 'c', rejected: 'r'}) + '\\n';
        data.items.add(new File([row], 'dropped.jsonl'));
        return data;
    }""")
    page.dispatch_event(".drop", "drop", {"dataTransfer": given})
    expect(page.get_by_role("link", name="1 row: open checks")).to_be_visible()
    row = page.get_by_role("row").filter(has_text="checks")
    expect(row.get_by_role("cell", name="labelled")).to_be_visible()


def test_an_upload_is_stopped(page: Page, tmp_path: Path) -> None:
    large = tmp_path / "large.txt"
    large.write_text("Reverse these letters: k f a b\n" * 400_000)
    page.goto("/#/datasets")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 500_000}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.get_by_label("Choose files").set_input_files(large)
    expect(page.get_by_text("uploading")).to_be_visible()
    expect(page.get_by_role("progressbar", name="Upload of large.txt")).to_be_visible()
    page.get_by_role("button", name="Stop large.txt").click()
    expect(page.get_by_text("stopped", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="All datasets")).to_be_visible()
    expect(page.get_by_role("link", name="large.txt")).to_have_count(0)


def test_a_dataset_is_looked_at(
    page: Page, done: dict[str, Any], clean: Callable[[Page], None], shot: Callable[..., None]
) -> None:
    page.goto(f"/#/datasets/{done['dataset']}")
    expect(page.get_by_text("Leave out the letter e in: q e l b d")).to_be_visible()
    rows = page.locator(".rows > li")
    expect(rows).to_have_count(10)
    page.get_by_role("button", name="More rows").click()
    expect(rows).to_have_count(20)
    used = page.get_by_role("row").filter(has_text=done["id"])
    expect(used.get_by_text("teach")).to_be_visible()
    start = page.get_by_role("link", name="Start a job with it")
    expect(start).to_have_attribute("href", f"#/jobs/new?dataset={done['dataset']}")
    clean(page)
    shot(page, "dataset", phone=True)


def test_a_dataset_is_deleted_when_asked_twice(
    page: Page, api: Client, tmp_path: Path, clean: Callable[[Page], None]
) -> None:
    file = tmp_path / "doomed.txt"
    file.write_text("do it\n")
    name = api.datasets.upload(file).id
    page.goto(f"/#/datasets/{name}")
    page.get_by_role("button", name="Delete").click()
    clean(page)
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_role("heading", name="Datasets", level=1)).to_be_visible()
    expect(page.get_by_role("link", name="doomed.txt")).to_have_count(0)

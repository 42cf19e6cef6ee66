"""The registry's pages: models, lineage, promotion, aliases and rollback, canaries, versions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from selftaught.client import Client
from selftaught.stack.handle import Stack
from tests.web.conftest import PATIENCE
from tests.web.many import seed

pytestmark = pytest.mark.browser

MANY = 60
Clean = Callable[[Page], None]
Shot = Callable[..., None]


@pytest.fixture(scope="module")
def gated(api: Client) -> str:
    """A model with four versions of one base model; no job has scored two of them."""
    for template in ("smallworld", "mt-bench", "answer-a-or-b", "verdict-only"):
        api.models.register("smallworld", name="gated", template=template).wait(300)
    return "gated"


@pytest.fixture(scope="module")
def scored(api: Client, done: dict[str, Any]) -> str:
    """The version `shown:2`, evaluated as `shown:0` is."""
    dataset = done["labelled_dataset"]
    for ref in ("shown:0", "shown:2"):
        api.evaluations.create(dataset=dataset, model=ref).wait(300)
    return "shown:2"


def row(page: Page, name: str) -> Locator:
    """A table's row by its first cell."""
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name))


def dialog(page: Page, title: str) -> Locator:
    return page.get_by_role("dialog", name=title)


def test_models_are_listed(page: Page, done: dict[str, Any], clean: Clean, shot: Shot) -> None:
    page.goto("/#/models")
    line = row(page, "shown")
    expect(line.get_by_text("latest")).to_be_visible()
    expect(line.get_by_text("held-out")).to_be_visible()
    clean(page)
    shot(page, "models")
    line.get_by_role("link", name="shown").click()
    expect(page.get_by_role("heading", name="shown", level=1)).to_be_focused()


def test_a_base_model_is_registered(page: Page, refused: set[int], clean: Clean) -> None:
    refused.add(422)
    page.goto("/#/models")
    page.get_by_role("button", name="Register a base model").click()
    form = dialog(page, "Register a base model")
    form.get_by_label("Base model").fill("nothing")
    form.get_by_role("button", name="Register").click()
    expect(form.get_by_role("alert")).to_contain_text("smallworld")  # what there is
    clean(page)
    form.get_by_label("Base model").fill("smallworld")
    form.get_by_label("Name of the model").fill("registered")
    form.get_by_label("Judge template").select_option("smallworld")
    form.get_by_role("button", name="Register").click()
    expect(page).to_have_url(re.compile("#/jobs/job_"))


def test_a_model_shows_what_its_versions_are_worth(
    page: Page, done: dict[str, Any], clean: Clean, shot: Shot
) -> None:
    page.goto("/#/models/shown")
    line = row(page, "shown:1")
    expect(line.get_by_role("link", name=":0")).to_be_visible()
    expect(line.get_by_text("iteration 1")).to_be_visible()
    expect(line.get_by_text("%").first).to_be_visible()
    expect(page.get_by_role("img", name="Strict accuracy by version")).to_be_visible()
    clean(page)
    shot(page, "model")
    shot(page, "model-phone", phone=True)


def test_the_lineage_of_many_versions(page: Page, stack: Stack, clean: Clean, shot: Shot) -> None:
    seed(stack.database_url, "year", MANY)
    page.goto("/#/models/year?tab=lineage")
    versions = page.get_by_role("list", name="Versions, newest first").get_by_role("listitem")
    expect(versions).to_have_count(MANY)
    expect(versions.last).to_contain_text("a base model")
    expect(page.locator(".lineage path")).not_to_have_count(0)
    clean(page)
    shot(page, "lineage")
    shot(page, "lineage-dark", dark=True)
    shot(page, "lineage-phone", phone=True)
    first = versions.first.get_by_role("link")
    first.focus()
    expect(page.locator(".lineage li.dim").first).to_be_visible()  # who is not of its family
    page.keyboard.press("Tab")
    expect(versions.nth(1).get_by_role("link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"year:{MANY - 2}", level=1)).to_be_visible()


def test_a_branch_has_its_own_rail(page: Page) -> None:
    """0 <- 1 <- 4 (latest), 1 <- 2 <- 3: the line to `latest` is straight, the other beside it."""
    page.goto("/")
    lanes = page.evaluate(
        """async () => {
          const { layout } = await import("/web/pages/models/lineage.js");
          const one = (number, from, aliases = []) =>
            ({ ref: `m:${number}`, number, parent: from === null ? null : `m:${from}`, aliases });
          const versions = [one(0, null), one(1, 0), one(2, 1), one(3, 2), one(4, 1, ["latest"])];
          const { lanes, nodes } = layout(versions);
          return [lanes, nodes.map(({ version, row, lane }) => [version.number, row, lane])];
        }"""
    )
    assert lanes == [2, [[4, 0, 0], [3, 1, 1], [2, 2, 1], [1, 3, 0], [0, 4, 0]]]


def test_only_a_rollback_is_called_one(page: Page) -> None:
    """A move to an older version by a gate or by hand is none: the history's reason says which."""
    page.goto("/")
    told = page.evaluate(
        """async () => {
          const { fallen } = await import("/web/pages/models/registry.js");
          const latest = (...moves) => {
            const history = moves.map(([number, reason]) => ({ version: `m:${number}`, reason }));
            return { version: history[0].version, history };
          };
          const up = [[1, "gate of job_2"], [0, "gate of job_1"]];
          return [
            fallen(latest([0, "rollback"], ...up), "m:1"),
            fallen(latest([0, "gate of job_3"], ...up), "m:1"),
            fallen(latest(...up), "m:0"),
            fallen(latest(...up), "m:1"),
            fallen(latest(...up), "m:2"),
          ];
        }"""
    )
    assert told == [
        {"told": "rolled back to :0", "kind": "warn"},
        {"told": "replaced by :0", "kind": "dim", "why": "gate of job_3"},
        {"told": "replaced by :1", "kind": "dim", "why": "gate of job_2"},
        None,
        None,
    ]


def test_a_line_breaks_between_the_pairs_of_two_jobs(
    page: Page, done: dict[str, Any], stack: Stack
) -> None:
    page.goto("/#/models/shown")
    lines = page.locator("figure", has_text="Strict accuracy by version").locator(".line")
    expect(lines.first).to_have_attribute("d", re.compile(r"^M[^M]*$"))  # of one job
    seed(stack.database_url, "jobs", 8)  # the seed's, and two others' of five and two versions
    page.goto("/#/models/jobs")
    expect(lines).to_have_count(2)
    expect(lines.nth(0)).to_have_attribute("d", re.compile(r"^M[^M]*M[^M]*M[^M]*$"))
    expect(lines.nth(1)).to_have_attribute("d", re.compile(r"^M[^M]*$"))  # labelled pairs: of all


def test_the_gate_refuses_and_a_key_forces(
    page: Page, api: Client, gated: str, refused: set[int], clean: Clean, shot: Shot
) -> None:
    refused.update({401, 409})
    key = api.keys.create("forcing", ["promote"])
    page.goto(f"/#/models/{gated}")
    page.get_by_role("button", name=f"Promote {gated}:1").click()
    form = dialog(page, f"Promote {gated}:1")
    expect(form).to_contain_text(f"at least as good as {gated}:0")
    form.get_by_role("button", name="Ask the gate").click()
    expect(form.get_by_text("The gate refuses.")).to_be_visible(timeout=PATIENCE)
    expect(form.get_by_role("listitem").filter(has_text="margin")).to_contain_text("failed")
    clean(page)
    shot(page, "promote-refused")
    assert api.models.alias(gated).version == f"{gated}:0"
    form.get_by_label("Promote even if a rule fails").check()
    form.get_by_label("Reason").fill("the incumbent leaks")
    form.get_by_label("API key").fill("st_wrong")
    form.get_by_role("button", name="Force the promotion").click()
    expect(form.get_by_role("alert")).to_contain_text("key")  # and the page is still there
    form.get_by_label("API key").fill(key.secret)
    form.get_by_role("button", name="Force the promotion").click()
    expect(row(page, f"{gated}:1").get_by_text("latest")).to_be_visible(timeout=PATIENCE)
    expect(row(page, f"{gated}:1").get_by_text("forced")).to_be_visible()
    (move, *_) = api.models.alias(gated).history
    assert (move.by, move.reason) == ("forcing", "forced by forcing: the incumbent leaks")
    api.keys.revoke(key.id)


def test_an_alias_is_made_moved_and_rolled_back(page: Page, api: Client, gated: str) -> None:
    page.goto(f"/#/models/{gated}?tab=aliases")
    for title, version in (("New alias", "1"), ("Move staging", "2")):
        if title == "New alias":
            page.get_by_role("button", name="New alias").click()
            dialog(page, title).get_by_label("Name").fill("staging")
        else:
            page.get_by_role("region", name="staging").get_by_role("button", name="Move").click()
        form = dialog(page, title)
        form.get_by_label("Version").select_option(version)
        form.get_by_label("Reason").fill("for the search team")
        form.locator("button.primary").click()
        told = page.get_by_text(f"staging names {gated}:{version} now.")
        expect(told).to_be_visible(timeout=PATIENCE)
    card = page.get_by_role("region", name="staging")
    card.get_by_role("button", name="Roll back to :1").click()
    form = dialog(page, "Roll back staging")
    expect(form).to_contain_text(re.compile(rf"from\s*{gated}:2\s*back to\s*{gated}:1"))
    form.get_by_role("button", name=f"Roll back to {gated}:1").click()
    expect(card.get_by_text("Nothing to roll back to")).to_be_visible()
    assert [one.version for one in api.models.alias(gated, "staging").history] == [
        f"{gated}:1",
        f"{gated}:2",
        f"{gated}:1",
    ]


def test_whoever_was_slower_is_told(
    page: Page, api: Client, gated: str, refused: set[int], clean: Clean, shot: Shot
) -> None:
    """Somebody moves the alias while the question stands: nothing is changed by the answer."""
    refused.add(412)
    for number in (1, 2):
        api.models.set_alias(gated, "watched", number)
    page.goto(f"/#/models/{gated}?tab=aliases")
    card = page.get_by_role("region", name="watched")
    card.get_by_role("button", name="Roll back to :1").click()
    form = dialog(page, "Roll back watched")
    shot(page, "rollback")
    api.models.set_alias(gated, "watched", 3)
    form.get_by_role("button", name=f"Roll back to {gated}:1").click()
    expect(form.get_by_role("alert")).to_contain_text("Somebody else moved it meanwhile.")
    clean(page)
    assert api.models.alias(gated, "watched").version == f"{gated}:3"
    form.get_by_role("button", name="Show me what it names now").click()
    expect(card.get_by_role("button", name="Roll back to :2")).to_be_visible()


def test_a_canary_is_started_read_and_ended(
    page: Page, api: Client, gated: str, clean: Clean, shot: Shot
) -> None:
    api.models.set_alias(gated, "tried", 0)
    page.goto(f"/#/models/{gated}?tab=canaries")
    page.get_by_role("button", name="Start a canary").click()
    form = dialog(page, "Start a canary")
    form.get_by_label("Alias", exact=True).select_option("tried")
    form.get_by_label("Version to try").select_option("1")
    form.get_by_role("spinbutton").fill("100")
    clean(page)
    form.get_by_role("button", name="Start", exact=True).click()
    card = page.get_by_role("region", name=f"{gated}:1 beside {gated}:0")
    expect(card.get_by_text("No question has come")).to_be_visible(timeout=PATIENCE)
    for number in range(3):
        api.judge(f"say hello {number}", "hello", "hi", model=f"{gated}:tried")
    questions = card.get_by_role("row").filter(has_text="Questions").get_by_role("cell")
    expect(questions).to_have_text(["3", "3"], timeout=PATIENCE)
    expect(card.get_by_text("Same verdict")).to_be_visible(timeout=PATIENCE)
    clean(page)
    shot(page, "canary")
    card.get_by_role("button", name="End").click()
    dialog(page, "End the canary of tried").get_by_role("button", name="End it").click()
    ended = page.get_by_role("region", name="Ended")
    ended.get_by_role("button", name="Report").click()
    expect(ended.get_by_text("Judged by both")).to_be_visible()


def test_a_version_tells_where_it_came_from(
    page: Page, done: dict[str, Any], scored: str, clean: Clean, shot: Shot
) -> None:
    page.goto("/#/models/shown/versions/2")
    lineage = page.get_by_role("region", name="Where it came from")
    expect(lineage.get_by_role("link", name=done["id"])).to_be_visible()
    expect(lineage.get_by_role("link", name=done["dataset"])).to_be_visible()
    expect(lineage).to_contain_text("quickstart, seed 0")
    expect(page.get_by_role("region", name="The gate's decisions")).to_contain_text("margin")
    expect(page.get_by_role("region", name="How good it is")).to_contain_text("length-3")
    benchmarks = page.get_by_role("region", name="Benchmarks")
    compare = benchmarks.get_by_label("Compare with").first  # each evaluated set has one
    compare.select_option(label="shown:0, smallworld")
    expect(benchmarks.get_by_role("status")).to_contain_text("McNemar p")
    expect(page.get_by_role("img", name="Loss by step")).to_be_visible()
    weights = page.get_by_role("region", name="Files")
    with page.expect_download() as download:
        weights.get_by_role("button", name="Download config.json").click()
    assert download.value.suggested_filename == "config.json"
    clean(page)
    shot(page, "version")
    page.get_by_role("link", name="Try it").click()
    expect(page).to_have_url(re.compile(r"#/playground\?a=shown%3A2"))


def test_an_evaluation_is_started(page: Page, done: dict[str, Any], clean: Clean) -> None:
    page.goto("/#/models/shown/versions/1")
    benchmarks = page.get_by_role("region", name="Benchmarks")
    benchmarks.get_by_role("button", name="Evaluate").click()
    form = dialog(page, "Evaluate shown:1")
    form.get_by_label("Benchmark or labelled").select_option(done["labelled_dataset"])
    form.get_by_label("At most so many").fill("4")
    clean(page)
    form.get_by_role("button", name="Start").click()
    expect(benchmarks.get_by_text("4 examples")).to_be_visible(timeout=PATIENCE)
    expect(benchmarks.get_by_role("table").first).to_be_visible(timeout=PATIENCE)


def test_a_version_in_use_is_not_deleted(
    page: Page, api: Client, gated: str, refused: set[int], clean: Clean
) -> None:
    refused.add(409)
    api.models.set_alias(gated, "kept", 3)
    page.goto(f"/#/models/{gated}/versions/3")
    page.get_by_role("button", name="Delete").click()
    form = dialog(page, f"Delete {gated}:3")
    form.get_by_role("button", name="Delete it for good").click()
    expect(form.get_by_role("alert")).to_contain_text("an alias names it")
    clean(page)
    assert api.models.version(gated, 3)

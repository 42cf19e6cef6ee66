"""The list of jobs, the form for a new one, and a job's page with its tabs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from selftaught.client import Client, JobFailed
from tests.system.conftest import TINY
from tests.web.conftest import PATIENCE, sign_in

pytestmark = pytest.mark.browser

Clean = Callable[[Page], None]
Shot = Callable[..., None]


def open_job(page: Page, job: dict[str, Any], tab: str = "") -> None:
    page.goto(f"/#/jobs/{job['id']}" + (f"?tab={tab}" if tab else ""))
    expect(page.get_by_role("heading", name=job["model"], level=1)).to_be_visible()


def test_the_overview_says_what_was_learned(
    page: Page, done: dict[str, Any], clean: Clean, shot: Shot
) -> None:
    open_job(page, done)
    expect(page.locator(".learned")).to_contain_text("held-out pairs it is right in both orders")
    verdict = re.compile(
        r"No difference from the seed can be seen on \d+ pairs|clearly (better|worse)"
    )
    trained = page.locator(".learned li", has_text="against the seed")
    for at in range(trained.count()):
        expect(trained.nth(at)).to_contain_text(verdict)
    halves = page.locator(".learned li", has_text="choose the checkpoint")
    expect(halves.get_by_role("link", name="see Data")).to_have_attribute(
        "href", f"#/jobs/{done['id']}?tab=data"
    )
    rows = page.get_by_role("region", name="Iterations, newest first").get_by_role("row")
    expect(rows).to_have_count(1 + 3)
    expect(rows.nth(1)).to_contain_text("shown:2")
    clean(page)
    shot(page, "job-overview")
    page.get_by_role("combobox", name="Iteration").select_option("1")
    expect(page.get_by_role("heading", name="Stages of iteration 1")).to_be_visible()
    page.reload()  # what is chosen is in the address
    expect(page.get_by_role("heading", name="Stages of iteration 1")).to_be_visible()


def test_quality_has_a_line_for_each_set_and_section(
    page: Page, api: Client, done: dict[str, Any], files: dict[str, Path], clean: Clean, shot: Shot
) -> None:
    dataset = api.datasets.upload(files["labelled"], kind="labelled").id
    for version in ("shown:0", "shown:2"):
        api.evaluations.create(dataset, version, scoring=["strict"]).wait(300)
    open_job(page, done, "quality")
    for title in ("Strict accuracy", "Position bias"):
        legend = page.locator("figure", has_text=title).first.locator(".legend")
        expect(legend).to_contain_text("held-out pairs")
        expect(legend).to_contain_text("labelled pairs")
    sections = page.locator("figure", has_text="Strict accuracy by section")
    expect(sections.locator(".series")).to_have_count(6)
    benchmark = page.locator("figure", has_text="strict scoring")
    expect(benchmark.locator("circle").nth(1)).to_be_visible()
    expect(benchmark.locator(".whisker").nth(1)).to_be_attached()
    page.locator("figure", has_text="Position bias").get_by_text("The figures").click()
    expect(page.get_by_role("region", name="Position bias").get_by_role("row")).to_have_count(4)
    expect(
        page.get_by_text("On held-out pairs").or_(page.get_by_text("became")).first
    ).to_be_visible()
    clean(page)
    shot(page, "job-quality", dark=True)


def test_data_counts_from_rows_to_examples(
    page: Page, api: Client, done: dict[str, Any], clean: Clean, shot: Shot
) -> None:
    open_job(page, done, "data")
    counts = list(api.jobs.get(done["id"]).iterations())[2].counts

    def bar(table: str, name: str) -> Any:
        found = page.get_by_role("table", name=table).get_by_role("row")
        return found.filter(has_text=name).locator(".bar-value")

    expect(bar("Uploaded rows", "Uploaded rows")).to_have_text("100")
    held, choose, gate = (
        int(bar("Uploaded rows", name).inner_text())
        for name in ("Held-out pairs", "choose the checkpoint", "for the gate")
    )
    assert choose + gate == held and 0 <= choose - gate <= 1
    expect(bar("Instructions become pairs", "Instructions")).to_have_text("32")
    sampled, right = counts["judgments_sampled"], counts["judgments_kept"]
    judged = page.get_by_role("table", name="The judge is sampled")
    shown = [int(text.split()[0]) for text in judged.locator(".bar-value").all_inner_texts()]
    assert (shown[0], shown[-1]) == (sampled, right)
    assert shown[0] - sum(shown[1:-1]) == shown[-1]  # nothing is lost without a reason
    expect(bar("Right judgments become examples", "Training examples")).to_contain_text(
        str(counts["training_examples"])
    )
    clean(page)
    shot(page, "job-data")
    with page.expect_download() as saved:
        page.get_by_role("button", name="curate of iteration 2 as JSONL").click()
    lines = Path(saved.value.path()).read_text().splitlines()
    assert len(lines) == counts["training_examples"] and "completion" in json.loads(lines[0])
    link = page.get_by_role("link", name="Look at the pairs")
    expect(link).to_have_attribute("href", f"#/jobs/{done['id']}/pairs?iteration=2")


def test_training_draws_every_iterations_loss(
    page: Page, done: dict[str, Any], clean: Clean, shot: Shot
) -> None:
    open_job(page, done, "training")
    loss = page.locator("figure", has_text="Training loss")
    expect(loss.locator(".series")).to_have_count(2)
    ends = page.get_by_text("the run ends within its warm-up")
    settings = done["recipe"]["train"]
    expect(ends).to_have_count(int(settings["warmup_steps"] >= settings["steps"]))
    expect(loss.locator(".series").first.locator("circle")).to_have_count(TINY["train"]["steps"])
    expect(page.locator(".chip").filter(has_text="became the version")).to_be_visible()
    clean(page)
    shot(page, "job-training")


def test_cost_adds_up(
    page: Page, api: Client, done: dict[str, Any], clean: Clean, shot: Shot
) -> None:
    open_job(page, done, "cost")
    iterations = list(api.jobs.get(done["id"]).iterations())
    written = sum(one.counts.get("tokens", 0) for one in iterations)
    trained = sum(one.counts.get("train_tokens", 0) for one in iterations)
    for name, value in (("Tokens written", written), ("Tokens trained on", trained)):
        fact = page.locator(".facts div").filter(has_text=name)
        expect(fact.locator("dd")).to_have_text(f"{value:,}")
    device = page.locator(".facts div").filter(has_text="Device time of trainings").locator("dd")
    expect(device).to_have_text(re.compile(r"\d"))
    clean(page)
    shot(page, "job-cost")


def test_events_are_sentences(page: Page, done: dict[str, Any], clean: Clean, shot: Shot) -> None:
    open_job(page, done, "events")
    events = page.locator(".events li")
    expect(events.first).to_contain_text("It has succeeded.")
    clean(page)
    shot(page, "job-events")
    page.get_by_label("Only").select_option("gate.decided")
    expect(events).to_have_count(3)
    events.first.get_by_text("gate.decided").click()
    expect(events.first.locator("pre")).to_contain_text('"version": "shown:2"')


def test_the_recipe_says_what_differs(page: Page, done: dict[str, Any], clean: Clean) -> None:
    open_job(page, done, "recipe")
    differs = page.get_by_role("region", name="Settings that differ").get_by_role("row")
    expect(differs.filter(has_text="pair.instructions")).to_contain_text("32")
    page.get_by_role("button", name="Copy").click()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied == done["recipe"]
    clean(page)


def test_a_new_job_is_checked_started_and_followed(
    page: Page, api: Client, done: dict[str, Any], refused: set[int], clean: Clean, shot: Shot
) -> None:
    page.goto("/")
    page.get_by_role("link", name="New job").click()
    few = page.get_by_text("It has 100 rows, and 400 are held out")
    dataset = page.get_by_label("Dataset", exact=True)
    dataset.select_option(done["dataset"])
    expect(dataset.locator("option:checked")).to_have_text(
        re.compile(rf"^instructions\.jsonl \(100 rows, .* ago, …{done['dataset'][-6:]}\)$")
    )
    expect(few).to_be_visible()  # before anything is sent
    clean(page)
    page.get_by_label("Held out").fill("30")
    expect(few).to_have_count(0)
    page.get_by_label("Held out").fill("")
    expect(few).to_be_visible()
    page.get_by_label("Model").fill("Not A Name")
    page.get_by_label("Iterations").fill("99")
    settings = page.get_by_label("Other settings, as JSON")
    settings.fill("{")
    start = page.get_by_role("button", name="Start the job")
    start.click()
    expect(page.get_by_text("This is no JSON")).to_be_visible()
    refused.add(422)
    given = {key: value for key, value in TINY.items() if key != "iterations"}
    settings.fill(json.dumps(given))
    expect(few).to_have_count(0)  # by what is said as JSON, too
    start.click()
    expect(page.locator(".field.wrong").filter(has_text="Model")).to_be_visible()
    page.get_by_label("Model").fill("followed")
    start.click()
    expect(page.locator(".field.wrong").filter(has_text="Iterations")).to_be_visible()
    shot(page, "new-job")
    page.get_by_label("Iterations").fill("1")
    start.click()
    expect(page.get_by_role("heading", name="followed", level=1)).to_be_visible()
    bar = page.get_by_role("progressbar", name="Progress of the job")
    expect(bar).to_be_visible()
    expect(bar).not_to_have_attribute("aria-valuenow", "0", timeout=PATIENCE)  # without a reload
    clean(page)
    shot(page, "job-live", phone=True)
    page.goto("/")
    expect(
        page.get_by_role("row").filter(has_text="followed").get_by_text("running")
    ).to_be_visible()
    shot(page, "jobs")
    row = page.get_by_role("row").filter(has_text="followed")
    expect(row.get_by_text("succeeded")).to_be_visible(timeout=3 * PATIENCE)
    row.get_by_role("link", name="followed", exact=True).click()
    expect(page.locator(".learned")).to_be_visible()


def test_a_job_is_paused_resumed_cancelled_and_deleted(
    page: Page, api: Client, done: dict[str, Any], refused: set[int]
) -> None:
    overrides = {**json.loads(json.dumps(TINY)), "train": {**TINY["train"], "steps": 100_000}}
    job = api.jobs.create(
        done["dataset"], recipe="quickstart", overrides=overrides, model="steered"
    )
    open_job(page, job.model_dump(mode="json"))
    page.get_by_role("button", name="Pause").click()
    state = page.locator(".page-head .chip")
    expect(state).to_have_text("paused", timeout=PATIENCE)
    expect(page.get_by_text("not known while the job is paused")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(state).to_have_text("running")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Keep it").click()
    expect(state).to_have_text("running")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel it").click()
    expect(state).to_have_text("cancelled", timeout=PATIENCE)
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    refused.add(404)  # what the page asks for between the deletion and its answer
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    expect(page.get_by_role("row").filter(has_text=job.id)).to_have_count(0)


def test_a_failed_job_says_why_and_whose_fault_it_is(
    page: Page, api: Client, done: dict[str, Any], clean: Clean
) -> None:
    recipe = {"train": {"learning_rate": 1e30, "warmup_steps": 0}}
    overrides = json.loads(json.dumps(TINY))
    overrides["train"].update(recipe["train"])
    job = api.jobs.create(done["dataset"], recipe="quickstart", overrides=overrides, model="broken")
    with pytest.raises(JobFailed):
        job.wait(600)
    told = job.model_dump(mode="json")
    open_job(page, told)
    expect(page.get_by_role("alert")).to_contain_text("nan_loss")
    expect(page.get_by_text("What it was given is at fault.")).to_contain_text("have to change")
    expect(page.get_by_role("link", name="A new job")).to_have_attribute(
        "href", f"#/jobs/new?dataset={done['dataset']}"
    )
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    never = page.get_by_role("region", name="Each stage").get_by_role("row", name="gate")
    expect(never.get_by_role("progressbar")).to_have_count(0)
    clean(page)
    for tab in ("quality", "data", "training", "cost", "events"):
        open_job(page, told, tab)
        expect(page.locator("section.card").first).to_be_visible()
    page.goto("/#/?state=failed&model=broken")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_label("State").select_option("paused")
    expect(page.get_by_text("No such jobs")).to_be_visible()


def test_an_evaluation_and_a_batch_show_what_came_of_them(
    page: Page, api: Client, done: dict[str, Any], files: dict[str, Path], clean: Clean
) -> None:
    dataset = api.datasets.upload(files["labelled"], kind="labelled").id
    one = api.evaluations.create(dataset, "shown:1").wait(300)
    page.goto(f"/#/jobs/{one.id}")
    expect(page.get_by_role("region", name="Figures, strict")).to_contain_text("overall")
    clean(page)
    pair = {"instruction": "Say a b.", "response_a": "a b", "response_b": "b a"}
    batch = api.batches.create([pair] * 3, model="shown").wait(300)
    page.goto(f"/#/jobs/{batch.id}")
    expect(page.get_by_role("table", name="Verdicts")).to_be_visible()
    expect(page.locator(".facts div").filter(has_text="Judged").locator("dd")).to_have_text("3")
    clean(page)


def test_a_key_that_may_only_read_starts_and_steers_nothing(
    page: Page, api: Client, done: dict[str, Any], clean: Clean
) -> None:
    secret = api.keys.create("reader of jobs", ["read"]).secret
    sign_in(page, secret)
    page.goto("/")
    expect(page.get_by_role("row").filter(has_text=done["id"])).to_be_visible()
    expect(page.get_by_role("link", name="New job")).to_have_count(0)
    open_job(page, done)
    expect(page.get_by_role("button", name="Delete")).to_have_count(0)
    page.goto("/#/jobs/new")
    expect(page.get_by_text("This key may not start jobs")).to_be_visible()
    clean(page)


def test_the_list_says_what_jobs_came_to(
    page: Page, api: Client, done: dict[str, Any], clean: Clean
) -> None:
    result = api.jobs.get(done["id"]).result
    assert result is not None and result.strict_accuracy is not None
    page.goto("/#/?model=shown&kind=loop")
    row = page.get_by_role("row").filter(has_text=done["id"])
    expect(row).to_contain_text("loop: quickstart on instructions.jsonl")
    expect(row.get_by_role("link", name=str(result.version))).to_be_visible()
    expect(row).to_contain_text(f"{100 * result.strict_accuracy:.1f} %")
    clean(page)
    page.set_viewport_size({"width": 390, "height": 844})
    for told in (row.get_by_text("succeeded"), row.get_by_role("progressbar")):
        expect(told).to_be_in_viewport()
    region = page.get_by_role("region", name="Jobs, newest first")
    assert region.evaluate("one => one.scrollWidth <= one.clientWidth")  # nothing is to the side
    expect(page.get_by_label("State")).to_be_hidden()
    page.get_by_role("button", name="Filter (2 set)").click()
    expect(page.get_by_label("State")).to_be_visible()


def test_a_job_that_is_not_there(page: Page, refused: set[int], clean: Clean) -> None:
    refused.add(404)
    page.goto("/#/jobs/job_none")
    expect(page.get_by_role("alert")).to_contain_text("job_not_found")

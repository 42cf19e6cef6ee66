"""/metrics of gateway and evaluator; and what is drawn, alerted on and documented is exported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from selftaught import tenancy, totals
from selftaught.database import transaction
from selftaught.database.tables import Chunk, EngineServer, Outbox, Project
from selftaught.work import kernel
from services.evaluator.main import create_app
from tests.api.helpers import post_job, upload
from tests.test_logs import written
from tests.work.helpers import ready
from tests.work.test_totals import expire

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "selftaught.json").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
RULES = ALERTS["groups"][0]["rules"]
DOCS = (ROOT / "docs" / "observability.md").read_text()
LABELS = {
    "method", "route", "status", "state", "queue", "stage", "outcome", "kind", "decision",
    "project", "model", "version", "call", "part", "verdict", "le",
}  # fmt: skip
"""Of bounded sets: no ids, no texts. Models and projects are those that people have reviewed."""


@pytest.fixture
def evaluator(client: TestClient) -> Iterator[TestClient]:
    with TestClient(create_app(), "http://localhost") as found:
        yield found


def families(*apps: TestClient) -> dict[str, Metric]:
    """By name, as Prometheus reads them."""
    text = "".join(app.get("/metrics").text for app in apps)
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(metrics: dict[str, Metric]) -> set[str]:
    return {name for one in metrics.values() for name in names(one)}


def names(family: Metric) -> set[str]:
    """What may be asked for, also where nothing has been counted yet."""
    ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {family.name + end for end in ends.get(family.type, [""])}


def value(client: TestClient, name: str, **labels: str) -> float:
    found = families(client)
    all_of_it = [sample for one in found.values() for sample in one.samples if sample.name == name]
    (sample,) = [one for one in all_of_it if one.labels == labels]
    return sample.value


def test_names_units_and_labels_are_prometheus_ways(
    client: TestClient, evaluator: TestClient
) -> None:
    client.get("/v1/jobs")
    for family in families(client, evaluator).values():
        assert re.fullmatch(r"selftaught(_[a-z]+)+", family.name), family.name
        assert family.documentation.endswith((".", "?")), family.name
        assert not re.search(r"_(ms|minutes|hours|kb|mb|percent)$", family.name)
        for sample in family.samples:
            assert set(sample.labels) <= LABELS, sample
    assert families(client)["selftaught_stage_seconds"].type == "histogram"


def test_what_dashboard_and_alerts_ask_for_is_exported(
    client: TestClient, evaluator: TestClient
) -> None:
    exported = samples(families(client, evaluator)) | {"up"}
    targets = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    asked = {target["expr"] for target in targets} | {rule["expr"] for rule in RULES}
    assert len(targets) > 30
    for expression in asked:
        used = set(re.findall(r"\b(?:selftaught_\w+|up)\b", expression))
        assert used and used <= exported, expression
        for labels in re.findall(r"\{(\w.*?)\}", expression):
            asked_for = set(re.findall(r"(\w+)\s*(?:=|!)", labels))
            assert asked_for <= LABELS | {"job"}, expression
        assert expression.count("(") == expression.count(")")


def test_every_metric_is_in_the_docs_and_none_else(
    client: TestClient, evaluator: TestClient
) -> None:
    table = set(re.findall(r"^\| `(selftaught_\w+)", DOCS, re.MULTILINE))
    assert table == {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families(client, evaluator).values()
    }


def test_alerts_are_well_formed_and_each_has_a_line_of_what_to_do() -> None:
    assert [group["name"] for group in ALERTS["groups"]] == ["selftaught"]
    assert len({rule["alert"] for rule in RULES}) == len(RULES) > 10
    lines = dict(re.findall(r"^\| (\w+) \| [^|]+ \| ([^|]+) \|$", DOCS, re.MULTILINE))
    for rule in RULES:
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m")), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary"}
        assert len(lines[rule["alert"]]) > 20, rule["alert"]
    assert {rule["alert"] for rule in RULES} <= lines.keys()


def test_a_dashboards_panels_do_not_overlap_and_have_one_source() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not mine & cells and at["x"] + at["w"] <= 24, panel["title"]
        cells |= mine
    folder = ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "selftaught.yml"
    sources = {one["uid"] for one in yaml.safe_load(folder.read_text())["datasources"]}
    used = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if "datasource" in panel}
    assert used <= sources


def test_the_work_in_gauges(client: TestClient) -> None:
    job = post_job(client, upload(client)).json()["id"]
    gauge: Callable[..., float] = value
    assert gauge(client, "selftaught_outbox_age_seconds") > 0
    assert gauge(client, "selftaught_oldest_ready_chunk_seconds", queue="trainer") == 0, "not sent"
    (chunk_id,) = ready(job)
    with transaction() as session:
        session.query(Outbox).delete()
        session.get_one(Chunk, chunk_id).rung_at = kernel.pipeline.NOW
    assert gauge(client, "selftaught_outbox_age_seconds") == 0
    assert gauge(client, "selftaught_oldest_ready_chunk_seconds", queue="trainer") > 0
    assert gauge(client, "selftaught_ready_chunks", queue="trainer") == 1
    assert kernel.claim(chunk_id, "dies") is not None
    assert gauge(client, "selftaught_ready_chunks", queue="trainer") == 0
    assert gauge(client, "selftaught_running_chunks", queue="trainer") == 1
    assert gauge(client, "selftaught_overdue_leases", queue="trainer") == 0
    expire(chunk_id)
    assert gauge(client, "selftaught_overdue_leases", queue="trainer") == 1
    assert gauge(client, "selftaught_lease_expiries_total", stage="register") == 0
    kernel.reap()
    assert gauge(client, "selftaught_overdue_leases", queue="trainer") == 0
    assert gauge(client, "selftaught_lease_expiries_total", stage="register") == 1
    assert gauge(client, "selftaught_chunks_total", stage="register", outcome="retried") == 1
    with transaction() as session:
        session.add(EngineServer(id="srv", node="n", key="k", spec={}, state="failed"))
    assert gauge(client, "selftaught_engine_servers", state="failed") == 1
    assert gauge(client, "selftaught_engine_servers", state="ready") == 0


def test_a_histogram_of_seconds_is_cumulative(client: TestClient) -> None:
    with transaction() as session:
        for seconds in (0.5, 2.0, 2.5, 10**6):
            totals.add_chunk(session, "judge", seconds, {"tokens": 3, "prompt_tokens": 2})

    def bucket(le: str) -> float:
        return value(client, "selftaught_stage_seconds_bucket", stage="judge", le=le)

    assert [bucket(le) for le in ("1.0", "3.0", "86400.0", "+Inf")] == [1, 3, 3, 4]
    assert value(client, "selftaught_stage_seconds_count", stage="judge") == 4
    assert value(client, "selftaught_stage_seconds_sum", stage="judge") == 1000005
    tokens = "selftaught_engine_tokens_total"
    assert value(client, tokens, stage="judge", kind="completion") == 12
    assert value(client, tokens, stage="judge", kind="prompt") == 8
    assert value(client, tokens, stage="pair", kind="prompt") == 0


def test_totals_are_the_platforms_and_jobs_of_all_projects_are_in_them(client: TestClient) -> None:
    with transaction() as session:
        session.add(Project(id="red"))
    for project in ("red", "default"):
        with tenancy.inside(project), transaction() as session:
            totals.add(session, "promotions", part="refused")
    assert value(client, "selftaught_promotions_total", decision="refused") == 2
    assert value(client, "selftaught_promotions_total", decision="forced") == 0


def test_a_requests_lines_have_its_id_also_when_it_crashes(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("services.api.recipes.recipe_names", crash)
    with written() as stream:
        answer = client.get("/v1/recipes", headers={"x-request-id": "mine"})
    assert answer.status_code == 500
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (line,) = [line for line in lines if "exception" in line]
    assert line["request_id"] == "mine" and "ZeroDivisionError" in line["exception"]

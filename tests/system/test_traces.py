"""One trace from a caller's request to the engine's server, through every process, as it is run.

Gateway, relay, Celery worker and evaluator are processes of the stack, Postgres and Redis real; the
engine is a server that is asked over HTTP, and spans come to a collector by OTLP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from selftaught.database import transaction
from selftaught.database.tables import Job
from selftaught.stack.handle import Stack
from tests.api.helpers import add_versions
from tests.collector import Collector, Seen, collector
from tests.conftest import Servers
from tests.inference.standin import StandIn, standin

TRACED = {"gateway", "relay", "evaluator", "evaluator-worker"}
LINEAGE: dict[str, Any] = {
    "template": {"name": "mt-bench"},
    "inference": "standin",
    "recipe": {"base_model": "big"},
    "judge_max_tokens": 77,
    "judge_sampling": {"temperature": 0.5, "max_tokens": 9},
}
PAIR = {"instruction": "i", "response_a": "good", "response_b": "bad"}


@dataclass
class World:
    stack: Stack
    gateway: httpx.Client
    engine: StandIn
    collector: Collector

    def lines(self, process: str) -> list[dict[str, Any]]:
        """A process's log; every line is a JSON object."""
        text = (self.stack.home / "logs" / f"{process}.log").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def of_trace(self, trace: str, enough: int) -> list[Seen]:
        def mine(spans: list[Seen]) -> list[Seen]:
            return [span for span in spans if span.trace == trace]

        return mine(self.collector.wait(lambda spans: len(mine(spans)) >= enough))


@pytest.fixture
def world(database: Servers, tmp_path: Path) -> Iterator[World]:
    add_versions("m", [1], latest=1, lineage=LINEAGE)
    with standin() as engine, collector() as spans:
        engine.reply = lambda text, seed: "the first is better\n[[A]]"
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": spans.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "SELFTAUGHT_LOG_FORMAT": "json",
            "SELFTAUGHT_ENDPOINTS": json.dumps({"standin": engine.url}),
            "SELFTAUGHT_ENDPOINT_KEY_STANDIN": "the-key-of-the-endpoint",
        }
        with (
            Stack(tmp_path, only=TRACED, env=env) as stack,
            httpx.Client(base_url=stack.gateway_url, timeout=60, trust_env=False) as gateway,
        ):
            yield World(stack, gateway, engine, spans)


def one(spans: list[Seen], service: str, kind: str) -> Seen:
    (found,) = [span for span in spans if (span.service, span.kind) == (service, kind)]
    return found


def the(lines: list[dict[str, Any]], part: str) -> dict[str, Any]:
    (found,) = [line for line in lines if part in line["message"]]
    return found


def test_one_trace_through_all_processes(world: World) -> None:
    trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace}-{caller}-01", "x-request-id": "req-of-the-caller"}
    body = orjson.dumps(PAIR) + b"\n"
    batch = world.gateway.post(
        "/v1/judge/batches?model=m",
        content=body,
        headers={**headers, "content-type": "application/x-ndjson"},
    )
    assert batch.status_code == 201, batch.text
    job = batch.json()["id"]
    spans = world.of_trace(trace, 4)
    asked = one(spans, "gateway", "server")
    sent = one(spans, "relay", "producer")
    chunk = one(spans, "evaluator-worker", "consumer")
    engine = one(spans, "evaluator-worker", "client")
    assert len(spans) == 4 and not any(span.failed for span in spans)
    assert [span.parent for span in (asked, sent, chunk, engine)] == [
        caller, asked.id, sent.id, chunk.id
    ]  # fmt: skip
    assert (asked.name, chunk.name) == ("POST /v1/judge/batches", "process judge_batch")
    assert asked.attributes["http.response.status_code"] == 201
    assert chunk.attributes["selftaught.job_id"] == job and chunk.attributes["selftaught.applied"]
    assert engine.name == "chat big" and engine.attributes["gen_ai.usage.output_tokens"] == 6
    assert set(world.engine.traceparents) == {f"00-{trace}-{engine.id}-01"}

    line = the(world.lines("gateway"), "POST /v1/judge/batches")
    assert (line["trace_id"], line["span_id"]) == (trace, asked.id)
    assert (line["request_id"], line["logger"]) == ("req-of-the-caller", "uvicorn.access")
    line = the(world.lines("evaluator-worker"), " applied")
    assert (line["trace_id"], line["span_id"], line["job_id"]) == (trace, chunk.id, job)
    assert (line["stage"], line["project"], line["attempt"]) == ("judge_batch", "default", "1")
    assert line["request_id"] == "req-of-the-caller", "the request that made the job"
    with transaction() as session:
        row = session.get_one(Job, job)
        assert (row.request_id, row.traceparent) == (
            "req-of-the-caller", f"00-{trace}-{asked.id}-01"
        )  # fmt: skip

    world.engine.traceparents.clear()
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-{caller}-01"}
    question = {**PAIR, "instruction": "another", "model": "m"}
    answer = world.gateway.post("/judge", json=question, headers=headers)
    assert answer.status_code == 200, answer.text
    spans = world.of_trace(trace, 3)
    asked = one(spans, "gateway", "server")
    judged = one(spans, "evaluator", "server")
    engine = one(spans, "evaluator", "client")
    assert [span.parent for span in (asked, judged, engine)] == [caller, asked.id, judged.id]
    assert set(world.engine.traceparents) == {f"00-{trace}-{engine.id}-01"}
    line = the(world.lines("gateway"), "POST /judge ")
    assert (line["trace_id"], line["request_id"]) == (trace, answer.headers["x-request-id"])

    # Who sends no good one begins a trace of his own; health checks begin none.
    world.gateway.get("/healthz")
    world.gateway.get("/v1/jobs", headers={"traceparent": "00-zz-1"})
    found = world.collector.wait(lambda all: any(span.name == "GET /v1/jobs" for span in all))
    (own,) = [span for span in found if span.name == "GET /v1/jobs"]
    assert own.parent == "" and len(own.trace) == 32
    assert not any("healthz" in span.name or "readyz" in span.name for span in found)
    for process in TRACED:
        assert world.lines(process)[0]["service"] == process
        assert "the-key-of-the-endpoint" not in str(world.lines(process))

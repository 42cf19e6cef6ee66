"""Spans: who begins a trace, who is whose child, and what an error leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from selftaught import telemetry
from selftaught.inference import Request, Sampling
from selftaught.inference.local import LocalEngine
from services.evaluator.askers import Together
from tests import tiny
from tests.traced import traced

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"


def by_name(spans: tuple[ReadableSpan, ...]) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans}


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def test_off_there_is_nothing() -> None:
    with telemetry.span("GET", "server", PARENT) as span:
        assert not span.is_recording()
        assert (telemetry.headers(), telemetry.environment()) == ({}, {})
        assert telemetry.ids() is None and telemetry.traceparent() is None


def test_a_child_belongs_to_the_span_it_is_in() -> None:
    with traced() as exporter:
        with telemetry.span("GET", "server", PARENT):
            assert telemetry.headers()["traceparent"].startswith(f"00-{TRACE}-")
            with telemetry.span("chat", "client"):
                inner = telemetry.ids()
        spans = by_name(exporter.get_finished_spans())
    assert parent(spans["GET"]) == int(CALLER, 16)
    own = spans["GET"].context
    assert own is not None and parent(spans["chat"]) == own.span_id
    assert inner is not None and inner[0] == TRACE


@pytest.mark.parametrize("given", [None, "", "nonsense", PARENT[:-3], f"ff{PARENT[2:]}"])
def test_a_server_without_a_good_parent_begins_a_trace(given: str | None) -> None:
    with (
        traced() as exporter,
        telemetry.span("GET", "server", PARENT),  # the connection's request before
        telemetry.span("GET again", "server", given),
    ):
        pass
    (again, _) = exporter.get_finished_spans()
    assert again.parent is None and again.context is not None
    assert f"{again.context.trace_id:032x}" != TRACE


def test_what_belongs_to_nothing_is_no_span() -> None:
    with traced() as exporter, telemetry.span("chat", "client") as span:
        assert not span.is_recording()
        with telemetry.span("send generator", "producer", "nonsense"):
            assert telemetry.headers() == {}
    assert exporter.get_finished_spans() == ()


def test_a_caller_that_does_not_sample_is_obeyed() -> None:
    with traced() as exporter, telemetry.span("GET", "server", f"{PARENT[:-1]}0"):
        assert telemetry.headers()["traceparent"].endswith("-00"), "and whoever comes next"
    assert exporter.get_finished_spans() == ()


def test_an_error_leaves_its_type_and_not_its_words() -> None:
    with (
        traced() as exporter,
        pytest.raises(ValueError, match="people"),
        telemetry.span("GET", "server", PARENT),
    ):
        raise ValueError("texts of people")
    (span,) = exporter.get_finished_spans()
    assert not span.status.is_ok and span.attributes == {"error.type": "ValueError"}
    assert "people" not in span.to_json()


def test_a_batch_of_several_calls_is_in_nobodys_trace(tmp_path: Path) -> None:
    engine = LocalEngine(tiny.build(tmp_path / "m"))
    request, sampling = Request([{"role": "user", "content": "a"}], 0), Sampling(max_tokens=2)

    async def call(asker: Together, name: str) -> None:
        with telemetry.span(name, "server"):
            await asker.ask([request], sampling)

    async def calls() -> None:
        asker = Together(engine)
        await asyncio.gather(*(call(asker, name) for name in ("one", "two", "three")))

    with traced() as exporter:
        with telemetry.span("process judge", "consumer", PARENT):
            engine.generate([request], sampling)
        asyncio.run(calls())
        spans = exporter.get_finished_spans()
    chunk, local = by_name(spans)["process judge"], by_name(spans)["chat local"]
    assert chunk.context is not None and parent(local) == chunk.context.span_id
    assert local.attributes is not None
    assert local.attributes["gen_ai.usage.output_tokens"] in (1, 2)
    assert [span.name for span in spans].count("chat local") == 1
    asked = [span for span in spans if span.name == "chat in a batch"]
    callers = {
        span.context.span_id for span in spans if span.context and span.name in "one two three"
    }
    assert {parent(span) for span in asked} == callers and len(asked) == 3
